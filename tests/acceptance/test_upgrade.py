"""Two releases at work on one Redis: with jobs under way, each process is replaced by one of the other, in the order of docs/upgrade.md."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from world import SLOW_CHAIN, SLOW_ROUNDS, World, echo_module

from offchainvm.devnet.client import Requested
from offchainvm.fleet import Registry
from offchainvm.jobs.record import State

ROOT = Path(__file__).parents[2]
EARLIER = "9a8cccb"
WORKERS = ("compile", "execute", "resolve")
FORWARD = (WORKERS, ("bridge",))
BACK = (("bridge",), WORKERS)
SLOW_BUILD = "fn main() { std::thread::sleep(std::time::Duration::from_secs(3)) }"
GRACE_SECONDS = 30
Order = Sequence[Sequence[str]]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the earlier release."""
    archive = subprocess.run(["git", "archive", EARLIER, "offchainvm", "celeryconfig.py"], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, f"This clone has no commit {EARLIER}: git fetch --unshallow\n{archive.stderr.decode()}"
    folder = tmp_path_factory.mktemp("release")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


class Asked:
    """Requests, and what each must be answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all: list[tuple[Requested, str]] = []

    def ask(self, name: str, words: str, **more: Any) -> Requested:
        request = self._world.ask(name, words, **more)
        self._all.append((request, words))
        return request

    def some(self, words: str) -> None:
        for number in range(2):
            self.ask("quick", f"{words}, {number}")

    def under_way(self) -> None:
        """A build with a second job that waits for it, and a guest that runs."""
        sha = self._world.publish("built", build_script=SLOW_BUILD)
        built, _ = [self.ask("built", f"built {number}", commit=sha) for number in range(2)]
        slow = self.ask("slow", "slow")
        self._world.wait_for_state(built, State.RUNNING, "compile")
        self._world.wait_for_state(slow, State.RUNNING, "execute")

    def assert_each_answered_once(self) -> None:
        for request, words in self._all:
            self._world.assert_answered_once(request, words)


@pytest.fixture(params=[FORWARD, BACK], ids=["forward", "back"])
def order(request: pytest.FixtureRequest) -> Order:
    """Roles whose processes are replaced together, in the order of the page."""
    return tuple(request.param)


@pytest.fixture
def world(order: Order, make_world: Callable[..., Any], builder_image: None, earlier: Path) -> Iterator[World]:
    """A fleet of the release that is left; the second process of each role is of the other one."""
    suffix = "" if order == FORWARD else "-2"
    with make_world(chain_arguments=SLOW_CHAIN, releases={f"{role}{suffix}": earlier for role in (*WORKERS, "bridge")}) as world:
        yield world


def test_what_is_under_way_while_one_release_takes_over_from_another_is_answered_once(
    world: World, order: Order, no_sandbox_left: None
) -> None:
    world.cache("quick", echo_module())
    world.cache("slow", echo_module(rounds=SLOW_ROUNDS))
    asked = Asked(world)
    for roles in order:
        if roles == WORKERS:
            asked.under_way()
        world.stack.add(*roles)
        asked.some("with two of each")
        leaving = [world.stack.processes[role] for role in roles]
        for process in leaving:
            process.signal(signal.SIGTERM)
        asked.some("while they leave")
        for process in leaving:
            assert process.wait(GRACE_SECONDS) == 0, process.log_tail()
        asked.some("with the other ones")
    asked.assert_each_answered_once()
    registered = {one.member.node for one in Registry(world.redis).sightings()}
    # The earlier release has no registry: so both are what they are said to be.
    assert registered == ({world.stack.worker_id(f"{role}-2") for role in (*WORKERS, "bridge")} if order == FORWARD else set())
