"""Registries and crates that are hostile or broken, over a network that leads nowhere else; and a cache that was tampered with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from builds import CRATES, NEAR, Build, Publish, near_deadline
from mirror import ANSWER, MANIFEST, SECRET, Mirror, guest, make_crate

from offchainvm.compiler import crates
from offchainvm.errors import BuildError


def test_a_crate_is_fetched_once_and_a_poisoned_copy_is_never_used(make: Build, publish: Publish, site: Mirror, tmp_path: Path) -> None:
    checksum = site.publish("answer", "1.0.0", ANSWER)
    commit_sha = publish(guest(checksum))
    first = make(commit_sha)
    cached = tmp_path / "state2" / crates.FOLDER / checksum
    assert cached.read_bytes() == site.crates["answer", "1.0.0"]

    site.requests.clear()
    second = make(commit_sha)
    assert not [path for path in site.requests if not path.startswith("/git/")]

    site.publish("evil", "1.0.0", "pub fn get() -> i32 { 0 }\n")
    cached.write_bytes(site.crates["evil", "1.0.0"])
    third = make(commit_sha)
    assert [path for path in site.requests if path.startswith("/crates/answer")], "the poisoned copy was taken for the crate"

    assert first.wasm == second.wasm == third.wasm
    assert cached.read_bytes() == site.crates["answer", "1.0.0"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param(("/crates/", "404"), ("dependency_not_found", "answer-1.0.0"), id="crate-absent"),
        pytest.param(("/crates/", "500"), ("fetch_network", "500"), id="registry-broken"),
        pytest.param(("/index/", "401"), ("fetch_network", "401"), id="registry-wants-a-login"),
        pytest.param(("/git/", "404"), ("repo_not_found", "someone/guest"), id="repository-absent"),
        pytest.param(("/git/", "401"), ("repo_not_found", "someone/guest"), id="repository-private"),
        pytest.param(("/git/", "502"), ("fetch_network", "someone/guest"), id="git-broken"),
    ],
)
def test_a_fault_of_the_mirror_has_a_code(
    make: Build, publish: Publish, site: Mirror, fault: tuple[str, str], expected: tuple[str, str]
) -> None:
    code, said = expected
    commit_sha = publish(guest(site.publish("answer", "1.0.0", ANSWER)))
    site.faults = dict([fault])

    with pytest.raises(BuildError) as caught:
        make(commit_sha)

    assert caught.value.code == code
    assert said in caught.value.sentence
    assert SECRET not in caught.value.sentence + caught.value.log_tail


def test_a_version_that_the_registry_does_not_have_is_not_found(make: Build, publish: Publish, site: Mirror) -> None:
    site.publish("answer", "1.0.0", ANSWER)

    with pytest.raises(BuildError, match=r"dependency_not_found: .*answer"):
        make(publish({"Cargo.toml": MANIFEST.replace('"1"', '"=99.0.0"')}, without=("Cargo.lock",)))


@pytest.mark.parametrize(
    ("fault", "phase", "said"),
    [
        pytest.param(("/crates/", "drip"), CRATES, "fetching crates", id="registry-drips"),
        pytest.param(("/git/", "hang"), "source", "getting the source", id="git-hangs"),
    ],
)
def test_a_mirror_without_an_end_is_a_timeout(
    *, make: Build, publish: Publish, site: Mirror, monkeypatch: pytest.MonkeyPatch, fault: tuple[str, str], phase: str, said: str
) -> None:
    commit_sha = publish(guest(site.publish("answer", "1.0.0", ANSWER)))
    site.faults = dict([fault])
    near_deadline(monkeypatch, phase)

    with pytest.raises(BuildError) as caught:
        make(commit_sha, limits=NEAR)

    assert caught.value.code == "timeout"
    assert said in caught.value.sentence
    assert SECRET not in caught.value.sentence + caught.value.log_tail


def test_what_the_registry_does_not_give_as_locked_is_not_built(make: Build, publish: Publish, site: Mirror) -> None:
    checksum = site.publish("answer", "1.0.0", ANSWER)
    commit_sha = publish(guest(checksum))
    site.publish("answer", "1.0.0", "pub fn get() -> i32 { 0 }\n")

    with pytest.raises(BuildError) as caught:
        make(commit_sha)
    assert caught.value.code == "dependency_not_found"
    assert "checksum" in caught.value.sentence

    with pytest.raises(BuildError, match="commit_not_found"):
        make("0123456789" * 4)
    with pytest.raises(BuildError, match="fetch_network"):
        make(commit_sha, crates_mirror_url="http://127.0.0.1:1/index/")


@pytest.mark.parametrize(
    ("links", "evil"),
    [pytest.param({}, "../../config.toml", id="by-its-name"), pytest.param({"up": "../.."}, "up/config.toml", id="through-a-link")],
)
def test_a_crate_that_unpacks_outside_its_folder_is_refused(
    make: Build, publish: Publish, site: Mirror, links: dict[str, str], evil: str
) -> None:
    crate = make_crate("answer", "1.0.0", {"src/lib.rs": ANSWER, evil: '[build]\nrustc = "/evil"\n'}, links=links)
    site.crates["answer", "1.0.0"] = crate
    commit_sha = publish(guest(hashlib.sha256(crate).hexdigest()))

    with pytest.raises(BuildError) as caught:
        make(commit_sha)

    assert (caught.value.code, caught.value.sentence) == ("dependency_not_found", "A crate of the registry cannot be unpacked.")


def test_neither_repository_nor_crate_says_which_crate_is_built(make: Build, publish: Publish, site: Mirror) -> None:
    """The repository would replace the registry by a folder of its own; the crate, cargo's configuration by its checksums."""
    crate = make_crate("answer", "1.0.0", {"src/lib.rs": ANSWER}, links={".cargo-checksum.json": "../../config.toml"})
    site.crates["answer", "1.0.0"] = crate
    files = {
        ".cargo/config.toml": '[source.crates-io]\nreplace-with = "evil"\n[source.evil]\ndirectory = "/src/vendor"\n',
        "vendor/answer/Cargo.toml": '[package]\nname = "answer"\nversion = "1.0.0"\n',
        "vendor/answer/.cargo-checksum.json": '{"files":{}}',
        "vendor/answer/src/lib.rs": 'compile_error!("this is not the registry\'s crate");\n',
    }

    assert make(publish({**guest(hashlib.sha256(crate).hexdigest()), **files})).size > 0
