"""A broker's URL: what an operator writes, and what kombu makes of it."""

from __future__ import annotations

import pytest

from offchainvm import broker
from offchainvm.redis_url import SentinelUrl


@pytest.mark.parametrize(
    ("url", "kombus"),
    [
        ("redis://:s3cret@redis:6379/0", "redis://:s3cret@redis:6379/0"),
        ("rediss://redis:6380/0?ssl_ca_certs=/ca.pem", "rediss://redis:6380/0?ssl_ca_certs=/ca.pem"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("amqps://user:s3cret@rabbit:5671//", "amqps://user:s3cret@rabbit:5671//"),
        ("sentinel://one,two:26380", "sentinel://one:26379/0;sentinel://two:26380/0"),
        ("sentinel://u:p%40ss@one:26379/3?service=jobs", "sentinel://u:p%40ss@one:26379/3"),
    ],
)
def test_every_broker_has_one_way_to_be_written(url: str, kombus: str) -> None:
    assert broker.celery_url(url) == kombus


def test_sentinels_are_asked_for_the_service_by_its_name() -> None:
    assert broker.transport_options("sentinel://one?service=jobs")["master_name"] == "jobs"
    assert broker.transport_options("sentinel://one")["master_name"] == "mymaster"
    assert SentinelUrl.parse("sentinel://u:p%40ss@one,two:1/3?service=jobs") == SentinelUrl(
        (("one", 26379), ("two", 1)), "jobs", 3, "u", "p@ss"
    )


def test_only_rabbitmq_has_quorum_queues_and_confirms_what_it_takes() -> None:
    assert broker.queue("execute", "amqp://rabbit//").queue_arguments == {"x-queue-type": "quorum"}
    assert broker.transport_options("amqp://rabbit//") == {"confirm_publish": True}
    assert broker.queue("execute", "redis://redis/0").queue_arguments is None
