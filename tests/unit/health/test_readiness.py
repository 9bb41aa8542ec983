"""Checks of what a process needs: side by side, bounded, and not more often than needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from offchainvm import readiness
from offchainvm.errors import Unavailable
from offchainvm.readiness import Readiness


class Service:
    """Counts how often it is asked; hangs while ``free`` is not set."""

    def __init__(self) -> None:
        self.free, self.asked, self.away = threading.Event(), 0, False

    def __call__(self) -> None:
        self.asked += 1
        assert self.free.wait(20)
        if self.away:
            raise Unavailable("it", "It is away.", remedy="Start it.")


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.free.set()


def test_a_check_that_hangs_is_named_asked_once_and_holds_up_no_other(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Readiness()
    checks.add("docker", service, kept_seconds=60)
    checks.add("redis", lambda: "well", kept_seconds=60)
    monkeypatch.setattr(readiness, "WAIT_SECONDS", 0.05)
    for _ in range(3):
        docker, redis = checks.results()
        assert (docker.name, docker.ok, redis.ok, redis.detail) == ("docker", False, True, "well")
        assert "has not answered" in docker.detail
        assert docker.remedy
    assert service.asked == 1
    monkeypatch.setattr(readiness, "WAIT_SECONDS", 20)
    service.free.set()
    assert checks.results()[0].ok
    assert service.asked == 1


@pytest.mark.parametrize(("away", "kept"), [(False, 60), (True, readiness.FAILURE_KEPT_SECONDS)])
def test_an_answer_is_given_again_while_it_is_young_and_a_failure_not_for_long(
    service: Service, monkeypatch: pytest.MonkeyPatch, away: bool, kept: float
) -> None:
    now, checks = [1000.0], Readiness()
    monkeypatch.setattr(readiness.time, "monotonic", lambda: now[0])
    service.away = away
    service.free.set()
    checks.add("docker", service, kept_seconds=60)
    assert [checks.results()[0].ok for _ in range(3)] == [not away] * 3
    now[0] += kept - 0.1
    checks.results()
    assert service.asked == 1
    now[0] += 0.2
    checks.results()
    assert service.asked == 2
