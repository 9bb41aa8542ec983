"""``kill -9`` in the middle of a job: nothing is lost, and the chain sees one answer for each request."""

from __future__ import annotations

import signal

import pytest
from world import SLOW_ROUNDS, echo_module, until

from offchainvm.jobs.record import State

SLOW_BUILD = "fn main() { std::thread::sleep(std::time::Duration::from_secs(3)) }"


@pytest.fixture(scope="module")
def world(make_world, builder_image, broker):
    with make_world(settings=broker) as world:
        yield world


def hang_next_send(world, *, after=0):
    """The next one after so many; a client's request is a sending too."""
    world.stack.client.control("faults", {"kind": "hang", "rpc_method": "send_tx", "times": 1, "after": after})


def wait_for_hanging_send(world):
    until(lambda: world.chain("GET", "faults") == b"[]", "a transaction to be sent")


def states(world, asked):
    return [job.state for one in asked.values() if (job := world.store.get(one.data_id))]


# First those that need no lease judged: a bridge judges none before it has seen Redis for as long as one.
def test_a_resolve_worker_killed_with_rows_waiting_loses_none(world):
    world.cache("resolve", echo_module())
    world.stack.kill("resolve")
    asked = world.ask_all("resolve", "input", 12)
    for request in asked.values():
        world.wait_for_state(request, State.RESOLVING)
    world.stack.restart("resolve")
    world.assert_each_answered_once(asked)


def test_a_resolve_worker_killed_while_its_send_hangs_leaves_one_resolve_and_no_stuck_key(world):
    world.cache("sending", echo_module())
    hang_next_send(world, after=1)
    request = world.ask("sending", "in the air")
    wait_for_hanging_send(world)
    world.stack.kill("bridge", signal.SIGSTOP)  # its settler sends what was stored
    world.stack.kill("resolve")
    assert world.resolves_of(request) == []
    world.stack.kill("bridge", signal.SIGCONT)
    world.stack.restart("resolve")
    world.assert_answered_once(request, "in the air")
    assert [event.what for event in world.store.history(request.data_id)].count("signed") == 1, "the stored bytes were sent again"
    world.assert_each_answered_once(world.ask_all("sending", "afterwards", 3))


def test_an_execute_worker_killed_in_the_middle_of_a_job_loses_nothing(world):
    world.cache("execute", echo_module(rounds=SLOW_ROUNDS))
    request = world.ask("execute", "again")
    first = world.wait_for_state(request, State.RUNNING)
    world.kill_tree("execute")
    world.expire_leases(request)
    world.stack.restart("execute")
    world.assert_answered_once(request, "again")
    assert world.store.get(request.data_id).fence > first.fence, "the first worker's fence must not count any more"


def test_a_compile_worker_killed_in_the_middle_of_a_build_loses_nothing_and_leaves_nothing(world, no_sandbox_left):
    sha = world.publish("compile", build_script=SLOW_BUILD)
    asked = world.ask_all("compile", "input", 3, commit=sha)
    until(lambda: states(world, asked).count(State.RUNNING) == 1, "one of them to be built")
    world.kill_tree("compile")
    world.expire_leases(*asked.values())
    world.stack.restart("compile")
    world.assert_each_answered_once(asked)


def test_a_resolve_worker_frozen_while_its_send_hangs_sends_nothing_of_what_another_one_took_over(world):
    world.cache("frozen", echo_module())
    world.stack.kill("resolve")
    asked = world.ask_all("frozen", "input", 3)
    for request in asked.values():
        world.wait_for_state(request, State.RESOLVING)
    hang_next_send(world)
    world.stack.restart("resolve")
    wait_for_hanging_send(world)
    world.stack.kill("resolve", signal.SIGSTOP)
    [other] = world.stack.add("resolve")
    # The first one's bytes were stored. The others were taken with it: they come back when the take's lease has run out.
    world.expire_leases(*asked.values())
    world.assert_each_answered_once(asked)
    world.stack.kill("resolve", signal.SIGCONT)
    assert world.stack.processes[other].stop(20) == 0
    # The woken one alone signs it, and begins with it when it is done with what it had in hand.
    world.assert_answered_once(world.ask("frozen", "afterwards"), "afterwards")
    world.assert_each_answered_once(asked)


# And last those that start the bridge anew.
def test_a_bridge_killed_with_jobs_in_every_state_loses_none(world):
    world.cache("bridge", echo_module())
    world.cache("bridge-slow", echo_module(rounds=SLOW_ROUNDS))
    slow = world.ask("bridge-slow", "slow")
    world.wait_for_state(slow, State.RUNNING)
    quick = world.ask_all("bridge", "quick", 10)
    world.stack.kill("bridge")
    late = world.ask("bridge", "asked while the bridge was dead")
    world.stack.restart("bridge")
    world.assert_answered_once(slow, "slow")
    world.assert_each_answered_once(quick)
    world.assert_answered_once(late, "asked while the bridge was dead")


def test_a_bridge_that_is_asked_to_stop_ends_by_itself_and_its_jobs_go_on_later(world):
    world.cache("stop", echo_module())
    request = world.ask("stop", "later")
    world.stack.processes["bridge"].stop(20)
    assert world.stack.processes["bridge"].exit_code == 0
    world.stack.restart("bridge")
    world.assert_answered_once(request, "later")
