"""One contract's event monitors on a real Redis, with a chain and a Coordinator in memory around them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from offchainvm.bridge.announcer import Announcer
from offchainvm.bridge.monitor import Monitor, Subject
from offchainvm.bridge.unpolled import Unpolled
from offchainvm.bridge.watch import Watch
from offchainvm.errors import Unavailable
from offchainvm.jobs.store import JobStore
from offchainvm.models import CompileTask, NewTask, ResourceLimits
from offchainvm.near.blocks import NOT_YET, Block, NoBlock
from offchainvm.near.readahead import ReadAhead

CONTRACT, STANDARD, START = "vm.testnet", "near-offshore", 100
ACTIVE, CURSOR = f"ovm:monitor:{CONTRACT}:active", f"ovm:monitor:{CONTRACT}:cursor"
DEFAULTS = ResourceLimits(max_instructions=7, max_memory_mb=8, max_execution_seconds=9)


def data_id(number: int) -> str:
    return bytes([number] * 32).hex()


def event(number: int, **changed: Any) -> str:
    source = {"repo": "owner/name", "commit": "main", "build_target": None}
    request = {
        "request_id": number,
        "sender_id": "a.testnet",
        "code_source": source,
        "resource_limits": None,
        "input_data": f"input {number}",
    }
    element = {"request_data": json.dumps({**request, **changed}), "data_id": [number] * 32, "timestamp": 1}
    return "EVENT_JSON:" + json.dumps({"standard": STANDARD, "version": "1.0.0", "event": "execution_requested", "data": [element]})


@dataclass
class Chain:
    """A block service in memory; heights that it does not name are not there yet."""

    name: str = "block service of tests"
    found: dict[int, Block | NoBlock] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    age_seconds: float = 0.0
    away: set[int] = field(default_factory=set)

    def block(self, height: int) -> Block | NoBlock:
        self.asked.append(height)
        if height in self.away:
            raise Unavailable(self.name, "away")
        return self.found.get(height, NOT_YET)

    def add(self, height: int, *logs: str, follows: int | None = None) -> None:
        outcome = {"logs": list(logs), "status": {"SuccessValue": ""}}
        receipt = {
            "receipt": {"receiver_id": CONTRACT, "receipt_id": f"R{height}"},
            "execution_outcome": {"outcome": outcome},
            "tx_hash": "T",
        }
        before = height - 1 if follows is None else follows
        shards = [{"receipt_execution_outcomes": [receipt] if logs else []}]
        header = {
            "height": height,
            "hash": f"H{height}",
            "prev_hash": f"H{before}",
            "at": time.time() - self.age_seconds,
        }
        self.found[height] = Block(**header, untrusted_shards=shards)


@dataclass
class Created:
    """The Coordinator's ``create``: keeps what it took; raises what it is told to, before or after."""

    tasks: list[NewTask] = field(default_factory=list)
    before: list[Exception] = field(default_factory=list)
    after: list[Exception] = field(default_factory=list)

    meanwhile: list[Callable[[], object]] = field(default_factory=list)

    def create(self, task: NewTask) -> None:
        if self.before:
            raise self.before.pop(0)
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.tasks.append(task)
        if self.after:
            raise self.after.pop(0)

    @property
    def ids(self) -> list[int]:
        return [task.request_id for task in self.tasks]


@dataclass
class Admitted:
    tasks: list[CompileTask] = field(default_factory=list)
    fails_for: dict[int, Exception] = field(default_factory=dict)

    def admit(self, task: CompileTask) -> None:
        if task.request_id in self.fails_for:
            raise self.fails_for[task.request_id]
        self.tasks.append(task)


class Room:
    """A contract's monitors, and what is around them."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis, self.store = client, JobStore(client)
        self.chain, self.coordinator, self.admitted = Chain(), Created(), Admitted()
        self.newest, self.newest_away = START, False

    def newest_height(self) -> int:
        if self.newest_away:
            raise Unavailable("height service of tests", "away")
        return self.newest

    def monitor(self, *, start_height: int = START, patience_seconds: float = 60.0, width: int = 1, holder: str = "m") -> Monitor:
        admission: Any = self.admitted
        coordinator: Any = self.coordinator
        unpolled = Unpolled(
            redis=self.redis, store=self.store, admission=admission, contract_id=CONTRACT, patience_seconds=patience_seconds
        )
        announcer = Announcer(
            redis=self.redis, store=self.store, coordinator=coordinator, unpolled=unpolled, contract_id=CONTRACT, defaults=DEFAULTS
        )
        return Monitor(
            Subject(CONTRACT, STANDARD, start_height, scan_interval_seconds=0.5),
            watch=Watch(self.redis, CONTRACT, holder=holder),
            blocks=ReadAhead(self.chain, width=width),
            newest_height=self.newest_height,
            announcer=announcer,
            unpolled=unpolled,
            store=self.store,
        )


def walk(monitor: Monitor, turns: int) -> list[float]:
    return [monitor.turn() for _ in range(turns)]


def step_down(monitor: Monitor) -> None:
    stopped = threading.Event()
    stopped.set()
    monitor.run(stopped)


def successor(room: Room, monitor: Monitor) -> Monitor:
    """The next monitor, which looks at what is overdue in its first turn."""
    step_down(monitor)
    return room.monitor(patience_seconds=0.0)
