"""How long one and the same Redis was seen: before a whole lease of it, no claim is judged."""

from __future__ import annotations

import pytest

from offchainvm.bridge import reconciler
from offchainvm.bridge.reconciler import Uptime
from offchainvm.errors import Unavailable


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reconciler.time, "monotonic", lambda: clock.now)
    return clock


def _looks(uptime: Uptime, clock: Clock, *pauses: float) -> list[float]:
    seen = []
    for pause in pauses:
        clock.now += pause
        seen.append(uptime.observed_seconds())
    return seen


def test_it_counts_from_the_first_look(clock: Clock) -> None:
    assert _looks(Uptime(lambda: "one"), clock, 0, 2, 2, 2) == [0, 2, 4, 6]


def test_another_server_begins_anew(clock: Clock) -> None:
    servers = iter(["one", "one", "two", "two"])
    assert _looks(Uptime(lambda: next(servers)), clock, 0, 2, 2, 2) == [0, 2, 0, 2]


def test_a_failed_look_begins_anew(clock: Clock) -> None:
    answers = iter(["one", Unavailable("redis", "away"), "one", "one"])

    def run_id() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    uptime = Uptime(run_id)
    uptime.observed_seconds()
    with pytest.raises(Unavailable):
        uptime.observed_seconds()
    assert _looks(uptime, clock, 2, 2) == [0, 2]


def test_a_process_that_slept_begins_anew(clock: Clock) -> None:
    assert _looks(Uptime(lambda: "one"), clock, 0, 2, 600, 2) == [0, 2, 0, 2]


def test_a_server_that_froze_and_answered_late_begins_anew(clock: Clock) -> None:
    frozen_seconds = iter([0.0, 0.0, 20.0, 0.0])

    def run_id() -> str:
        clock.now += next(frozen_seconds)
        return "one"

    assert _looks(Uptime(run_id), clock, 0, 2, 2, 2) == [0, 2, 0, 2]
