"""One build a source key: whoever comes second waits parked, in no pool slot."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from offchainvm.jobs.record import Claim, ModuleRecord


@dataclass(frozen=True)
class Builder:
    """Build it: the build is this claim's until it commits, puts back or dies."""


@dataclass(frozen=True)
class Parked:
    """Somebody builds it; the claim is over and its job comes back when there is an answer. (Also: the claim was lost.)"""


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

    def __init__(self, redis: Redis) -> None: ...

    def enter(self, claim: Claim, source_key: str, *, token: str | None = None) -> Entrance: ...

    def note_coordinator_lock(self, source_key: str, lock_key: str, *, ttl_seconds: int) -> None:
        """Our fleet holds the Coordinator's lock on this source (the lock has no owner of its own)."""

    def take_over(self, source_key: str) -> str | None:
        """The Coordinator's lock that a builder of this fleet, perhaps dead, holds; the new builder need not acquire it again."""

    def drop_coordinator_lock(self, source_key: str) -> None:
        """The lock is released."""
