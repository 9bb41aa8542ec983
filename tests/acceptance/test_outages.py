"""What this operator's installation leans on goes away: each says what is wrong, and recovers by itself."""

from __future__ import annotations

import json

import pytest
from world import SLOW_ROUNDS, echo_module, until

from offchainvm.jobs.record import State


@pytest.fixture(scope="module")
def world(make_world):
    with make_world(roles=("bridge", "execute", "resolve"), redis_persistence=True) as world:
        world.cache("quick", echo_module())
        world.cache("slow", echo_module(rounds=SLOW_ROUNDS))
        assert world.result(world.ask("slow", "both modules are on the worker's disk")).state == "succeeded"
        assert world.result(world.ask("quick", "now")).state == "succeeded"
        yield world


def test_a_coordinator_that_is_away_is_named_and_waited_for(world):
    before = world.ask("slow", "before")
    world.wait_for_state(before, State.RUNNING)
    world.stack.kill("coordinator")
    world.wait_for_log("bridge", "API_BASE_URL")
    assert world.result(before).value == "before", "an answer needs no Coordinator"
    world.stack.restart("coordinator")
    world.cache("quick", echo_module())
    world.cache("slow", echo_module(rounds=SLOW_ROUNDS))
    world.assert_answered_once(before, "before")
    world.assert_answered_once(world.ask("quick", "after"), "after")


def test_an_rpc_that_is_away_is_named_and_waited_for(world):
    request = world.ask("slow", "through the storm")
    world.wait_for_state(request, State.RUNNING)
    world.stack.client.control("faults", {"kind": "status", "status": 503, "method": "POST", "path": "/", "times": 0})
    world.wait_for_state(request, State.RESOLVING)
    until(lambda: "503" in world.stack.log_of("bridge") + world.stack.log_of("resolve"), "a log line about the RPC")
    world.chain("DELETE", "faults")
    world.assert_answered_once(request, "through the storm")


def test_a_wrong_token_is_named_by_its_setting_and_a_right_one_is_used_again(world):
    fault = {"kind": "status", "status": 401, "path": "/tasks", "times": 0}
    world.coordinator("POST", "faults", json.dumps(fault).encode())
    world.wait_for_log("bridge", "API_AUTH_TOKEN")
    world.coordinator("DELETE", "faults")
    world.assert_answered_once(world.ask("quick", "with the right token"), "with the right token")


def test_a_redis_that_is_killed_and_comes_back_loses_nothing(world):
    quick = world.ask_all("quick", "input", 10)
    slow = world.ask("slow", "over the outage")
    world.wait_for_state(slow, State.RUNNING)
    world.stack.kill("redis")
    late = world.ask("quick", "asked while Redis was dead")
    world.stack.restart("redis")
    world.assert_answered_once(slow, "over the outage")
    world.assert_each_answered_once(quick)
    world.assert_answered_once(late, "asked while Redis was dead")


def test_a_redis_that_forgot_its_last_second_resolves_nothing_twice(world):
    quick = world.ask_all("quick", "settled", 5)
    world.assert_each_answered_once(quick)
    slow = world.ask("slow", "in hand")
    world.wait_for_state(slow, State.RUNNING)
    world.stack.kill("redis")
    forget_the_end_of_the_log(world)
    world.stack.restart("redis")
    world.assert_answered_once(slow, "in hand")
    world.assert_each_answered_once(quick)


def forget_the_end_of_the_log(world):
    """Cut the append-only file as a host does that dies: everything of the last moments is gone, torn in mid-command."""
    [log] = (world.stack.folder / "redis").rglob("*.incr.aof")
    data = log.read_bytes()
    keep = int(len(data) * 0.9)
    log.write_bytes(data[:keep])
