"""Names of sources: what is accepted, what is refused, and the key that other workers share."""

from __future__ import annotations

import hashlib

import pytest

from offchainvm.compiler.source import is_full_sha, is_on_github, parse_source, source_key
from offchainvm.errors import BuildError
from offchainvm.models import CodeSource

SHA = "0123456789abcdef0123456789abcdef01234567"


def parse(repo: str = "owner/name", commit: str = "main", target: str = "wasm32-wasip1") -> object:
    return parse_source(CodeSource(repo=repo, commit=commit, build_target=target))


@pytest.mark.parametrize(
    "repo",
    [
        "owner/name",
        "https://github.com/owner/name",
        "https://github.com/owner/name.git",
        "https://GitHub.com/owner/name/",
        "github.com/owner/name",
    ],
)
def test_the_usual_names_of_a_repository_mean_the_same(repo: str) -> None:
    source = parse_source(CodeSource(repo=repo, commit="main"))

    assert (source.owner, source.name) == ("owner", "name")
    assert source.clone_url == "https://github.com/owner/name.git"
    assert source.repo == repo


@pytest.mark.parametrize(
    "repo",
    [
        "https://gitlab.com/owner/name",
        "http://github.com/owner/name",
        "https://github.com.evil.example/owner/name",
        "https://user:password@github.com/owner/name",
        "git@github.com:owner/name",
        "ssh://-oProxyCommand=id/name",
        "ssh://github.com/owner/name",
        "file:///etc/passwd",
        "ext::sh",
        "gitlab.com/owner/name",
    ],
)
def test_a_repository_elsewhere_is_an_unsupported_source(repo: str) -> None:
    with pytest.raises(BuildError, match="unsupported_source"):
        parse(repo)


@pytest.mark.parametrize(
    "repo",
    [
        "",
        "name",
        "a/b/c",
        "/a/b",
        "../b",
        "a/..",
        "a/.git",
        "a/b c",
        "a/b\n",
        "a/b\x00",
        "a/b\x1b[2J",
        "ä/b",
        "-a/b",
        "--upload-pack=id/b",
        "ext::sh -c id",
        "https://github.com/a/../b",
        "https://github.com/a/b?x=y",
        "https://github.com/a/b#c",
        "https://github.com/a",
        f"{'a' * 40}/b",
        f"a/{'b' * 101}",
    ],
)
def test_a_hostile_or_broken_repository_is_an_invalid_request(repo: str) -> None:
    with pytest.raises(BuildError, match="invalid_request"):
        parse(repo)


@pytest.mark.parametrize(
    "ref", ["main", "v1.0.0", "feature/x-y_z", "refs/heads/main", "HEAD", "0.1", "deadbeef", "a@b", "release+1", "ünïcode"]
)
def test_an_ordinary_reference_is_kept(ref: str) -> None:
    assert parse_source(CodeSource(repo="a/b", commit=ref)).ref == ref


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-x",
        "--upload-pack=id",
        "a b",
        "a..b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "[a]",
        "a\\b",
        "a@{1}",
        "@",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.",
        "a.lock",
        "a.lock/b",
        "a\n",
        "a\x7f",
        "a\u2028b",
        "a\u202eb",
        "a\u200bb",
        "x" * 256,
    ],
)
def test_a_reference_that_git_would_not_take_is_an_invalid_request(ref: str) -> None:
    with pytest.raises(BuildError, match="invalid_request"):
        parse(commit=ref)


def test_a_full_sha_is_written_in_lower_case() -> None:
    source = parse_source(CodeSource(repo="a/b", commit=SHA.upper()))

    assert source.ref == SHA
    assert source.is_full_sha
    assert not is_full_sha(SHA[:39])


def test_the_old_wasi_name_stays_in_the_key_and_is_translated_for_the_build() -> None:
    source = parse_source(CodeSource(repo="a/b", commit="main", build_target="wasm32-wasi"))

    assert (source.target, source.rust_target) == ("wasm32-wasi", "wasm32-wasip1")


@pytest.mark.parametrize("target", ["", "x86_64-unknown-linux-gnu", "wasm32-wasip2", "wasm32-wasip1 --config x", "../x"])
def test_another_target_is_an_invalid_request(target: str) -> None:
    with pytest.raises(BuildError, match="invalid_request"):
        parse(target=target)


def test_the_source_key_is_the_hash_of_the_joined_strings() -> None:
    joined = f"https://github.com/a/b{SHA}wasm32-wasip1"

    assert source_key("https://github.com/a/b", SHA, "wasm32-wasip1") == hashlib.sha256(joined.encode()).hexdigest()


def test_the_source_key_joins_with_nothing_between() -> None:
    assert source_key("a", "bc", "d") == source_key("ab", "c", "d")


@pytest.mark.parametrize(
    ("mirror_url", "clone_url"),
    [("https://mirror.example/git/", "https://mirror.example/git/a/b.git"), ("file:///srv/mirror", "file:///srv/mirror/a/b.git")],
)
def test_a_mirror_replaces_the_host_when_cloning(mirror_url: str, clone_url: str) -> None:
    source = parse_source(CodeSource(repo="https://github.com/a/b", commit="main"), mirror_url=mirror_url)

    assert source.clone_url == clone_url
    assert source.repo == "https://github.com/a/b"


@pytest.mark.parametrize("path", ["a/b", "a/b.git", "a/b/", "A-1/b_c.d"])
def test_the_address_of_a_repository_on_github_is_known(path: str) -> None:
    assert is_on_github(f"https://github.com/{path}")


@pytest.mark.parametrize(
    "path", ["..%2F..%2Fprivate/repo", "../../private/repo", "a/..%2f..%2fb", "a/..", "a", "a/b/c", "a/b?x", "%61/b", "a/b%2f"]
)
def test_an_address_that_climbs_out_of_a_mirror_is_none_of_a_repository(path: str) -> None:
    assert not is_on_github(f"https://github.com/{path}")
