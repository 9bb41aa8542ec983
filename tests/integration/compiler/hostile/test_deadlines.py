"""The four deadlines of a build, each alone: the other three are an hour away, and what keeps the first is out of action."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from build_worker import BuildWorker
from builds import NEAR, SMALL, Build, Publish, near_deadline

from offchainvm.compiler import reaper, sandbox
from offchainvm.errors import BuildError

if TYPE_CHECKING:
    from docker.client import DockerClient

FAR = 3600
COMPILE_SECONDS = 4
LIMITS = replace(SMALL, timeout_seconds=FAR, idle_seconds=FAR)
SLEEPS = "fn main() { loop { std::thread::sleep(std::time::Duration::from_secs(1)) } }"
IGNORES_SIGNALS = (
    'fn main() { std::process::Command::new("sh").args(["-c", "trap \'\' TERM INT HUP; while :; do sleep 1; done"]).status().unwrap(); }'
)
# First a child that is deaf to the signal of the soft limit, then the script itself.
COMPUTES = """
use std::os::unix::process::ExitStatusExt;
fn main() {
    let deaf = std::process::Command::new("sh").args(["-c", "trap '' XCPU; while :; do :; done"]).status().unwrap();
    assert_eq!(deaf.signal(), Some(9));
    loop { std::hint::spin_loop(); }
}
"""


@pytest.fixture
def frozen(start_worker: Callable[..., BuildWorker], publish: Publish) -> Callable[..., BuildWorker]:
    """A worker that was frozen in the middle of a build without an end, which may compile for four seconds."""

    def make(**near: int) -> BuildWorker:
        worker = start_worker(publish({"build.rs": SLEEPS}), compile_seconds=COMPILE_SECONDS, **near)
        worker.wait_until_it_compiles()
        worker.signal(signal.SIGSTOP)
        return worker

    return make


@pytest.fixture
def others_are_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_GRACE_SECONDS", FAR)
    monkeypatch.setattr(sandbox.Phase, "inner_seconds", FAR)


@pytest.mark.usefixtures("others_are_far")
def test_the_workers_own_deadline_ends_a_build(build: Build, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    near_deadline(monkeypatch, "compile")

    with pytest.raises(BuildError, match=r"timeout: .* within 3 s; it was compiling"):
        build(publish({"build.rs": IGNORES_SIGNALS}), limits=replace(NEAR, idle_seconds=FAR))


def test_the_timeout_in_the_container_ends_the_build_of_a_frozen_worker(frozen: Callable[..., BuildWorker]) -> None:
    with frozen(inner_seconds=6) as worker:
        wait_until(lambda: worker.running() == ["holder"])
        assert worker.is_frozen

        worker.signal(signal.SIGCONT)

        assert worker.outcome().startswith("timeout: ")


@pytest.mark.usefixtures("others_are_far")
def test_the_limit_of_processor_time_ends_a_build_that_computes(build: Build, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.Phase, "processor_seconds", 2)

    with pytest.raises(BuildError, match=r"timeout: .* processor time; it was compiling"):
        build(publish({"build.rs": COMPUTES}), limits=LIMITS)


def test_the_reaper_ends_the_build_of_a_frozen_worker(client: DockerClient, owner: str, frozen: Callable[..., BuildWorker]) -> None:
    """Of another process: it knows this build by its labels alone."""
    with frozen(lifetime_seconds=12) as worker:
        over_at = time.monotonic() + COMPILE_SECONDS
        wait_until(lambda: reaper.reap(client) is not None and not worker.running())
        assert not client.volumes.list(filters={"label": f"{reaper.LABEL_OWNER}={owner}"})
        assert worker.is_frozen
        wait_until(lambda: time.monotonic() > over_at)

        worker.signal(signal.SIGCONT)

        assert worker.outcome().startswith("timeout: ")


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)
