"""VERIFY_BUILDS: everything is built twice, and what comes out differently is told or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from offchainvm.compiler.base import BuildEvent, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.errors import BuildError
from offchainvm.settings import Settings, load_only

Build = Callable[..., BuiltModule]
Publish = Callable[..., str]
# Two builds never see the same time; a marker in the target folder would tell the second one that it is the second.
TIMED = """
fn main() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 as i64;
    let folder = std::env::var("OUT_DIR").unwrap();
    assert!(std::fs::metadata("/build/marker").is_err(), "sees the first build's files");
    std::fs::write("/build/marker", "x").unwrap();
    std::fs::write(format!("{folder}/now.rs"), format!("pub static NOW: i64 = {now};")).unwrap();
}
"""
LIBRARY = """
include!(concat!(env!("OUT_DIR"), "/now.rs"));
#[no_mangle]
pub extern "C" fn execute(_p: i32, _n: i32) -> i32 { unsafe { core::ptr::read_volatile(&NOW) as i32 } }
"""
NONDETERMINISTIC = {"build.rs": TIMED, "src/lib.rs": LIBRARY}


@pytest.fixture
def asked() -> str:
    return "off"


@pytest.fixture
def builder(state_dir: Path, owner: str, mirror: Path, asked: str) -> SandboxBuilder:
    values = {
        "verify_builds": asked,
        "state_dir": state_dir,
        "worker_id": owner,
        "source_mirror_url": f"file://{mirror}",
        "builder_image": load_only(["builder_image"]).builder_image,
    }
    return SandboxBuilder.from_settings(Settings.model_validate(values))


def reproducible(built: BuiltModule) -> str:
    return str(built.provenance["predicate"]["runDetails"]["metadata"]["reproducible"])


@pytest.mark.parametrize("asked", ["require"])
def test_what_differs_is_refused_and_the_builder_goes_on(build: Build, publish: Publish) -> None:
    with pytest.raises(BuildError) as caught:
        build(publish(NONDETERMINISTIC))
    assert caught.value.code == "not_reproducible"
    assert "different bytes" in caught.value.sentence
    assert caught.value.remedy

    events = list[BuildEvent]()
    assert reproducible(build(publish(name="good"), repo="someone/good", on_event=events.append)) == "yes"
    assert list(dict.fromkeys(event.phase for event in events)) == ["source", "fetch", "compile", "verify", "check", "record"]


@pytest.mark.parametrize("asked", ["warn"])
def test_what_differs_is_told_in_the_provenance(build: Build, publish: Publish) -> None:
    events = list[BuildEvent]()

    built = build(publish(NONDETERMINISTIC), on_event=events.append)

    assert reproducible(built) == "no"
    assert [event for event in events if event.phase == "verify" and "different bytes" in event.text]


def test_nothing_is_built_twice_unasked(build: Build, publish: Publish) -> None:
    built = build(publish(NONDETERMINISTIC))

    assert reproducible(built) == "unchecked"
