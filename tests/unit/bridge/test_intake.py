"""No polled task is lost, whatever Redis does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from offchainvm.bridge import intake as intake_module
from offchainvm.bridge.intake import Intake, Taken
from offchainvm.bridge.origins import Undecided
from offchainvm.errors import Unavailable
from offchainvm.jobs.record import State, UnreadableRecord
from offchainvm.journal import Journal


def _body(number: int) -> bytes:
    source = {"type": "GitHub", "repo": "a/b", "commit": "main", "build_target": None}
    task = {"type": "Compile", "request_id": number, "data_id": f"{number:064x}", "code_source": source, "resource_limits": None}
    return json.dumps({**task, "input_data": "{}"}).encode()


class FakeAdmission:
    def __init__(self, store: Any) -> None:
        self.store = store
        self.bug = self.undecided = False

    def admit(self, task: Any) -> Any:
        if self.undecided:
            raise Undecided("The chain is away.")
        if self.bug:
            raise KeyError("a bug")
        return self.store.accept(task)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, "bridge")
    yield journal
    journal.close()


@pytest.fixture
def make(store: Any) -> Callable[[Journal], Intake]:
    return lambda journal: Intake(journal=journal, store=store, admission=cast("Any", FakeAdmission(store)))


@pytest.fixture
def intake(make: Callable[[Journal], Intake], journal: Journal) -> Intake:
    intake = make(journal)
    intake.tend()
    return intake


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "_SETTLED_FOR_SECONDS", 0.0)


def test_a_task_is_on_disk_before_it_is_accepted(intake: Intake, journal: Journal, store: Any) -> None:
    seen = []
    accept = store.accept
    store.accept = lambda task: (seen.append(len(journal.entries())), accept(task))[1]
    assert intake.take(_body(1)) is Taken.ACCEPTED
    assert seen == [1]


def test_a_task_of_which_nothing_can_be_decided_yet_stays_on_disk_and_stops_no_other(
    store: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_DECIDE_SECONDS", 0.0)
    admission = FakeAdmission(store)
    intake = Intake(journal=journal, store=store, admission=cast("Any", admission))
    intake.tend()
    admission.undecided = True
    assert intake.take(_body(1)) is Taken.LATER
    intake.tend()
    assert (intake.ready.is_set(), len(journal.entries()), store.jobs) == (True, 1, {})
    admission.undecided = False
    intake.tend()
    assert list(store.jobs) == [f"{1:064x}"]


def test_a_task_polled_while_redis_is_away_is_brought_in_later(intake: Intake, store: Any) -> None:
    store.away = True
    assert intake.take(_body(1)) is Taken.LATER
    assert not intake.ready.is_set()
    with pytest.raises(Unavailable):
        intake.tend()
    store.away = False
    intake.tend()
    assert intake.ready.is_set()
    assert list(store.jobs) == [f"{1:064x}"]


def test_another_redis_gets_every_task_again_before_polling_goes_on(intake: Intake, store: Any) -> None:
    for number in range(3):
        intake.take(_body(number))
    store.jobs.clear()
    store.run_id = "run-2"
    intake.tend()
    assert len(store.jobs) == 3
    accepted = len(store.accepted)
    intake.tend()
    assert len(store.accepted) == accepted


def test_tasks_of_a_bridge_that_died_are_brought_in(
    make: Callable[[Journal], Intake], intake: Intake, journal: Journal, store: Any, tmp_path: Path
) -> None:
    store.away = True
    intake.take(_body(7))
    store.away = False
    journal.close()
    successor = Journal(tmp_path, "bridge")
    make(successor).tend()
    assert list(store.jobs) == [f"{7:064x}"]
    successor.close()


@pytest.mark.usefixtures("no_wait")
def test_a_task_leaves_the_journal_some_time_after_its_job_settled(intake: Intake, journal: Journal, store: Any) -> None:
    intake.take(_body(1))
    intake.take(_body(2))
    assert intake.sweep() == 0
    store.jobs[f"{1:064x}"].state = State.SETTLED
    assert intake.sweep() == 0
    assert len(journal.entries()) == 2
    assert intake.sweep() == 1
    assert len(journal.entries()) == 1


@pytest.mark.usefixtures("no_wait")
def test_a_job_that_redis_unsettled_is_kept(intake: Intake, journal: Journal, store: Any) -> None:
    intake.take(_body(1))
    store.jobs[f"{1:064x}"].state = State.SETTLED
    intake.sweep()
    store.jobs[f"{1:064x}"].state = State.QUEUED
    assert [intake.sweep(), len(journal.entries())] == [0, 1]


@pytest.mark.usefixtures("no_wait")
def test_a_record_of_a_newer_version_is_kept_and_stops_no_sweep(
    intake: Intake, journal: Journal, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(data_id: str) -> Any:
        if data_id == f"{1:064x}":
            raise UnreadableRecord("written by a newer version")
        return SimpleNamespace(state=State.SETTLED)

    for number in (1, 2):
        intake.take(_body(number))
    monkeypatch.setattr(store, "get", get)
    assert [intake.sweep() for _ in range(3)] == [0, 1, 0]
    assert len(journal.entries()) == 1


@pytest.mark.usefixtures("no_wait")
def test_a_record_past_its_retention_ends_by_its_tombstone(intake: Intake, journal: Journal, store: Any) -> None:
    intake.take(_body(1))
    store.jobs.clear()
    store.tombs.add(f"{1:064x}")
    intake.sweep()
    intake.tend()
    intake.sweep()
    intake.sweep()
    assert journal.entries() == []
    assert len(store.accepted) == 2


def test_a_record_that_was_forgotten_is_made_again(intake: Intake, store: Any) -> None:
    intake.take(_body(1))
    store.jobs.clear()
    intake.sweep()
    intake.tend()
    assert list(store.jobs) == [f"{1:064x}"]


def test_what_cannot_be_read_is_set_aside_with_its_request_id(intake: Intake, journal: Journal, store: Any) -> None:
    assert intake.take(b'{"type":"Compile","request_id":9}') is Taken.REJECTED
    assert intake.take(b"<html>") is Taken.REJECTED
    assert [(body, request_id) for body, _, request_id in store.rejections] == [
        (b'{"type":"Compile","request_id":9}', 9),
        (b"<html>", None),
    ]
    assert journal.entries() == []


def test_what_cannot_be_set_aside_now_is_later(intake: Intake, journal: Journal, store: Any) -> None:
    store.away = True
    assert intake.take(b"<html>") is Taken.LATER
    store.away = False
    intake.tend()
    assert len(store.rejections) == 1
    assert journal.entries() == []


def test_a_full_disk_does_not_lose_a_task(intake: Intake, journal: Journal, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise Unavailable("journal", "The journal cannot be written.")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", full)
        assert intake.take(_body(1)) is Taken.ACCEPTED
    assert len(store.jobs) == 1


def test_one_task_that_meets_a_bug_holds_up_no_other(journal: Journal, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    admission = FakeAdmission(store)
    intake = Intake(journal=journal, store=store, admission=cast("Any", admission))
    intake.tend()
    admission.bug = True
    assert intake.take(_body(1)) is Taken.LATER
    admission.bug = False
    assert intake.take(_body(2)) is Taken.ACCEPTED
    intake.tend()
    assert intake.ready.is_set()
    assert list(store.jobs) == [f"{2:064x}"]
    intake._again_at.clear()
    intake.tend()
    assert len(store.jobs) == 2
