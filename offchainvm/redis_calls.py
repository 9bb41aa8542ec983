"""Calls of Redis, whose absence is an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions as redis_errors

from offchainvm.errors import Unavailable

_NOT_NOW = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY ")
"""Refusals that pass: the disk is full, replicas are away, a script runs too long."""
_AWAY = (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.ReadOnlyError, redis_errors.OutOfMemoryError)


@contextmanager
def reaching_redis() -> Iterator[None]:
    """Turn 'Redis is away' (unreachable, loading, a replica, full) into ``Unavailable``."""
    try:
        yield
    except _AWAY as error:
        raise _unavailable(error) from error
    except redis_errors.ResponseError as error:
        if str(error).startswith(_NOT_NOW):
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable("redis", f"Redis does not take the call: {str(error).rstrip('.')}.", remedy="Check REDIS_URL, and the server's log.")
