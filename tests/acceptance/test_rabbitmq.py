"""What is of RabbitMQ alone: its queues, and its death. The way and its kills are tested with each broker (``broker``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rabbitmq
from world import World, echo_module, until

QUEUES = ("compile", "execute", "resolve")


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any], rabbitmq_node: rabbitmq.Node) -> Iterator[World]:
    with make_world(settings={"BROKER_URL": rabbitmq_node.url}, roles=("bridge", "execute", "resolve")) as world:
        yield world


def test_jobs_walk_the_way_through_quorum_queues(world: World, rabbitmq_node: rabbitmq.Node) -> None:
    world.cache("way", echo_module())
    world.assert_each_answered_once(world.ask_all("way", "input", 5))
    queues = rabbitmq_node.queues()
    assert {name: queues.get(name) for name in QUEUES} == dict.fromkeys(QUEUES, "quorum")
    assert "renew_messages" not in world.stack.log_of("execute")


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(world: World, rabbitmq_node: rabbitmq.Node) -> None:
    world.cache("outage", echo_module())
    rabbitmq_node.kill()
    request = world.ask("outage", "asked without a broker")
    until(lambda: world.store.get(request.data_id), "the job to be accepted")
    rabbitmq_node.start()
    world.assert_answered_once(request, "asked without a broker")
