"""One build a source key: whoever comes second waits parked, in no pool slot.

The build lives as long as its builder's claim. ``commit(ToExecute)`` of the builder sends the parked on to execute;
``commit(ToResolve(build_failure=…))`` sends them back here, where they hear of the failure; ``put_back`` and death promote the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis

from offchainvm.jobs.record import Claim, ModuleRecord
from offchainvm.jobs.server import Server, key, new_token, text
from offchainvm.redis_calls import reaching_redis


@dataclass(frozen=True)
class Builder:
    """Build it: the build is this claim's until it commits, puts back or dies."""


@dataclass(frozen=True)
class Parked:
    """This claim is over, do nothing more: somebody builds, and the job comes back when there is an answer (or the claim was lost)."""


@dataclass(frozen=True)
class Built:
    """The module is known already."""

    module: ModuleRecord


@dataclass(frozen=True)
class Failed:
    """A build of this source failed within the last minute: fail alike."""

    code: str
    sentence: str


Entrance = Builder | Parked | Built | Failed


class SingleFlight:
    """Park-or-become-builder, in one script."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._server = Server(redis)

    def enter(self, claim: Claim, source_key: str, *, token: str | None = None) -> Entrance:
        """What this claim of the compile stage is to do about its source."""
        kind, *details = self._server.run("enter", token or new_token(), claim.data_id, claim.fence, source_key)
        if kind == "builder":
            return Builder()
        if kind == "built":
            return Built(ModuleRecord(details[0], int(details[1])))
        return Failed(*details) if kind == "failed" else Parked()

    def note_coordinator_lock(self, source_key: str, lock_key: str, *, ttl_seconds: int) -> None:
        """Our fleet asks for the Coordinator's lock on this source, or holds it (the lock itself knows no owner)."""
        with reaching_redis():
            self._redis.set(key("lock", source_key), lock_key, ex=ttl_seconds)

    def noted_coordinator_lock(self, source_key: str) -> str | None:
        """The Coordinator's lock that a builder of this fleet, perhaps dead, asked for: no need to wait for it, but to release it."""
        with reaching_redis():
            value = self._redis.get(key("lock", source_key))
        return None if value is None else text(value)

    def drop_coordinator_lock(self, source_key: str) -> None:
        """The lock is released, or another fleet's."""
        with reaching_redis():
            self._redis.delete(key("lock", source_key))
