"""Messages that a script wrote together with the state they belong to, until the relay has published them.

A Redis stream with one consumer group: two bridges share the work, what a dead one took comes back by its idle time,
and an entry that fails again and again is set aside without blocking the others (the reconciler still sees its job).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from offchainvm.jobs.record import Message, Stage
from offchainvm.jobs.server import Server, key, reaching_redis

_STREAM = key("outbox")
_GROUP = "relay"


class Outbox:
    """The messages to publish, oldest first, each at least once."""

    def __init__(self, redis: Redis, *, max_deliveries: int = 10) -> None:
        self._server = Server(redis)
        self._max_deliveries = max_deliveries

    def read(self, count: int, block_ms: int, consumer: str) -> list[Message]:
        """New entries, at most ``count``; waits ``block_ms`` for the first (0: does not wait)."""

    def reclaim(self, min_idle_ms: int, consumer: str, *, count: int = 100) -> list[Message]:
        """Entries that some relay took ``min_idle_ms`` ago and never finished; those at their last try are set aside."""

    def keep(self, entry_ids: Sequence[str], consumer: str) -> None:
        """Say that these are still being worked on (the broker is away): their idle time starts anew, no delivery is counted."""

    def done(self, entry_ids: Sequence[str]) -> None:
        """These are published: forget them."""

    def length(self) -> int:
        """Entries not published yet."""

    def set_aside(self, limit: int = 100) -> list[Message]:
        """The newest entries that could not be published."""
