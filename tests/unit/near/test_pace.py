"""The rate of requests to the block service, on a clock of its own."""

from __future__ import annotations

import pytest

from offchainvm.near import transport
from offchainvm.near.transport import Pace


class Clock:
    """Stands still but for those who sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(transport, "time", clock)
    return clock


def test_requests_keep_to_their_rate_and_a_pause_saves_nothing_up(clock: Clock) -> None:
    pace = Pace(180)
    for _ in range(181):
        pace.wait()
    assert clock.now == pytest.approx(1060)
    clock.sleep(600)
    began = clock.now
    for _ in range(4):
        pace.wait()
    assert clock.now - began == pytest.approx(1)


@pytest.mark.parametrize(("per_minute", "after_one", "after_many"), [(180, 90, 6), (600_000, 600, 6), (2, 2, 2)])
def test_a_429_halves_the_rate_down_to_a_least_and_good_answers_bring_it_back(per_minute: int, after_one: float, after_many: float) -> None:
    pace = Pace(per_minute)
    pace.slower()
    assert pace.per_minute == pytest.approx(after_one)
    for _ in range(20):
        pace.slower()
    assert pace.per_minute == pytest.approx(after_many)
    for _ in range(2000):
        pace.faster()
    assert pace.per_minute == pytest.approx(per_minute)
