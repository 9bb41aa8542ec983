"""Connections to the Redis that keeps the jobs."""

from __future__ import annotations

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0


def connect(url: str) -> Redis:
    """A pooled client that threads may share; it repeats a call whose connection broke, for a second or so.

    Repeats are safe: every script that changes something takes a call token.
    """
    return Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=READ_SECONDS,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=4),
        protocol=2,  # a handshake less for each connection, and nothing here needs more
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )
