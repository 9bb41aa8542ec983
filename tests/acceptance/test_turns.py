"""A sender's flood, and who asks behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import SHA, TARGET, World, echo_module, until

from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.genesis import OWNER_ID
from offchainvm.jobs.record import State

FLOOD = 40
SOON = 4


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any]) -> Iterator[World]:
    with make_world(roles=("bridge", "resolve")) as world:
        yield world


def claimed_at(world: World, data_id: str) -> float:
    return next(event.at for event in world.store.history(data_id) if event.what == "claimed")


def test_one_request_behind_a_flood_of_another_sender_is_among_the_first_that_are_served(world: World) -> None:
    world.cache("program", echo_module())
    for number in range(FLOOD):
        world.stack.client.send_request(world.repo("program"), SHA, TARGET, f"flood {number}")
    until(lambda: world.store.queued_count() == FLOOD, "the flood to be queued")
    flood = [job.data_id for job in world.store.list_jobs(State.QUEUED, FLOOD)]
    other = DevnetClient(world.stack.chain_url, world.stack.keys, account_id=OWNER_ID)
    late = other.request_execution(world.repo("program"), SHA, TARGET, "late")
    other.close()
    until(lambda: world.store.queued_count() == FLOOD + 1, "the last to be queued")
    world.stack.add("execute")
    world.assert_answered_once(late, "late")
    until(lambda: world.store.queued_count() == 0, "everybody to be served")
    before = [data_id for data_id in flood if claimed_at(world, data_id) < claimed_at(world, late.data_id)]
    assert len(before) < SOON
