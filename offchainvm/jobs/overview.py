"""The whole fleet in figures, in one look: what waits and for how long, what is under way, and the totals since ever."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from offchainvm.jobs.server import Server, flat, key
from offchainvm.redis_calls import reaching_redis

YOCTO_A_UNIT = 10**12
"""Redis counts in 64 bits: what is burnt is kept in this many yoctoNEAR."""
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Queue:
    """What waits at one stage."""

    jobs: int
    oldest_seconds: float
    rounds: int = 0
    """Until everybody had their turn: the jobs of the sender or repository that has most of them waiting."""


@dataclass(frozen=True)
class Overview:
    """The figures at one moment; ``totals`` as in ``lua/common.lua``, under ``ovm:totals``."""

    queues: Mapping[str, Queue]
    running: int
    parked: int
    taken: int
    reports: int
    outbox: int
    transactions_in_flight: int
    totals: Mapping[str, int]

    @property
    def spent_yocto(self) -> int:
        """Tokens that all settled transactions burnt."""
        return self.totals.get("spent", 0) * YOCTO_A_UNIT


def look(redis: Redis) -> Overview:
    """The figures of now.

    Raises:
        Unavailable: Redis is away.
    """
    found = Server(redis).run("overview")
    return Overview(
        queues={stage: Queue(jobs, age_ms / 1000, *rounds) for stage, (jobs, age_ms, *rounds) in found["queues"].items()},
        running=found["running"],
        parked=found["parked"],
        taken=found["taken"],
        reports=found["reports"],
        outbox=found["outbox"],
        transactions_in_flight=found["flights"],
        totals={name: int(value) for name, value in flat(found["totals"] or []).items()},
    )


def spent_lately(redis: Redis) -> tuple[int, float]:
    """What transactions burnt today and yesterday (UTC), in yoctoNEAR, and the seconds that this was."""
    now = time.time()
    today = int(now // _DAY_SECONDS)
    client: Any = redis
    with reaching_redis():
        units = [int(value or 0) for value in client.mget(key("spent", str(today)), key("spent", str(today - 1)))]
    return sum(units) * YOCTO_A_UNIT, now % _DAY_SECONDS + _DAY_SECONDS
