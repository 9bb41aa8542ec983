"""The relay and a real broker: what is published, what is counted, and what an outage does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from offchainvm.bridge.relay import Broker, Relay
from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.errors import Unavailable
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.record import Stage
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.store import JobStore
from offchainvm.models import ResourceLimits, parse_task


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def app(server: EmbeddedRedis) -> Celery:
    app = Celery("test", broker=server.url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(name) for name in ("compile", "execute", "resolve")],
        task_create_missing_queues=False,
        broker_transport_options={"socket_timeout": 2, "socket_connect_timeout": 1},
    )
    return app


@pytest.fixture
def broker(app: Celery) -> Iterator[Broker]:
    broker = Broker(app)
    yield broker
    broker.close()


def test_jobs_are_counted_by_their_ids_waiting_and_unacknowledged(app: Celery, broker: Broker) -> None:
    assert broker.published() == {Stage.COMPILE: 0, Stage.EXECUTE: 0}
    for number in range(3):
        broker.publish(Stage.EXECUTE, [f"{number}-{place}" for place in range(8)], task_id=f"execute:{number}:0")
    broker.publish(Stage.COMPILE, ["c"], task_id="compile:c:0")
    broker.publish(Stage.RESOLVE, [], task_id="resolve:1")
    assert broker.ready(Stage.EXECUTE) == 3
    assert broker.published() == {Stage.COMPILE: 1, Stage.EXECUTE: 24}
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("execute").get(block=True, timeout=5)
        assert message.headers["task"] == "offchainvm.execute"
        assert message.headers["id"] == "execute:0:0"
        assert message.payload[1] == {"message": {"v": 1, "data_ids": [f"0-{place}" for place in range(8)]}}
        assert broker.published() == {Stage.COMPILE: 1, Stage.EXECUTE: 24}
        message.ack()
        assert broker.published() == {Stage.COMPILE: 1, Stage.EXECUTE: 16}


def test_a_broker_that_comes_back_gets_what_waited(
    server: EmbeddedRedis, app: Celery, redis_client: Any, broker: Broker, task: Any
) -> None:
    """Jobs and broker on two servers: the outbox is there while the broker is not."""
    store, relay = JobStore(redis_client), Relay(outbox=Outbox(redis_client), broker=broker, consumer="r")
    broker.published()
    server.kill()
    for number in (1, 2):
        store.accept(parse_task(task(number)), stage=Stage.COMPILE, limits=ResourceLimits())
    for _ in range(2):
        with pytest.raises(Unavailable, match="BROKER_URL"):
            relay.turn()
    server.restart()
    relay.turn()
    assert broker.ready(Stage.COMPILE) == 2
    assert redis_client.xlen("ovm:outbox") == 0


def test_the_doorbell_is_one_message(redis_client: Any, broker: Broker) -> None:
    Resolves(redis_client).ring()
    Resolves(redis_client).ring()
    Relay(outbox=Outbox(redis_client), broker=broker, consumer="r").turn()
    assert broker.ready(Stage.RESOLVE) == 1
