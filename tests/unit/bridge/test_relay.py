"""What the relay makes of the outbox's entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from offchainvm.bridge import relay as relay_module
from offchainvm.bridge.relay import Relay, _ids_of
from offchainvm.errors import Unavailable
from offchainvm.jobs.record import Message, Stage


class FakeOutbox:
    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.finished: list[str] = []
        self.kept: list[str] = []

    def read(self, count: int, block_ms: int, consumer: str) -> list[Message]:
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def reclaim(self, min_idle_ms: int, consumer: str) -> list[Message]:
        return []

    def keep(self, entry_ids: Sequence[str], consumer: str) -> None:
        self.kept += entry_ids

    def done(self, entry_ids: Sequence[str]) -> None:
        self.finished += entry_ids


class FakeBroker:
    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[str, ...], str]] = []
        self.backlog, self.away, self.refuses = 0, False, ""

    def publish(self, stage: Stage, data_ids: Sequence[str], *, task_id: str) -> None:
        if self.away:
            raise Unavailable("broker", "away")
        if task_id == self.refuses:
            raise ValueError("cannot be encoded")
        self.sent.append((stage.value, tuple(data_ids), task_id))

    def ready(self, stage: Stage) -> int:
        return self.backlog

    def close(self) -> None:
        """Nothing is open."""


def _messages(stage: Stage, *groups: Sequence[str], attempt: int = 0) -> list[Message]:
    return [Message(stage, tuple(group), f"{stage.value}-{number}", 1, attempt) for number, group in enumerate(groups)]


@pytest.fixture
def outbox() -> FakeOutbox:
    return FakeOutbox()


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def relay(outbox: FakeOutbox, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> Relay:
    monkeypatch.setattr(relay_module, "_LINGER_SECONDS", 0.0)
    return Relay(outbox=cast("Any", outbox), broker=cast("Any", broker), consumer="c")


def test_idle_each_job_travels_alone_under_its_own_task_id(relay: Relay, outbox: FakeOutbox, broker: FakeBroker) -> None:
    outbox.waiting = _messages(Stage.EXECUTE, ["a"], ["b"], attempt=2) + _messages(Stage.COMPILE, ["c"])
    relay.turn()
    assert sorted(broker.sent) == [
        ("compile", ("c",), "compile:c:0"),
        ("execute", ("a",), "execute:a:2"),
        ("execute", ("b",), "execute:b:2"),
    ]
    assert sorted(outbox.finished) == ["compile-0", "execute-0", "execute-1"]


def test_under_backlog_execute_jobs_travel_in_eights_and_builds_alone(relay: Relay, outbox: FakeOutbox, broker: FakeBroker) -> None:
    broker.backlog = 1000
    outbox.waiting = _messages(Stage.EXECUTE, *[[f"e{number}"] for number in range(20)]) + _messages(Stage.COMPILE, ["c1"], ["c2"])
    relay.turn()
    assert sorted(len(ids) for stage, ids, _ in broker.sent if stage == "execute") == [4, 8, 8]
    assert [ids for stage, ids, _ in broker.sent if stage == "compile"] == [("c1",), ("c2",)]
    assert len(outbox.finished) == 22


def test_ids_handed_back_together_are_spread_again_when_idle(relay: Relay, outbox: FakeOutbox, broker: FakeBroker) -> None:
    outbox.waiting = _messages(Stage.EXECUTE, ["a", "b", "c"])
    relay.turn()
    assert [ids for _, ids, _ in broker.sent] == [("a",), ("b",), ("c",)]
    assert outbox.finished == ["execute-0"]


def test_the_doorbell_rings_at_once_then_once_for_many(
    relay: Relay, outbox: FakeOutbox, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(relay_module.time, "monotonic", lambda: now[0])
    outbox.waiting = [Message(Stage.RESOLVE, (), "r1", 1, 1)]
    relay.turn()
    outbox.waiting = [Message(Stage.RESOLVE, (), f"r{number}", 1, number) for number in (2, 3, 4)]
    relay.turn()
    assert [task_id for _, _, task_id in broker.sent] == ["resolve:1"]
    now[0] += relay_module.RING_SECONDS
    relay.turn()
    assert [task_id for _, _, task_id in broker.sent] == ["resolve:1", "resolve:4"]
    assert outbox.finished == ["r1", "r2", "r3", "r4"]


def test_a_broker_that_is_away_loses_nothing_and_counts_nothing(relay: Relay, outbox: FakeOutbox, broker: FakeBroker) -> None:
    outbox.waiting = _messages(Stage.EXECUTE, ["a"], ["b"])
    broker.away = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            relay.turn()
    assert outbox.finished == []
    assert set(outbox.kept) == {"execute-0", "execute-1"}
    broker.away = False
    relay.turn()
    assert outbox.finished == ["execute-0", "execute-1"]


def test_a_message_that_cannot_be_published_blocks_no_other_and_is_not_done(relay: Relay, outbox: FakeOutbox, broker: FakeBroker) -> None:
    outbox.waiting = _messages(Stage.EXECUTE, ["bad"], ["good"])
    broker.refuses = "execute:bad:0"
    relay.turn()
    assert outbox.finished == ["execute-1"]
    relay.turn()
    assert outbox.kept == []


@pytest.mark.parametrize("message", [{}, {"body": "!"}, {"body": "[]"}, {"body": "W10=", "properties": {"body_encoding": "base64"}}])
def test_a_foreign_message_counts_as_one_job(message: dict[str, Any]) -> None:
    assert _ids_of(message) == 1
