"""What can be read of the jobs; nothing here changes anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from offchainvm.jobs.record import Event, Job, ModuleRecord, Stage, State, UnreadableRecord, parse_job
from offchainvm.jobs.server import Server, decoded, flat, key, text
from offchainvm.models import REQUEST_ID_MAX
from offchainvm.redis_calls import reaching_redis

_COUNTED = ("running", "parked", "waiting", "taken", "settled", "reports")


@dataclass(frozen=True)
class Rejected:
    """A task that could not be read; ``untrusted_task`` is the start of its bytes, ``at`` in seconds since 1970."""

    at: float
    request_id: int | None
    reason: str
    untrusted_task: bytes


class Lookups:
    """The reading half of ``JobStore``."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._server = Server(redis)

    def get(self, data_id: str) -> Job | None:
        """The job, or None: never accepted, or its retention has passed."""
        with reaching_redis():
            fields = self._redis.hgetall(key("job", data_id))
        return parse_job(decoded(fields)) if fields else None

    def by_request_id(self, request_id: int) -> Job | None:
        with reaching_redis():
            data_id = self._redis.get(key("request", str(request_id)))
        return None if data_id is None else self.get(text(data_id))

    def by_transaction(self, hash: str) -> list[Job]:
        """The jobs whose answers a transaction carries, or carried, in the order of its actions."""
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=False)
            kept, in_flight = pipe.get(key("carried", hash)).hget(key("tx", hash), "ids").execute()
        return self._present(text(kept or in_flight or b"").split())

    def by_repository(self, repository: str, limit: int = 50) -> list[Job]:
        """The newest jobs of a repository (``owner/name``), at most a thousand; what a newer version wrote is left out."""
        with reaching_redis():
            found = self._redis.zrevrange(key("repository", repository.lower()), 0, limit - 1)
        return self._present([text(data_id) for data_id in found])

    def by_sender(self, sender_id: str, limit: int = 50) -> list[Job]:
        """The newest jobs of a sender, at most a thousand, as far as their sender is known."""
        with reaching_redis():
            found = self._redis.zrevrange(key("sender", sender_id), 0, limit - 1)
        return self._present([text(data_id) for data_id in found])

    def _present(self, data_ids: Sequence[str]) -> list[Job]:
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=False)
            for data_id in data_ids:
                pipe.hgetall(key("job", data_id))
            records = [decoded(fields) for fields in pipe.execute() if fields]
        return [job for record in records if (job := _readable(record)) is not None]

    def history(self, data_id: str) -> list[Event]:
        """The newest 64 events, oldest first."""
        with reaching_redis():
            lines = self._redis.lrange(key("history", data_id), 0, -1)
        return [Event(at / 1000, stage, what, detail) for at, stage, what, detail in map(json.loads, lines)]

    def list_jobs(self, state: State | None = None, limit: int = 50, *, skip: int = 0) -> list[Job]:
        """Jobs of one state (all: those that are not settled first), after the first ``skip``; what a newer version wrote is left out."""
        records = self._server.run("list", "" if state is None else state.value, limit, skip)
        return [job for record in records if (job := _readable(flat(record))) is not None]

    def module(self, source_key: str) -> ModuleRecord | None:
        with reaching_redis():
            sha256, size = self._redis.hmget(key("module", source_key), "sha256", "size")
        return None if sha256 is None else ModuleRecord(text(sha256), int(size))

    def recorded_input(self, data_id: str) -> tuple[str, int] | None:
        """Input and event height as the chain announced them, while they are kept."""
        with reaching_redis():
            value, height = self._redis.hmget(key("input", data_id), "input", "height")
        return None if value is None else (base64.b64decode(value).decode("utf-8", "surrogatepass"), int(height))

    def recorded_sender(self, data_id: str) -> str | None:
        """Who sent a request, as its event said, while that is kept."""
        with reaching_redis():
            value = self._redis.hget(key("input", data_id), "sender")
        return text(value) if value else None

    def rejected(self, limit: int = 100) -> list[Rejected]:
        """Tasks set aside, the newest first."""
        with reaching_redis():
            lines = self._redis.lrange(key("rejected"), 0, limit - 1)
        return [_rejected(*json.loads(line)) for line in lines]

    def queued_count(self) -> int:
        """Jobs that wait for a worker of any stage, delayed ones included."""
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=False)
            for stage in (Stage.COMPILE, Stage.EXECUTE):
                pipe.zcard(key("queued", stage.value))
            return sum(pipe.execute())

    def counts(self) -> dict[str, int]:
        """How many jobs stand where.

        Jobs: compile, execute (queued), running, parked, waiting, taken, settled; and in_flight (transactions), reports, outbox, rejected.
        """
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zcard(key("queued", "compile")).zcard(key("queued", "execute"))
            for name in _COUNTED:
                pipe.zcard(key(name))
            pipe.xlen(key("outbox")).llen(key("rejected")).smembers(key("keys"))
            *numbers, public_keys = pipe.execute()
            flights = self._redis.pipeline(transaction=False)
            for public_key in public_keys:
                flights.zcard(key("flight", text(public_key)))
            in_flight = sum(flights.execute())
        return {**dict(zip(("compile", "execute", *_COUNTED, "outbox", "rejected"), numbers, strict=True)), "in_flight": in_flight}

    def server_run_id(self) -> str:
        """Changes whenever the server started anew: it may have forgotten its last second."""
        with reaching_redis():
            return str(self._redis.info("server")["run_id"])


def matching(records: Lookups, untrusted_name: str, state: State | None = None, limit: int = 1000) -> list[Job]:
    """The jobs of a request id, a data id or the beginning of one, a transaction, a repository or a sender, the newest first."""
    found = _named(records, untrusted_name, limit if state is None else 1000)
    return [job for job in found if state in (None, job.state)][:limit]


def _named(records: Lookups, name: str, limit: int) -> list[Job]:
    if "/" in name:
        return records.by_repository("/".join(name.removesuffix(".git").rstrip("/").split("/")[-2:]), limit)
    if len(name) == 64:
        exact = records.get(name.lower())
        return [exact] if exact else records.by_sender(name, limit)
    by_request = records.by_request_id(int(name)) if name.isdecimal() and int(name) <= REQUEST_ID_MAX else None
    if by_request:
        return [by_request]
    found = records.by_transaction(name) or records.by_sender(name, limit)
    return found or [job for job in records.list_jobs(None, 1000) if name and job.data_id.startswith(name.lower())]


def _readable(fields: dict[str, str]) -> Job | None:
    try:
        return parse_job(fields)
    except UnreadableRecord:
        return None


def _rejected(at: int, entry: str) -> Rejected:
    values = json.loads(entry)
    return Rejected(at / 1000, values["request_id"], values["reason"], base64.b64decode(values["task"]))
