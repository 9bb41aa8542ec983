"""The registry of processes: who runs where, what each can do, when it was last seen, and what a vanished one held.

Each process writes its own entry every few seconds, and removes it when it stops; an entry that grows old is a process that
vanished. It stays for a day, with the claims that died with it. Nothing in an entry is secret.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from redis import Redis

from offchainvm import __version__
from offchainvm.errors import Unavailable
from offchainvm.jobs.record import State
from offchainvm.jobs.server import key, milliseconds, text
from offchainvm.jobs.store import JobStore
from offchainvm.logs import get_logger
from offchainvm.redis_calls import reaching_redis

log = get_logger()

BEAT_SECONDS = 5.0
ALIVE_SECONDS = 20.0
"""Unseen for longer, a process is called gone: three beats may be missed."""
KEPT_SECONDS = 86_400.0
_LEAVE_SECONDS = 3.0
_MOST_JOBS = 1000
_INDEX = key("fleet")


@dataclass(frozen=True)
class Member:
    """One process, as it describes itself. ``capacity``: jobs (of a bridge: polls) at once."""

    id: str
    """Unique in the fleet: ``execute@worker-1``."""
    node: str
    """WORKER_ID: the first part of the owner of its claims."""
    roles: tuple[str, ...]
    capacity: int = 1
    engines: tuple[str, ...] = ()
    version: str = __version__
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    started_at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class HeldJob:
    """A job that a process works on, or held when it vanished."""

    data_id: str
    stage: str


@dataclass(frozen=True)
class Sighting:
    """A process as the registry knows it. ``well`` is False while one of its loops hangs."""

    member: Member
    age_seconds: float
    well: bool
    jobs: tuple[HeldJob, ...] = ()
    """What it works on now by its leases; of one that is gone: what died with it in the last day as well."""

    @property
    def gone(self) -> bool:
        return self.age_seconds > ALIVE_SECONDS

    @property
    def state(self) -> str:
        """``working``, ``idle``, ``hung`` or ``gone``."""
        if self.gone:
            return "gone"
        return "hung" if not self.well else "working" if self.jobs else "idle"


class Registry:
    """The entries of all processes. Every method raises ``errors.Unavailable`` while Redis is away.

    Keys: ``ovm:fleet`` zset of ids by the time last seen; ``ovm:fleet:ID`` JSON, whose rest of life tells when it was written.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._jobs = JobStore(redis)

    def beat(self, member: Member, *, well: bool) -> None:
        """Say that this process is there."""
        now = time.time()
        with reaching_redis(), self._redis.pipeline(transaction=True) as pipe:
            pipe.set(_entry(member.id), json.dumps({**asdict(member), "well": well}), px=milliseconds(KEPT_SECONDS))
            pipe.zadd(_INDEX, {member.id: now})
            pipe.zremrangebyscore(_INDEX, "-inf", now - 2 * KEPT_SECONDS)
            pipe.execute()

    def leave(self, member: Member) -> None:
        """This process stops as it should: it is not missed."""
        with reaching_redis(), self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(_entry(member.id))
            pipe.zrem(_INDEX, member.id)
            pipe.execute()

    def sightings(self) -> list[Sighting]:
        """Every process that was seen in the last day and did not say that it stops, by its id."""
        leases = self._leases()
        return [self._with_jobs(one, leases) for one in self._entries()]

    def alive(self, role: str) -> list[Sighting]:
        """The processes of a role that were seen just now and do not hang, without their jobs."""
        return [one for one in self._entries() if role in one.member.roles and one.well and not one.gone]

    def _entries(self) -> list[Sighting]:
        with reaching_redis():
            ids = sorted(map(text, self._redis.zrange(_INDEX, 0, -1)))
            pipe = self._redis.pipeline(transaction=True)
            for id in ids:
                pipe.get(_entry(id)).pttl(_entry(id))
            answers = iter(pipe.execute())
        pairs = zip(answers, answers, strict=True)
        return [_sighting(json.loads(entry), rest_ms) for entry, rest_ms in pairs if entry is not None]

    def _leases(self) -> list[tuple[str, HeldJob]]:
        running = self._jobs.list_jobs(State.RUNNING, _MOST_JOBS)
        return [(job.owner.rpartition(":")[0], HeldJob(job.data_id, job.stage.value)) for job in running]

    def _with_jobs(self, one: Sighting, leases: Sequence[tuple[str, HeldJob]]) -> Sighting:
        held = [job for node, job in leases if node == one.member.node]
        if one.gone:
            held += self._lost(one.member.node, since=time.time() - one.age_seconds - ALIVE_SECONDS)
        ours = dict.fromkeys(job for job in held if job.stage in one.member.roles)
        return Sighting(one.member, one.age_seconds, one.well, tuple(ours))

    def _lost(self, node: str, *, since: float) -> list[HeldJob]:
        with reaching_redis():
            lines = self._redis.lrange(key("lost", node), 0, -1)
        return [HeldJob(data_id, stage) for at, stage, data_id in map(json.loads, lines) if at / 1000 >= since]


class Heartbeat:
    """Keeps this process in the registry: where somebody calls ``run``, or in a thread of its own between ``start`` and ``stop``.

    ``well`` tells whether all loops of this process turn.
    """

    def __init__(self, registry: Registry, member: Member, *, well: Callable[[], bool]) -> None:
        self._registry, self._member, self._well = registry, member, well
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(self._leaving,), name="heartbeat", daemon=True)

    def start(self) -> Heartbeat:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Leave, unless Redis is away for longer than a moment."""
        self._leaving.set()
        self._thread.join(_LEAVE_SECONDS)

    def run(self, stop: threading.Event) -> None:
        """Beat until ``stop``, through absences of Redis; then leave."""
        while not stop.is_set():
            self._try(lambda: self._registry.beat(self._member, well=self._well()))
            stop.wait(BEAT_SECONDS)
        self._try(lambda: self._registry.leave(self._member))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Unavailable as error:
            log.debug("The registry of workers cannot be reached.", action="beat", error=error.sentence)


def _entry(id: str) -> str:
    return key("fleet", id)


def _sighting(values: dict[str, Any], rest_ms: int) -> Sighting:
    known = {name: values[name] for name in (one.name for one in fields(Member)) if name in values}
    known.update({name: tuple(known.get(name, ())) for name in ("roles", "engines")})
    return Sighting(Member(**known), max(0.0, KEPT_SECONDS - rest_ms / 1000), bool(values.get("well", True)))
