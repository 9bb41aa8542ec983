"""The whole way with RabbitMQ as the broker, by BROKER_URL alone; the jobs stay in Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rabbitmq
from world import World, echo_module, until

QUEUES = ("compile", "execute", "resolve")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.Node]:
    with rabbitmq.node(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any], node: rabbitmq.Node) -> Iterator[World]:
    with make_world(settings={"BROKER_URL": node.url}, roles=("bridge", "execute", "resolve")) as world:
        yield world


def test_jobs_walk_the_way_through_quorum_queues(world: World, node: rabbitmq.Node) -> None:
    world.cache("way", echo_module())
    requests = [world.ask("way", f"input {number}") for number in range(5)]
    for number, request in enumerate(requests):
        world.assert_answered_once(request, f"input {number}")
    queues = node.queues()
    assert {name: queues.get(name) for name in QUEUES} == dict.fromkeys(QUEUES, "quorum")
    assert "renew_messages" not in world.stack.log_of("execute")


def test_a_worker_killed_in_the_middle_of_a_job_loses_nothing(world: World) -> None:
    world.assert_outlives_its_worker("kill")


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(world: World, node: rabbitmq.Node) -> None:
    world.cache("outage", echo_module())
    node.kill()
    request = world.ask("outage", "asked without a broker")
    until(lambda: world.store.get(request.data_id), "the job to be accepted")
    node.start()
    world.assert_answered_once(request, "asked without a broker")
