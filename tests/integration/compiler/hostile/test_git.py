"""Repositories that aim at git: at what it fetches, checks out and runs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from builds import EVIL, EXECUTE, LIBRARY, SMALL, UNTOUCHED, Build, Publish, Refused

from offchainvm.compiler.base import BuildEvent
from offchainvm.compiler.source import Resolver, parse_source
from offchainvm.models import CodeSource


def git(mirror: Path, *arguments: str, given: bytes = b"", name: str = "guest") -> str:
    person = {f"GIT_{who}_{what}": "x@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "--git-dir", str(mirror / "someone" / f"{name}.git"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, input=given, env={**os.environ, **person}).stdout.decode().strip()


def commit_tree(mirror: Path, tree: bytes, *, literally: bool = False) -> str:
    """A commit of a tree that no honest git would write; over it comes the tree of ``main``."""
    rows = [*git(mirror, "ls-tree", "main").splitlines()]
    if not literally:
        sha = git(mirror, "mktree", "--missing", given="\n".join(rows).encode() + b"\n" + tree)
    else:
        entries = [tree]
        for row in rows:
            mode, _, rest = row.split(" ", 2)
            blob, path = rest.split("\t")
            entries.append(f"{mode.lstrip('0')} {path}\0".encode() + bytes.fromhex(blob))
        sha = git(mirror, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", given=b"".join(entries))
    commit = git(mirror, "commit-tree", "-m", "x", sha)
    git(mirror, "update-ref", "refs/heads/main", commit)
    for path in (mirror / "someone").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return commit


def test_a_tree_that_points_outside_itself_is_refused(build: Build, refused: Refused, publish: Publish, mirror: Path) -> None:
    """The other ways to write such a path are in the unit tests."""
    publish({"build.rs": UNTOUCHED})
    blob = git(mirror, "hash-object", "-w", "--stdin", given=EVIL.encode())
    commit_sha = commit_tree(mirror, b"100755 ../was-run\0" + bytes.fromhex(blob), literally=True)

    error = refused(commit_sha)

    assert error.code == "unsupported_source"
    assert "outside" in error.sentence
    assert build(publish({"build.rs": UNTOUCHED})).size > 0


def test_a_branch_that_moves_after_it_was_resolved_changes_nothing(build: Build, refused: Refused, publish: Publish, mirror: Path) -> None:
    publish()
    source = parse_source(CodeSource(repo="someone/guest", commit="main"), mirror_url=f"file://{mirror}")
    commit_sha = Resolver().resolve(source)
    blob = git(mirror, "hash-object", "-w", "--stdin", given=b"panic")
    moved = commit_tree(mirror, f"100644 blob {blob}\tbuild.rs\n".encode())

    built = build(commit_sha)

    assert built.provenance["predicate"]["buildDefinition"]["externalParameters"]["commit"] == commit_sha != moved
    assert refused(moved).code == "compile_error"


def test_submodules_are_not_fetched(build: Build, publish: Publish, mirror: Path) -> None:
    urls = ("ext::sh -c /src/evil.sh", "file:///mirror/someone/other.git", "--upload-pack=/src/evil.sh")
    modules = "".join(f'[submodule "m{n}"]\n\tpath = m{n}\n\turl = {url}\n\tupdate = !/src/evil.sh\n' for n, url in enumerate(urls))
    other = publish(name="other")
    publish({".gitmodules": modules, "evil.sh": EVIL, "build.rs": UNTOUCHED})
    commit_sha = commit_tree(mirror, "".join(f"160000 commit {other}\tm{n}\n" for n in range(3)).encode())
    events = list[BuildEvent]()

    assert build(commit_sha, on_event=events.append).size > 0

    assert any("submodules: they are not fetched" in event.text for event in events)


def test_a_dependency_in_a_submodule_is_missing(refused: Refused, publish: Publish, mirror: Path) -> None:
    other = publish(name="other")
    manifest = f'{LIBRARY}[dependencies]\nhelper = {{ path = "helper" }}\n'
    publish({"Cargo.toml": manifest, ".gitmodules": '[submodule "helper"]\n\tpath = helper\n\turl = https://github.com/someone/other\n'})
    commit_sha = commit_tree(mirror, f"160000 commit {other}\thelper\n".encode())

    error = refused(commit_sha)

    assert error.code == "manifest_invalid"
    assert "Submodules are not fetched" in error.remedy


def test_no_hook_filter_or_monitor_of_a_repository_runs(build: Build, publish: Publish) -> None:
    """A tree that looks like a bare repository with hooks, and attributes that name filters: all of it stays mere files."""
    config = """[core]
    repositoryformatversion = 0
    bare = false
    worktree = /src
    hooksPath = /src/hooks
    fsmonitor = /src/evil.sh
    sshCommand = /src/evil.sh
    attributesFile = /src/.gitattributes
[filter "evil"]
    smudge = /src/evil.sh
    clean = /src/evil.sh
    process = /src/evil.sh
    required = true
[filter "lfs"]
    smudge = /src/evil.sh
    process = /src/evil.sh
    required = true
[diff "evil"]
    textconv = /src/evil.sh
"""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    hooks = ("post-checkout", "reference-transaction", "fsmonitor-watchman", "post-index-change")
    files = {
        "HEAD": "ref: refs/heads/main\n",
        "objects/x": "",
        "refs/heads/x": "",
        "config": config,
        ".gitconfig": config,
        ".lfsconfig": '[lfs]\n    url = file:///mirror\n[lfs "customtransfer.evil"]\n    path = /src/evil.sh\n',
        ".gitattributes": "* filter=evil diff=evil\n*.bin filter=lfs diff=lfs merge=lfs -text\n",
        "data.bin": pointer,
        "evil.sh": EVIL,
        "build.rs": UNTOUCHED,
        "src/lib.rs": f'{EXECUTE}const _: () = assert!(include_bytes!("../data.bin").len() == {len(pointer)});\n',
        **{f"hooks/{hook}": EVIL for hook in hooks},
    }

    assert build(publish(files)).size > 0


def test_a_repository_over_its_limit_is_not_kept(refused: Refused, publish: Publish) -> None:
    commit_sha = publish({"blob": bytes(range(256)) * 4096 * 3}, name="guest")

    error = refused(commit_sha, limits=replace(SMALL, source_mb=1))

    assert error.code == "repo_too_large"
    assert "1 MiB" in error.sentence


def test_what_does_not_exist_is_named(refused: Refused, publish: Publish, mirror: Path) -> None:
    publish()
    git(mirror, "tag", "-a", "-m", "x", "v1", "main")

    assert refused("0123456789" * 4).code == "commit_not_found"
    assert refused(git(mirror, "rev-parse", "v1")).code == "commit_not_found"
    assert refused("0123456789" * 4, repo="someone/nothing").code == "repo_not_found"
