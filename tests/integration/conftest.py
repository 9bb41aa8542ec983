"""What integration tests share: one real Redis for the whole run, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from offchainvm.devnet.embedded_redis import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """A Redis server of this test run; do not kill it: start your own for that."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A client of the run's server, whose data is empty at the start of each test (answers are bytes)."""
    with redis.Redis.from_url(redis_server.url, decode_responses=False) as client:
        client.flushall()
        yield client
