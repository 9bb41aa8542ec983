"""The lease of the job in hand: kept while the work lives, and no longer than its stage may last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from offchainvm.errors import Unavailable
from offchainvm.jobs.record import Claim
from offchainvm.tasks import lease
from offchainvm.tasks.lease import LeaseKeeper

LEASE_SECONDS = 0.06


class Store:
    """Counts renewals; answers as it is told, then that the claim is still ours."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.renewed_at: list[float] = []

    def renew(self, _claim: Claim, *, lease_seconds: float) -> bool:
        self.renewed_at.append(time.monotonic())
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(lease, "SLOW_SECONDS", 0.1)


def keeper(store: Any, *, hard_limit_seconds: float = 60) -> LeaseKeeper:
    return LeaseKeeper(store, lease_seconds=LEASE_SECONDS, hard_limit_seconds=hard_limit_seconds)


def nothing() -> None:
    """What a test does not ask about."""


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_lease_is_renewed_while_the_work_runs_and_not_after(make_claim: Callable[..., Claim]) -> None:
    store = Store()
    with keeper(store).keeping(make_claim(), on_slow=nothing, on_lost=nothing):
        wait_for(lambda: len(store.renewed_at) >= 3)
    time.sleep(0.05)  # a renewal may be under way at the end
    done = len(store.renewed_at)
    time.sleep(3 * LEASE_SECONDS)
    assert len(store.renewed_at) == done


def test_renewal_of_frozen_work_stops_at_the_hard_limit(make_claim: Callable[..., Claim]) -> None:
    store = Store()
    for age_seconds, renewals in ((30, 1), (61, 1)):
        began = time.monotonic() - age_seconds
        keeper(store, hard_limit_seconds=60)._look_after(lease._InHand(make_claim(), nothing, nothing, started=began, renewed=began))
        assert len(store.renewed_at) == renewals


def test_a_lost_claim_is_told_once_and_not_renewed_again(make_claim: Callable[..., Claim]) -> None:
    store, told = Store(True, False), []
    with keeper(store).keeping(make_claim(), on_slow=nothing, on_lost=lambda: told.append(len(store.renewed_at))):
        wait_for(lambda: told)
        time.sleep(5 * LEASE_SECONDS)
    assert told == [2]
    assert len(store.renewed_at) == 2


def test_a_redis_that_is_away_is_asked_again(make_claim: Callable[..., Claim]) -> None:
    store = Store(Unavailable("redis", "away"), RuntimeError("what nobody expected"))
    with keeper(store).keeping(make_claim(), on_slow=nothing, on_lost=nothing):
        wait_for(lambda: len(store.renewed_at) >= 4)


def test_a_slow_job_is_told_once(make_claim: Callable[..., Claim]) -> None:
    told: list[float] = []
    with keeper(Store()).keeping(make_claim(), on_slow=lambda: told.append(time.monotonic()), on_lost=nothing):
        wait_for(lambda: told)
        time.sleep(0.1)
    assert len(told) == 1
