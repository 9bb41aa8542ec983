"""Doubles of the rooms below the bridge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from settling import World

from offchainvm.bridge import settler as settler_module
from offchainvm.errors import Unavailable
from offchainvm.jobs.record import ModuleRecord, State
from offchainvm.jobs.store import Acceptance


@dataclass
class FakeJob:
    state: State
    deadline_height: int | None = None


@dataclass
class FakeStore:
    """A job store in memory that can be away or forget."""

    jobs: dict[str, FakeJob] = field(default_factory=dict)
    accepted: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    rejections: list[tuple[bytes, str, int | None]] = field(default_factory=list)
    senders: dict[str, str] = field(default_factory=dict)
    modules: dict[str, ModuleRecord] = field(default_factory=dict)
    tombs: set[str] = field(default_factory=set)
    run_id: str = "run-1"
    away: bool = False
    queued: int = 0
    waiting: int = 0

    def _look(self) -> None:
        if self.away:
            raise Unavailable("redis", "Redis does not take the call.", remedy="Check REDIS_URL.")

    def server_run_id(self) -> str:
        self._look()
        return self.run_id

    def accept(self, task: Any, **place: Any) -> Acceptance:
        self._look()
        self.accepted.append((task, place))
        if task.data_id in self.tombs:
            return Acceptance.SETTLED
        known = self.jobs.get(task.data_id)
        if known is not None:
            return Acceptance.SETTLED if known.state is State.SETTLED else Acceptance.KNOWN
        self.jobs[task.data_id] = FakeJob(State.QUEUED)
        return Acceptance.NEW

    def get(self, data_id: str) -> FakeJob | None:
        self._look()
        return self.jobs.get(data_id)

    def recorded_sender(self, data_id: str) -> str | None:
        self._look()
        return self.senders.get(data_id)

    def reject(self, untrusted_task: bytes, reason: str, request_id: int | None) -> None:
        self._look()
        self.rejections.append((untrusted_task, reason, request_id))

    def module(self, source_key: str) -> ModuleRecord | None:
        self._look()
        return self.modules.get(source_key)

    def queued_count(self) -> int:
        self._look()
        return self.queued

    def waiting_count(self) -> int:
        self._look()
        return self.waiting


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(settler_module.time, "monotonic", lambda: world.now)
    return world
