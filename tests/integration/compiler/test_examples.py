"""Good guests: the examples, and the shapes that real repositories have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from offchainvm.compiler.base import BuildEvent, BuiltModule
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.local import BRANCH, publish_folder
from offchainvm.compiler.source import Resolver, parse_source
from offchainvm.engine.module import check_module
from offchainvm.models import CodeSource

EXAMPLES = Path(__file__).parents[3] / "examples"
DEBIANS_RUST = "(built from a source tarball)"
"""What its compiler says of itself: the images that are made without a registry, and the prebuilt module, are made by it."""
LIMITS = BuildLimits(timeout_seconds=300, memory_mb=1024, disk_mb=512)
Build = Callable[..., BuiltModule]
Publish = Callable[..., str]


def test_word_count_gives_the_prebuilt_bytes(build: Build, mirror: Path) -> None:
    publish_folder(EXAMPLES / "word-count", mirror, owner="examples", name="word-count")
    source = parse_source(CodeSource(repo="examples/word-count", commit=BRANCH), mirror_url=f"file://{mirror}")
    events = list[BuildEvent]()

    built = build(Resolver().resolve(source), repo="examples/word-count", limits=LIMITS, on_event=events.append)

    prebuilt = json.loads((EXAMPLES / "prebuilt" / "word-count.provenance.json").read_text())
    builders = [each["predicate"]["runDetails"]["builder"] for each in (built.provenance, prebuilt)]
    if DEBIANS_RUST in builders[0]["version"]["toolchain"]:
        assert builders[0] == builders[1], "Debian's compiler is another one than the prebuilt module was made by: make it anew"
        assert built.wasm == (EXAMPLES / "prebuilt" / "word-count.wasm").read_bytes()
    definitions = [each["predicate"]["buildDefinition"] for each in (built.provenance, prebuilt)]
    assert definitions[0]["resolvedDependencies"][0] == definitions[1]["resolvedDependencies"][0]
    subject = hashlib.sha256((EXAMPLES / "prebuilt" / "word-count.wasm").read_bytes()).hexdigest()
    assert prebuilt["subject"][0]["digest"]["sha256"] == subject
    assert check_module(built.wasm).entry == "execute"
    assert list(dict.fromkeys(event.phase for event in events)) == ["source", "fetch", "compile", "check", "record"]


@pytest.mark.usefixtures("real_registry")
def test_json_stats_builds_with_a_crate_of_the_registry(build: Build, mirror: Path) -> None:
    commit_sha = publish_folder(EXAMPLES / "json-stats", mirror, owner="examples", name="json-stats")

    built = build(commit_sha, repo="examples/json-stats", target="wasm32-wasip1", limits=LIMITS)

    assert check_module(built.wasm).entry == "_start"
    parameters = built.provenance["predicate"]["buildDefinition"]["internalParameters"]
    assert parameters["lockfile"]["made_by_build"] is False


def test_a_lock_file_of_version_4_is_used_like_one_of_version_3(build: Build, publish: Publish) -> None:
    """All other tests have one of version 3."""
    built = build(publish({"Cargo.lock": 'version = 4\n\n[[package]]\nname = "guest"\nversion = "0.1.0"\n'}))

    assert built.provenance["predicate"]["buildDefinition"]["internalParameters"]["lockfile"]["made_by_build"] is False


def test_of_a_workspace_the_default_member_is_built(build: Build, publish: Publish) -> None:
    """The root is no package, as in a repository whose crates lie in folders; two members would give a module."""
    member = '[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n[lib]\ncrate-type = ["cdylib"]\n'
    files = {"Cargo.toml": '[workspace]\nresolver = "2"\nmembers = ["one", "contracts/two"]\ndefault-members = ["contracts/two"]\n'}
    for folder, name in (("one", "one"), ("contracts/two", "two")):
        files[f"{folder}/Cargo.toml"] = member.format(name=name)
        files[f"{folder}/src/lib.rs"] = '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { 65532 }\n'

    built = build(publish(files, without=("Cargo.lock", "src/lib.rs")))

    assert built.provenance["subject"][0]["name"] == "two.wasm"


def test_the_one_workspace_in_a_folder_builds_with_its_path_dependency(build: Build, publish: Publish) -> None:
    helper = '[package]\nname = "helper"\nversion = "0.1.0"\nedition = "2021"\n'
    guest = helper.replace("helper", "guest") + '[lib]\ncrate-type = ["cdylib"]\n[dependencies]\nhelper = { path = "../helper" }\n'
    files = {
        "co\x1bde/Cargo.toml": '[workspace]\nresolver = "2"\nmembers = ["crates/*"]\n',
        "co\x1bde/crates/guest/Cargo.toml": guest,
        "co\x1bde/crates/guest/src/lib.rs": '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { helper::answer() }\n',
        "co\x1bde/crates/helper/Cargo.toml": helper,
        "co\x1bde/crates/helper/src/lib.rs": "pub fn answer() -> i32 { 65532 }\n",
    }

    events = list[BuildEvent]()
    built = build(publish(files, without=("Cargo.toml", "Cargo.lock", "src/lib.rs")), on_event=events.append)

    assert all(event.text.isprintable() for event in events)
    assert any("the project in co?de is built" in event.text for event in events)
    assert built.provenance["subject"][0]["name"] == "guest.wasm"


def test_the_old_name_of_the_wasi_target_is_an_alias(build: Build, publish: Publish) -> None:
    manifest = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
    commit_sha = publish({"Cargo.toml": manifest, "src/main.rs": 'fn main() { print!("hello") }\n'}, without=("src/lib.rs",))

    built = build(commit_sha, target="wasm32-wasi")

    assert check_module(built.wasm).entry == "_start"
    assert built.provenance["predicate"]["buildDefinition"]["externalParameters"]["target"] == "wasm32-wasi"


def test_the_same_source_gives_the_same_bytes_under_another_limit(build: Build, publish: Publish) -> None:
    """The second one is of more processors than the engine has."""
    commit_sha = publish()

    first, second = (build(commit_sha, limits=replace(LIMITS, cpus=cpus)) for cpus in (1.0, 1000.0))

    assert first.sha256 == second.sha256


@pytest.mark.parametrize("ref", ["main", "refs/heads/main", "HEAD"])
def test_a_branch_is_resolved_to_its_commit(publish: Publish, mirror: Path, ref: str) -> None:
    commit_sha = publish()

    source = parse_source(CodeSource(repo="someone/guest", commit=ref), mirror_url=f"file://{mirror}")

    assert Resolver().resolve(source) == commit_sha
