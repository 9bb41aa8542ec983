"""DOCKER_RUNTIME: a stronger runtime for builds, and one that the engine does not know."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from offchainvm.compiler import engine
from offchainvm.compiler.base import BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.limits import BuildLimits
from offchainvm.errors import BuildError, Unavailable
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient

STRONGER = "runsc"
# Its own kernel answers there, of another version than the host's.
ASKS_THE_KERNEL = """
fn main() {
    let kernel = std::fs::read_to_string("/proc/version").unwrap();
    assert!(!kernel.contains("RELEASE"), "runs on the host's kernel: {kernel}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("Uid:\t10001"), "has rights: {status}");
    assert!(std::net::TcpStream::connect("192.0.2.1:443").is_err(), "has a route");
    for path in ["/src/x", "/cargo/x", "/usr/x"] { assert!(std::fs::write(path, "x").is_err(), "wrote {path}"); }
}
"""
FORKS = 'fn main() { let mut all = vec![]; loop { all.push(std::process::Command::new("sleep").arg("3").spawn().unwrap()); } }'
LIMITS = BuildLimits(timeout_seconds=90, memory_mb=512, disk_mb=128, source_mb=16, dependencies_mb=64)


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
    assert engine.find_machine(client).runtime == client.info()["DefaultRuntime"]


@pytest.fixture
def stronger(client: DockerClient) -> None:
    if STRONGER not in client.info()["Runtimes"]:
        pytest.skip("the engine does not know it: see deploy/setup/register-runsc")


@pytest.mark.usefixtures("stronger")
@pytest.mark.parametrize("runtime", [STRONGER])
def test_a_stronger_runtime_builds_on_a_kernel_of_its_own(build: Callable[..., BuiltModule], publish: Callable[..., str]) -> None:
    assert build(publish({"build.rs": ASKS_THE_KERNEL.replace("RELEASE", platform.release())})).size > 0


@pytest.mark.usefixtures("stronger")
@pytest.mark.parametrize("runtime", [STRONGER])
def test_a_fork_bomb_in_a_stronger_runtime_meets_the_limit_of_processes(
    build: Callable[..., BuiltModule], publish: Callable[..., str]
) -> None:
    """And not that of gVisor's own threads, of which it takes several for each process."""
    with pytest.raises(BuildError, match=r"too_many_processes: .* 64 processes"):
        build(publish({"build.rs": FORKS}), limits=replace(LIMITS, processes=64))
