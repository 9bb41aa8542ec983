"""What bridges hold on their hosts' disks that is no job yet, as each of them tells: a drain counts it.

Key: ``ovm:journalled`` hash of place and bridge: JSON tasks, at (milliseconds by Redis' clock). Whoever stops with nothing left
removes its line; a line that grows old is of a bridge that vanished, and what its journal holds now is not known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redis import Redis

from offchainvm.jobs.server import decoded, key
from offchainvm.redis_calls import reaching_redis

STALE_SECONDS = 20.0
"""Untold for longer, a line tells nothing of now."""
TELL_SECONDS = 5.0
_FORGOTTEN_SECONDS = 86_400.0
_KEY = key("journalled")


@dataclass(frozen=True)
class Held:
    """``tasks``: told of in the last seconds; ``vanished``: bridges that stopped telling within the last day."""

    tasks: int
    vanished: int


class Journals:
    """The lines of all bridges. Every method raises ``errors.Unavailable`` while Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def tell(self, home: str, worker: str, tasks: int) -> None:
        """Say how many tasks the journal of ``worker`` holds that are no job; ``home``: the name of the journal's place on disk."""
        with reaching_redis():
            self._redis.hset(_KEY, f"{home} {worker}", json.dumps({"tasks": tasks, "at": self._now_ms()}))

    def leave(self, home: str, worker: str) -> None:
        """This bridge stops, and its journal holds nothing."""
        with reaching_redis():
            self._redis.hdel(_KEY, f"{home} {worker}")

    def forget_vanished(self, home: str) -> None:
        """No journal of another bridge is left at this place: those that vanished from there hold nothing."""
        lines, now_ms = self._lines()
        gone = [name for name, line in lines.items() if name.split(" ")[0] == home and now_ms - line["at"] > STALE_SECONDS * 1000]
        if gone:
            with reaching_redis():
                self._redis.hdel(_KEY, *gone)

    def held(self) -> Held:
        """What all journals hold, as far as it is known."""
        lines, now_ms = self._lines()
        ages = [(line["tasks"], (now_ms - line["at"]) / 1000) for line in lines.values()]
        tasks = sum(tasks for tasks, age_seconds in ages if age_seconds <= STALE_SECONDS)
        return Held(tasks, sum(STALE_SECONDS < age_seconds <= _FORGOTTEN_SECONDS for _, age_seconds in ages))

    def _lines(self) -> tuple[dict[str, Any], int]:
        with reaching_redis():
            lines = decoded(self._redis.hgetall(_KEY))
            return {name: json.loads(line) for name, line in lines.items()}, self._now_ms()

    def _now_ms(self) -> int:
        seconds, microseconds = self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000
