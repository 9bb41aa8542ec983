"""Messages that a script wrote together with the state they belong to, until the relay has published them.

A Redis stream with one consumer group: two bridges share the work, what a dead one took comes back by its idle time,
and an entry that fails again and again is set aside without blocking the others (the reconciler still sees its job).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import ResponseError

from offchainvm.jobs.record import Message, Stage
from offchainvm.jobs.server import Server, decoded, flat, key, text
from offchainvm.redis_calls import reaching_redis

_STREAM = key("outbox")
_GROUP = "relay"
_Answer = TypeVar("_Answer")


class Outbox:
    """The messages to publish, oldest first, each at least once."""

    def __init__(self, redis: Redis, *, max_deliveries: int = 10) -> None:
        self._redis: Any = redis
        self._server = Server(redis)
        self._max_deliveries = max_deliveries

    def read(self, count: int, block_ms: int, consumer: str) -> list[Message]:
        """New entries, at most ``count``; waits ``block_ms`` for the first (0: does not wait; keep it below the socket's time-out)."""
        streams = self._with_group(lambda: self._redis.xreadgroup(_GROUP, consumer, {_STREAM: ">"}, count=count, block=block_ms or None))
        return [_message(text(entry_id), 1, decoded(fields)) for entry_id, fields in _entries(streams)]

    def reclaim(self, min_idle_ms: int, consumer: str, *, count: int = 100) -> list[Message]:
        """Entries that a relay took ``min_idle_ms`` ago and never finished; those that had ``max_deliveries`` are set aside."""
        arguments = (_GROUP, consumer, min_idle_ms, count, self._max_deliveries)
        found = self._with_group(lambda: self._server.run("outbox_reclaim", *arguments))
        return [_message(entry_id, deliveries, flat(fields)) for entry_id, deliveries, fields in found]

    def keep(self, entry_ids: Sequence[str], consumer: str) -> None:
        """The broker is away, these are still ours: their idle time starts anew, and no delivery is counted."""
        if entry_ids:
            self._with_group(lambda: self._redis.xclaim(_STREAM, _GROUP, consumer, 0, list(entry_ids), justid=True))

    def done(self, entry_ids: Sequence[str]) -> None:
        """These are published: forget them."""
        if not entry_ids:
            return
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=False)
            pipe.xack(_STREAM, _GROUP, *entry_ids)
            pipe.xdel(_STREAM, *entry_ids)
            pipe.execute()

    def aside(self, limit: int = 100) -> list[Message]:
        """The newest entries that could not be published."""
        with reaching_redis():
            entries = self._redis.xrevrange(f"{_STREAM}:aside", count=limit)
        return [_message(text(entry_id), self._max_deliveries, decoded(fields)) for entry_id, fields in entries]

    def _with_group(self, call: Callable[[], _Answer]) -> _Answer:
        """Make the group where it is missing: the first time, and when Redis lost its data."""
        with reaching_redis():
            try:
                return call()
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
            try:
                self._redis.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            return call()


def _entries(streams: Any) -> list[tuple[bytes | str, Mapping[Any, Any]]]:
    """The entries of one stream, in the shape of either protocol version of redis-py."""
    if not streams:
        return []
    if isinstance(streams, dict):
        (batches,) = streams.values()
        return [entry for batch in batches for entry in (batch if isinstance(batch, list) else [batch])]
    return list(streams[0][1])


def _message(entry_id: str, deliveries: int, fields: Mapping[str, str]) -> Message:
    ids = tuple(fields.get("ids", "").split())
    return Message(Stage(fields["stage"]), ids, entry_id, deliveries, int(fields.get("attempt") or 0))
