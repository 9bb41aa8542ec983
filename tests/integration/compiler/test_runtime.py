"""DOCKER_RUNTIME: a stronger runtime for builds, and one that the engine does not know."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from offchainvm.compiler import engine
from offchainvm.compiler.base import BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.errors import Unavailable
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient

STRONGER = "runsc"
# Its own kernel answers there, of another version than the host's.
ASKS_THE_KERNEL = """
fn main() {
    let kernel = std::fs::read_to_string("/proc/version").unwrap();
    assert!(!kernel.contains("RELEASE"), "runs on the host's kernel: {kernel}");
}
"""


@pytest.fixture
def runtime() -> str:
    return "no-such-runtime"


@pytest.fixture
def builder(state_dir: Path, owner: str, mirror: Path, runtime: str) -> SandboxBuilder:
    name = load_only(["builder_image"]).builder_image
    return SandboxBuilder(image=name, state_dir=state_dir, owner=owner, mirror_url=f"file://{mirror}", runtime=runtime)


def test_a_runtime_that_the_engine_does_not_know_is_named_with_its_setting(
    client: DockerClient, builder: SandboxBuilder, build: Callable[..., BuiltModule], publish: Callable[..., str]
) -> None:
    """At the worker's start, and for a job that comes when it was taken away: such a job waits."""
    with pytest.raises(Unavailable, match="DOCKER_RUNTIME") as caught:
        builder.check()
    assert "runc" in caught.value.sentence
    with pytest.raises(Unavailable, match="DOCKER_RUNTIME"):
        build(publish())
    assert engine.check_runtime(client, "") == client.info()["DefaultRuntime"]


@pytest.mark.parametrize("runtime", [STRONGER])
def test_a_stronger_runtime_builds_on_a_kernel_of_its_own(
    client: DockerClient, build: Callable[..., BuiltModule], publish: Callable[..., str]
) -> None:
    if STRONGER not in client.info()["Runtimes"]:
        pytest.skip("the engine does not know it: see deploy/setup/register-runsc")

    assert build(publish({"build.rs": ASKS_THE_KERNEL.replace("RELEASE", platform.release())})).size > 0
