"""Connections to the Redis that keeps the jobs: one server, or the master that Sentinels name."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from offchainvm.redis_url import SentinelUrl
from offchainvm.settings import load_common

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0


def sentinel_options() -> dict[str, Any]:
    """How a Sentinel is asked: once, since another one is asked next."""
    return {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": CONNECT_SECONDS, "retry": Retry(NoBackoff(), 0)}


def open_redis() -> Redis:
    """A client of the Redis that the settings of this process name.

    Raises:
        SettingsError: they do not hold.
    """
    return connect(load_common().redis_url)


def connect(url: str) -> Redis:
    """A pooled client that threads may share; it repeats a call whose connection broke, for a second or so.

    Repeats are safe: every script that changes something takes a call token.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": READ_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=4),
        "protocol": 2,  # a handshake less for each connection, and nothing here needs more
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
    }
    sentinels = SentinelUrl.parse(url)
    if sentinels is None:
        return Redis.from_url(url, **options)
    login = {"username": sentinels.username, "password": sentinels.password}
    watchers = Sentinel(list(sentinels.hosts), sentinel_kwargs=sentinel_options())  # type: ignore[no-untyped-call]
    master: Redis = watchers.master_for(sentinels.service, db=sentinels.db, **login, **options)  # type: ignore[no-untyped-call]
    return master
