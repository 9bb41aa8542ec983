"""The switch that keeps new work out, of the whole fleet or of one bridge; it outlives every process."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from redis import Redis

from offchainvm.jobs.server import Server, decoded, key, milliseconds, plain
from offchainvm.redis_calls import reaching_redis

FLEET = "*"
"""Stands for every bridge, in the place of a name."""


@dataclass(frozen=True)
class Pause:
    """Who takes no new work (a WORKER_ID, or ``FLEET``), since when (seconds since 1970, by the clock of whoever said so), and why."""

    worker: str
    since: float
    reason: str


class Pauses:
    """Pauses, and the polls that are on their way. Every method raises ``errors.Unavailable`` while Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._server = Server(redis)

    def pause(self, worker: str = FLEET, *, reason: str = "") -> None:
        """No poll begins from now on; those on their way are finished. Said again, only the reason changes."""
        known = {one.worker: one.since for one in self.all()}
        values = {"since": known.get(worker, time.time()), "reason": plain(reason)}
        with reaching_redis():
            self._redis.hset(key("paused"), worker, json.dumps(values))

    def resume(self, worker: str = FLEET) -> bool:
        """Polls begin again; False: it was not paused."""
        with reaching_redis():
            return bool(self._redis.hdel(key("paused"), worker))

    def all(self) -> list[Pause]:
        """Every pause, that of the fleet first."""
        with reaching_redis():
            found = decoded(self._redis.hgetall(key("paused")))
        return [Pause(worker, **json.loads(values)) for worker, values in sorted(found.items())]

    def holds(self, worker: str) -> bool:
        """Whether ``worker`` is to take no new work."""
        with reaching_redis():
            return any(self._redis.hmget(key("paused"), FLEET, worker))

    def begin_poll(self, worker: str, poll: str, *, longest_seconds: float) -> bool:
        """Register a poll; False: paused, do not poll."""
        return bool(self._server.run("poll_begin", worker, poll, milliseconds(longest_seconds)))

    def end_poll(self, poll: str) -> None:
        """The poll is over, and what it brought is a job."""
        with reaching_redis():
            self._redis.zrem(key("polls"), poll)

    def polls(self) -> int:
        """Polls that may still bring a task."""
        with reaching_redis():
            seconds, microseconds = self._redis.time()
            return int(self._redis.zcount(key("polls"), f"({int(seconds) * 1000 + int(microseconds) // 1000}", "+inf"))
