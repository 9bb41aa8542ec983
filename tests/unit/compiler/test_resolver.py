"""Branches and tags become SHAs by `git ls-remote`, on bare repositories in a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from offchainvm.compiler.git import git_config, ls_remote
from offchainvm.compiler.local import publish_folder
from offchainvm.compiler.source import Resolver, Source, parse_source
from offchainvm.errors import BuildError, Unavailable
from offchainvm.models import CodeSource


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("a")
    publish_folder(tmp_path / "files", tmp_path / "mirror", owner="owner", name="name")
    return tmp_path / "mirror"


def git(mirror: Path, *arguments: str) -> str:
    command = ["git", "--git-dir", str(mirror / "owner" / "name.git"), "-c", "user.name=x", "-c", "user.email=x@localhost", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def source(mirror: Path, ref: str, name: str = "owner/name") -> Source:
    return parse_source(CodeSource(repo=name, commit=ref), mirror_url=f"file://{mirror}")


def test_a_branch_is_found(mirror: Path) -> None:
    assert Resolver().resolve(source(mirror, "main")) == git(mirror, "rev-parse", "main")


def test_an_annotated_tag_is_followed_to_its_commit(mirror: Path) -> None:
    git(mirror, "tag", "-a", "-m", "x", "v1", "main")

    for ref in ("v1", "refs/tags/v1"):
        assert Resolver().resolve(source(mirror, ref)) == git(mirror, "rev-parse", "main")


def test_a_branch_comes_before_a_tag_of_the_same_name(mirror: Path) -> None:
    first = git(mirror, "rev-parse", "main")
    second = git(mirror, "commit-tree", "-m", "y", "-p", first, f"{first}^{{tree}}")
    git(mirror, "update-ref", "refs/tags/both", first)
    git(mirror, "update-ref", "refs/heads/both", second)

    assert Resolver().resolve(source(mirror, "both")) == second


def test_a_name_that_only_ends_like_the_reference_is_another(mirror: Path) -> None:
    git(mirror, "update-ref", "refs/heads/x/refs/heads/lost", "main")

    with pytest.raises(BuildError, match="commit_not_found"):
        Resolver().resolve(source(mirror, "lost"))


def test_a_full_sha_passes_through_unasked(tmp_path: Path) -> None:
    assert Resolver().resolve(source(tmp_path / "nothing", "a" * 40)) == "a" * 40


def test_answers_are_kept_for_a_while(mirror: Path) -> None:
    resolver, forgetful = Resolver(), Resolver(cache_seconds=0)
    before = resolver.resolve(source(mirror, "main")), forgetful.resolve(source(mirror, "main"))
    moved = git(mirror, "commit-tree", "-m", "y", f"{before[0]}^{{tree}}")
    git(mirror, "update-ref", "refs/heads/main", moved)

    assert resolver.resolve(source(mirror, "main")) == before[0]
    assert forgetful.resolve(source(mirror, "main")) == moved


def test_what_is_missing_is_told_apart(mirror: Path) -> None:
    with pytest.raises(BuildError, match="commit_not_found"):
        Resolver().resolve(source(mirror, "deadbeef"))
    with pytest.raises(BuildError, match="repo_not_found"):
        Resolver().resolve(source(mirror, "main", "owner/other"))


def test_the_resolvers_own_mirror_is_asked_where_it_is_given(mirror: Path) -> None:
    elsewhere = parse_source(CodeSource(repo="owner/name", commit="main"))

    assert Resolver(f"file://{mirror}").resolve(elsewhere) == git(mirror, "rev-parse", "main")


def test_git_obeys_no_configuration_but_ours(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = tmp_path / "home"
    evil.mkdir()
    (evil / ".gitconfig").write_text(f'[url "file://{tmp_path}/evil/"]\ninsteadOf = file://{mirror}/\n')
    monkeypatch.setenv("HOME", str(evil))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(evil / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", str(evil))

    assert Resolver().resolve(source(mirror, "main"))


def test_another_protocol_is_refused_by_git_itself(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    with pytest.raises(BuildError):
        ls_remote(f"ext::sh -c 'touch {marker}'", ["HEAD"], timeout_seconds=10)
    assert not marker.exists()


def test_a_host_that_never_answers_ends_as_network_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nsleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(BuildError, match="fetch_network"):
        ls_remote("https://host.invalid/a/b.git", ["HEAD"], timeout_seconds=0.2)


def test_a_host_without_git_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Unavailable, match="git"):
        ls_remote("https://host.invalid/a/b.git", ["HEAD"], timeout_seconds=1)


def test_the_configuration_allows_the_scheme_of_its_base_only() -> None:
    text = git_config("https://mirror.example")

    assert "[protocol]\nallow = never" in text
    assert text.count("allow = always") == 1
    assert '[url "https://mirror.example/"]\ninsteadOf = https://mirror.example/\ninsteadOf = https://github.com/' in text


@pytest.mark.parametrize(
    "url", ["https://other.invalid/a/b", "http://github.com/a/b", "ssh://github.com/a/b", "file:///etc", "git@github.com:a/b"]
)
def test_every_other_address_is_refused_by_git_before_it_is_asked(tmp_path: Path, url: str) -> None:
    (tmp_path / "config").write_text(git_config())
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": str(tmp_path / "config"), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}

    done = subprocess.run(["git", "ls-remote", url], check=False, capture_output=True, text=True, env=environ)

    assert "not allowed" in done.stderr


def test_a_published_folder_has_a_commit_that_depends_on_its_files_only(tmp_path: Path) -> None:
    (tmp_path / "files" / "target").mkdir(parents=True)
    (tmp_path / "files" / "a").write_text("a")
    first = publish_folder(tmp_path / "files", tmp_path / "one", owner="o", name="n")
    (tmp_path / "files" / "target" / "junk").write_text("junk")

    assert publish_folder(tmp_path / "files", tmp_path / "two", owner="o", name="n") == first
