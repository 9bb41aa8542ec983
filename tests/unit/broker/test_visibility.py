"""The visibility step: what a worker holds stays its own, and no error of a broker that is away ends the worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from offchainvm import health
from offchainvm.broker import VisibilityStep
from offchainvm.liveness import liveness_file


class Qos:
    """kombu's bookkeeping of unacknowledged messages on Redis."""

    unacked_index_key = "unacked_index"

    def __init__(self, *held: str, error: Exception | None = None) -> None:
        self._delivered = dict.fromkeys(held)
        self.channel = self
        self.error = error
        self.calls: list[tuple[str, dict[str, float], dict[str, Any]]] = []

    @contextlib.contextmanager
    def conn_or_acquire(self) -> Iterator[Qos]:
        if self.error is not None:
            raise self.error
        yield self

    def zadd(self, name: str, scores: dict[str, float], **options: Any) -> None:
        self.calls.append((name, scores, options))


def consumer(qos: object) -> Any:
    return SimpleNamespace(hostname="execute@here", task_consumer=SimpleNamespace(channel=SimpleNamespace(qos=qos)))


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VisibilityStep:
    monkeypatch.setenv("OFFCHAINVM_LIVE_DIR", str(tmp_path))
    monkeypatch.setattr(health, "_loops", {})
    return object.__new__(VisibilityStep)


def test_what_is_held_is_renewed_and_what_was_acknowledged_is_not_brought_back(step: VisibilityStep) -> None:
    qos = Qos("tag-1", "tag-2")
    step.renew(consumer(qos))
    [(name, scores, options)] = qos.calls
    assert (name, set(scores), options) == ("unacked_index", {"tag-1", "tag-2"}, {"xx": True})
    assert all(abs(score - time.time()) < 5 for score in scores.values())


def test_a_worker_with_nothing_in_hand_asks_nothing_of_redis_and_says_that_it_lives(step: VisibilityStep) -> None:
    qos = Qos()
    step.renew(consumer(qos))
    assert qos.calls == []
    assert liveness_file("execute@here").is_file()


def test_a_broker_that_is_away_ends_no_worker(step: VisibilityStep) -> None:
    step.renew(consumer(Qos("tag-1", error=RedisConnectionError("gone"))))
    step.renew(SimpleNamespace(hostname="execute@here", task_consumer=None))


def test_another_broker_than_redis_has_no_such_timeout(step: VisibilityStep) -> None:
    step.renew(consumer(SimpleNamespace(_delivered={"tag-1": None})))


def test_it_runs_four_times_within_the_timeout(step: VisibilityStep) -> None:
    asked: list[float] = []

    def call_repeatedly(seconds: float, *_arguments: Any, **_named: Any) -> None:
        asked.append(seconds)

    worker = consumer(Qos())
    worker.timer = SimpleNamespace(call_repeatedly=call_repeatedly)
    step.start(worker)
    assert asked == [7.5]
