"""When the poller polls, and when it does not."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from offchainvm.bridge import poller as poller_module
from offchainvm.bridge.intake import Taken
from offchainvm.bridge.poller import Backlog, Poller
from offchainvm.errors import OffchainVMError, Unauthorized, Unavailable


class Script:
    """A Coordinator that answers one thing after the other, then stops the poller."""

    def __init__(self, *answers: bytes | OffchainVMError | None) -> None:
        self.answers, self.asked, self.stop = list(answers), list[float](), threading.Event()

    def poll(self, timeout_seconds: float) -> bytes | None:
        self.asked.append(timeout_seconds)
        answer = self.answers.pop(0)
        if not self.answers:
            self.stop.set()
        if isinstance(answer, OffchainVMError):
            raise answer
        return answer


class FakePauses:
    """A switch that allows as many polls as it is told, then says stop."""

    def __init__(self, script: Script, allowed: int = 1000) -> None:
        self.script, self.allowed, self.on_their_way = script, allowed, set[str]()

    def begin_poll(self, worker: str, poll: str, *, longest_seconds: float) -> bool:
        assert longest_seconds > 60, "the poll itself takes so long"
        assert poll.startswith(f"{worker}:")
        if not self.allowed:
            self.script.stop.set()
            return False
        self.allowed -= 1
        self.on_their_way.add(poll)
        return True

    def end_poll(self, poll: str) -> None:
        self.on_their_way.remove(poll)


class FakeIntake:
    def __init__(self) -> None:
        self.ready, self.bodies, self.answer = threading.Event(), list[bytes](), Taken.ACCEPTED
        self.ready.set()

    def take(self, untrusted_task: bytes) -> Taken:
        self.bodies.append(untrusted_task)
        return self.answer


def _poller(script: Script, intake: FakeIntake, store: Any, timeout_seconds: float = 60, pauses: Any = None) -> Poller:
    backlog = Backlog(store, store, high_water=10)
    return Poller(
        coordinator=cast("Any", script),
        intake=cast("Any", intake),
        backlog=backlog,
        pauses=pauses or FakePauses(script),
        worker="bridge-1",
        timeout_seconds=timeout_seconds,
        on_later=lambda: script.asked.append(-1),
    )


def test_every_task_goes_to_the_intake_also_the_one_in_hand_at_the_stop(store: Any) -> None:
    script, intake = Script(b"1", b"2", b"3"), FakeIntake()
    _poller(script, intake, store).run(script.stop)
    assert intake.bodies == [b"1", b"2", b"3"]


def test_what_stays_in_the_journal_is_told_before_its_poll_is_over(store: Any) -> None:
    script, intake = Script(b"1", None), FakeIntake()
    intake.answer = Taken.LATER
    _poller(script, intake, store).run(script.stop)
    assert script.asked == [60, -1, 60]


def test_a_paused_bridge_polls_no_more_and_what_it_polled_before_is_brought_in(store: Any) -> None:
    script, intake = Script(b"1", b"2", b"never asked for"), FakeIntake()
    pauses = FakePauses(script, allowed=2)
    _poller(script, intake, store, pauses=pauses).run(script.stop)
    assert (intake.bodies, pauses.on_their_way) == ([b"1", b"2"], set())


def test_a_pause_is_told_once_though_another_thread_meets_it_meanwhile(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script, told = Script(None), list[str]()
    poller = _poller(script, FakeIntake(), store, pauses=FakePauses(script, allowed=0))
    other = threading.Thread(target=poller._poll_unless_held_up)

    def tell(_text: str, *, action: str) -> None:
        told.append(action)
        if len(told) == 1:
            other.start()
            other.join(0.3)

    monkeypatch.setattr(poller_module.log, "warning", tell)
    poller._poll_unless_held_up()
    other.join()
    assert told == ["pause_polling"]


def test_a_coordinator_that_is_away_or_refuses_is_asked_again(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script, intake = Script(Unavailable("coordinator", "away"), Unauthorized("token", status=401), b"1"), FakeIntake()
    poller = _poller(script, intake, store)
    monkeypatch.setattr(poller._link, "down", lambda _error: 0.0)
    poller.run(script.stop)
    assert intake.bodies == [b"1"]


def test_a_stop_waits_for_the_longest_poll_that_is_asked_for(store: Any) -> None:
    assert _poller(Script(None), FakeIntake(), store, timeout_seconds=300).longest_poll_seconds == 120


def test_nothing_is_polled_before_the_journal_is_in_redis(store: Any) -> None:
    script, intake, stop = Script(b"1"), FakeIntake(), threading.Event()
    intake.ready.clear()
    thread = threading.Thread(target=_poller(script, intake, store).run, args=(stop,))
    thread.start()
    stop.set()
    thread.join()
    assert script.asked == []


def test_pages_instead_of_tasks_slow_the_poller_down(store: Any) -> None:
    poller = _poller(Script(None), FakeIntake(), store)
    pauses = [poller._pause_after(Taken.REJECTED) for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0
    assert poller._pause_after(Taken.ACCEPTED) == 0.0


def test_the_backlog_is_full_above_the_mark_until_well_below(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "_LOOK_EVERY_SECONDS", 0.0)
    backlog = Backlog(store, store, high_water=10)
    seen = []
    for queued in (9, 10, 9, 8, 7, 9):
        store.queued = queued
        seen.append(backlog.is_full())
    assert seen == [False, True, True, True, False, False]


def test_jobs_that_wait_for_a_signature_count_too(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "_LOOK_EVERY_SECONDS", 0.0)
    backlog = Backlog(store, store, high_water=10)
    seen = []
    for store.queued, store.waiting in ((4, 5), (4, 6), (0, 8), (0, 7)):
        seen.append(backlog.is_full())
    assert seen == [False, True, True, False]
