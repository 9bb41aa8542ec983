"""Parts run side by side, are started again when they die, and stop in order."""

from __future__ import annotations

import re
import threading
import time

import pytest

from offchainvm import health
from offchainvm.bridge import service as service_module
from offchainvm.bridge.service import Part, Service
from offchainvm.readiness import Readiness


def test_a_part_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_LONGEST_RESTART_SECONDS", 0.0)
    lives, third = list[int](), threading.Event()

    def fragile(stop: threading.Event) -> None:
        lives.append(1)
        if len(lives) < 3:
            raise KeyError("a bug")
        third.set()
        stop.wait()

    service = Service([Part("fragile", fragile)], name="test")
    service.start()
    assert third.wait(10)
    service.stop()
    assert len(lives) == 3


def test_a_part_that_dies_again_and_again_is_named_by_readiness_and_one_that_died_once_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_loops", {})
    monkeypatch.setattr(health, "_readiness", Readiness())
    monkeypatch.setattr(service_module, "_LONGEST_RESTART_SECONDS", 0.5)
    died, lives = threading.Semaphore(0), list[int]()

    def broken(_stop: threading.Event) -> None:
        died.release()
        raise KeyError("s3cret")

    def unlucky(stop: threading.Event) -> None:
        lives.append(1)
        if len(lives) == 1:
            raise ValueError
        stop.wait()

    service = Service([Part("broken", broken), Part("unlucky", unlucky)], name="test")
    service.start()
    for _ in range(4):
        assert died.acquire(timeout=10)
    (parts,) = [check for check in health.ready() if check.name == "parts"]
    service.stop()
    assert not parts.ok
    assert re.fullmatch(r"broken died \d times in a row, last of KeyError\.", parts.detail)


def test_a_part_that_works_again_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths, now = service_module._Deaths(), [1000.0]
    monkeypatch.setattr(service_module.time, "monotonic", lambda: now[0])
    for _ in range(3):
        deaths.begin()
        deaths.note(KeyError())
    assert str(deaths) == "3 times in a row, last of KeyError"
    deaths.begin()
    now[0] += 31
    assert str(deaths) == ""


def test_what_brings_work_in_stops_before_the_rest() -> None:
    order, closed = list[str](), list[str]()

    def part(name: str) -> Part:
        def run(stop: threading.Event) -> None:
            stop.wait()
            order.append(name)

        return Part(name, run, intake=name.startswith("poller"))

    service = Service([part("relay"), part("poller-1"), part("poller-2")], name="test", on_stop=[lambda: closed.append("journal")])
    service.start()
    service.stop()
    assert sorted(order[:2]) == ["poller-1", "poller-2"]
    assert order[2] == "relay"
    assert closed == ["journal"]


def test_a_part_that_hangs_does_not_hold_up_the_end() -> None:
    release = threading.Event()
    service = Service([Part("hangs", lambda _stop: release.wait() and None, grace_seconds=0.05)], name="test")
    service.start()
    service.stop()
    assert service._threads["hangs"].is_alive()
    release.set()


def test_a_part_that_hangs_makes_the_process_not_live_and_one_that_waits_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_loops", {})
    hung, release = threading.Event(), threading.Event()

    def hangs(_stop: threading.Event) -> None:
        hung.set()
        release.wait()

    def waits(stop: threading.Event) -> None:
        while not stop.wait(0.01):
            pass

    service = Service([Part(run.__name__, run, grace_seconds=0.1, patience_seconds=1.0) for run in (hangs, waits)], name="test")
    service.start()
    assert hung.wait(10)
    deadline = time.monotonic() + 30
    while health.is_live():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [(result.name, result.ok) for result in health.live()] == [("hangs", False), ("waits", True)]
    release.set()
    service.stop()
