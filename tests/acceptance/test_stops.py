"""SIGTERM to a process in the middle of its work: it ends by itself, and what it had in hand is answered once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import SLOW_CHAIN, SLOW_ROUNDS, World, echo_module, until

from offchainvm.cli.process import session_members
from offchainvm.devnet.client import Limits, Requested
from offchainvm.jobs.pauses import Pauses
from offchainvm.jobs.record import Job, State

SLOW_BUILD = "fn main() { std::thread::sleep(std::time::Duration::from_secs(3)) }"
GRACE_SECONDS = 30
AT_ONCE_SECONDS = 5


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any], builder_image: None) -> Iterator[World]:
    roles, own = ("bridge", "monitor", "compile", "execute", "resolve"), {"bridge": {"ENABLE_EVENT_MONITOR": "false"}}
    own["bridge-2"] = {"POLL_TIMEOUT_SECONDS": "30"}
    with make_world(roles=roles, role_settings=own, chain_arguments=SLOW_CHAIN) as world:
        yield world


def ask_to_stop(world: World, name: str) -> int | None:
    """Its exit code."""
    process = world.stack.processes[name]
    process.signal(signal.SIGTERM)
    return process.wait(GRACE_SECONDS)


def end_at_once(world: World, name: str) -> None:
    """By a second signal, with all that it started."""
    process = world.stack.processes[name]
    process.signal(signal.SIGTERM)
    until(lambda: "worker_stopping" in process.output(), "the first signal to be heard")
    process.signal(signal.SIGTERM)
    assert process.wait(AT_ONCE_SECONDS) == 128 + signal.SIGTERM
    until(lambda: not session_members(process.pid or 0), "its children and its guest to end with it")


def ask_and_hold_the_send(world: World, name: str, **fault: object) -> Requested:
    """A request whose answer is being sent, for as long as ``fault`` lets nothing through."""
    world.cache(name, echo_module())
    # The first one is the client's own.
    world.stack.client.control("faults", {"rpc_method": "send_tx", "times": 1, "after": 1, **fault})
    request = world.ask(name, name)
    until(lambda: world.chain("GET", "faults") == b"[]", "the answer to be on its way")
    return request


def job_of(world: World, data_id: str) -> Job:
    job = world.store.get(data_id)
    assert job is not None
    return job


def test_an_execute_worker_finishes_the_guest_that_runs(world: World) -> None:
    world.cache("execute", echo_module(rounds=SLOW_ROUNDS))
    request = world.ask("execute", "finished")
    fence = world.wait_for_state(request, State.RUNNING, "execute").fence
    assert ask_to_stop(world, "execute") == 0
    assert job_of(world, request.data_id).state in {State.RESOLVING, State.SETTLED}
    assert job_of(world, request.data_id).fence == fence, "nobody else had to run it"
    world.assert_answered_once(request, "finished")
    world.stack.restart("execute")


def test_what_an_execute_worker_fetched_and_did_not_begin_goes_to_the_next_one(world: World) -> None:
    world.cache("fetched", echo_module(rounds=SLOW_ROUNDS))
    asked = world.ask_all("fetched", "number", 5)
    until(lambda: all(world.store.get(request.data_id) for request in asked.values()), "all to be accepted")
    until(lambda: any(job_of(world, request.data_id).state is State.RUNNING for request in asked.values()), "one of them to run")
    assert ask_to_stop(world, "execute") == 0
    behind = [request for request in asked.values() if job_of(world, request.data_id).state is State.QUEUED]
    assert behind, "it has two processes: it began two, or three"
    world.stack.restart("execute")
    world.assert_each_answered_once(asked)
    told = {event.what for request in behind for event in world.store.history(request.data_id)}
    assert "published_again" not in told, "no message was lost"


def test_a_second_signal_ends_an_execute_worker_at_once_and_another_runs_the_job(world: World) -> None:
    world.cache("twice", echo_module(rounds=2 * SLOW_ROUNDS))
    request = world.ask("twice", "given back", limits=Limits(max_instructions=10**11))
    world.wait_for_state(request, State.RUNNING, "execute")
    end_at_once(world, "execute")
    assert job_of(world, request.data_id).state in {State.RUNNING, State.QUEUED}
    world.stack.restart("execute")
    world.assert_answered_once(request, "given back")


def test_a_compile_worker_finishes_the_build_in_hand(world: World, no_sandbox_left: None) -> None:
    sha = world.publish("compile", build_script=SLOW_BUILD)
    request = world.ask("compile", "built", commit=sha)
    world.wait_for_state(request, State.RUNNING, "compile")
    assert ask_to_stop(world, "compile") == 0
    job = job_of(world, request.data_id)
    assert (job.stage.value, job.state) != ("compile", State.RUNNING)
    assert job.deaths == 0
    world.assert_answered_once(request, "built")
    world.stack.restart("compile")


def test_a_second_signal_ends_a_compile_worker_at_once_and_another_removes_its_sandbox_and_builds(
    world: World, no_sandbox_left: None
) -> None:
    sha = world.publish("anew", build_script=SLOW_BUILD)
    request = world.ask("anew", "built anew", commit=sha)
    world.wait_for_state(request, State.RUNNING, "compile")
    end_at_once(world, "compile")
    world.expire_leases(request)
    world.stack.restart("compile")
    world.assert_answered_once(request, "built anew")


def test_a_resolve_worker_finishes_the_send_that_is_under_way(world: World) -> None:
    request = ask_and_hold_the_send(world, "resolve", kind="delay", seconds=2)
    assert any(event.what == "signed" for event in world.store.history(request.data_id)), "its bytes were stored before"
    assert ask_to_stop(world, "resolve") == 0
    world.assert_answered_once(request, "resolve")
    world.stack.restart("resolve")


def test_a_second_signal_ends_a_resolve_worker_at_once_and_the_settler_sends(world: World) -> None:
    request = ask_and_hold_the_send(world, "hangs", kind="hang")
    end_at_once(world, "resolve")
    world.assert_answered_once(request, "hangs")
    world.stack.restart("resolve")


def test_a_monitor_is_asked_to_stop_and_the_next_one_misses_nothing(world: World) -> None:
    world.cache("monitor", echo_module())
    assert ask_to_stop(world, "monitor") == 0
    request = world.ask("monitor", "seen later")
    world.stack.restart("monitor")
    world.assert_answered_once(request, "seen later")


def test_a_second_signal_ends_a_bridge_in_the_middle_of_its_polls(world: World) -> None:
    assert ask_to_stop(world, "bridge") == 0
    [name] = world.stack.add("bridge")
    process = world.stack.processes[name]
    until(Pauses(world.redis).polls, "its polls to be held")
    process.signal(signal.SIGTERM)
    until(lambda: "service_stopping" in process.output(), "the first signal to be heard")
    process.signal(signal.SIGTERM)
    assert process.wait(AT_ONCE_SECONDS) == 128 + signal.SIGTERM
    world.stack.restart("bridge")
    world.cache("bridge", echo_module())
    world.assert_answered_once(world.ask("bridge", "polled later"), "polled later")
