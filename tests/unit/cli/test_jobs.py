"""`offchainvm jobs` over records that a table holds."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from offchainvm.cli import jobs as command
from offchainvm.jobs.lookups import Rejected
from offchainvm.jobs.record import Event, Job, Message, Stage, State, ToResolve
from offchainvm.jobs.store import CancelAnswer, RetryAnswer

Run = Callable[..., tuple[int, str, str]]


class Records:
    """The part of a JobStore that the command uses."""

    def __init__(self, jobs: list[Job], history: list[Event]) -> None:
        self.jobs, self._history = jobs, history
        self.answer, self.cancel_answer = RetryAnswer.QUEUED, CancelAnswer.CANCELLED
        self.cancelled_with: list[tuple[str, ToResolve]] = []
        self.asked: list[tuple[State | None, int]] = []
        self.set_aside: list[Rejected] = []
        self.messages: list[Message] = []

    def rejected(self, limit: int = 100) -> list[Rejected]:
        return self.set_aside[:limit]

    def aside(self, limit: int = 100) -> list[Message]:
        return self.messages[:limit]

    def list_jobs(self, state: State | None = None, limit: int = 50) -> list[Job]:
        self.asked.append((state, limit))
        return [job for job in self.jobs if state in (None, job.state)][:limit]

    def get(self, data_id: str) -> Job | None:
        return next((job for job in self.jobs if job.data_id == data_id), None)

    def by_request_id(self, request_id: int) -> Job | None:
        return next((job for job in self.jobs if job.request_id == request_id), None)

    def by_transaction(self, hash: str) -> list[Job]:
        return [job for job in self.jobs if job.transaction_hash == hash]

    def by_repository(self, repository: str, limit: int = 50) -> list[Job]:
        return [job for job in self.jobs if job.source and job.source.repo.endswith(f"/{repository}")][:limit]

    def by_sender(self, sender_id: str, limit: int = 50) -> list[Job]:
        return [job for job in self.jobs if job.sender_id == sender_id][:limit]

    def cancel(self, data_id: str, answer: ToResolve) -> CancelAnswer:
        self.cancelled_with.append((data_id, answer))
        return self.cancel_answer

    def history(self, _data_id: str) -> list[Event]:
        return self._history

    def retry(self, _data_id: str) -> RetryAnswer:
        return self.answer


@pytest.fixture
def records(make_job: Callable[..., Job], history: list[Event], monkeypatch: pytest.MonkeyPatch) -> Records:
    table = Records(
        [make_job(), make_job(data_id="abcd" * 16, request_id=8, state=State.RUNNING, verdict=None, transaction_hash=None)], history
    )
    monkeypatch.setattr(command, "store", lambda: table)
    monkeypatch.setattr(command, "outbox", lambda: table)
    return table


def test_a_job_without_the_command_before_it_is_answered_with_the_command(run: Run, records: Records) -> None:
    code, _, err = run("jobs", "17")
    assert code == 2
    assert "offchainvm jobs show 17" in err


@pytest.mark.parametrize("words", [("--state", "parked"), ("nobody.near",)])
def test_a_search_that_finds_nothing_does_not_say_that_there_is_nothing(run: Run, records: Records, words: tuple[str, ...]) -> None:
    assert run("jobs", "list", *words)[:2] == (0, "No matching jobs.\n")


def test_an_empty_house_says_where_jobs_come_from(run: Run, records: Records) -> None:
    records.jobs = []
    assert "They come from the Coordinator" in run("jobs", "list")[1]


def test_without_a_word_the_newest_jobs_are_listed(run: Run, records: Records) -> None:
    code, out, _ = run("jobs")
    assert code == 0
    assert "abababababab" in out
    assert records.asked == [(None, 20)]


def test_a_list_by_state_as_json(run: Run, records: Records) -> None:
    code, out, _ = run("jobs", "list", "--state", "running", "--limit", "5", "--json")
    assert code == 0
    assert [job["request_id"] for job in json.loads(out)] == [8]
    assert records.asked == [(State.RUNNING, 5)]


def test_no_jobs_is_no_error(run: Run, records: Records) -> None:
    records.jobs.clear()
    code, out, _ = run("jobs")
    assert code == 0
    assert "No jobs" in out


@pytest.mark.parametrize("identifier", ["7", "ab" * 32, "AB" * 32, "abab"])
def test_a_job_is_found_by_request_id_data_id_or_its_beginning(run: Run, records: Records, identifier: str) -> None:
    code, out, _ = run("jobs", "show", identifier)
    assert code == 0
    assert "ab" * 32 in out
    assert "building" in out


def test_a_job_with_its_stages_as_json(run: Run, records: Records) -> None:
    told = json.loads(run("jobs", "show", "7", "--json")[1])
    assert told["response"]["return_value"] == list(b"42")
    assert [event["what"] for event in told["history"]] == ["accepted", "building", "done", "accepted"]
    assert "input_data" not in told


@pytest.mark.parametrize(
    ("identifier", "text"), [("ab", "2 jobs are called 'ab'"), ("99", "No job is called '99'"), ("ff" * 32, "No job is called")]
)
def test_what_names_no_job_or_several_is_said(run: Run, records: Records, identifier: str, text: str) -> None:
    code, _, err = run("jobs", "show", identifier)
    assert code == 1
    assert text in err


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (RetryAnswer.QUEUED, 0, "Queued again"),
        (RetryAnswer.BUSY, 1, "queued or running already"),
        (RetryAnswer.CARRIED, 1, "must never follow"),
        (RetryAnswer.UNKNOWN, 1, "no such job"),
    ],
)
def test_retry_says_what_it_did(run: Run, records: Records, answer: RetryAnswer, code: int, text: str) -> None:
    records.answer = answer
    ended, out, _ = run("jobs", "retry", "7")
    assert (ended, text in out) == (code, True)
    assert json.loads(run("jobs", "retry", "7", "--json")[1]) == {"data_id": "ab" * 32, "answer": answer.value}


@pytest.mark.parametrize("identifier", ["examples/word-count", "https://github.com/examples/word-count.git", "Hash", "alice.near"])
def test_jobs_are_found_by_repository_transaction_and_sender(run: Run, records: Records, identifier: str) -> None:
    records.jobs[:] = [replace(records.jobs[0], sender_id="alice.near"), replace(records.jobs[1], source=None)]
    assert [job["request_id"] for job in json.loads(run("jobs", "list", identifier, "--json")[1])] == [7]
    assert json.loads(run("jobs", "show", identifier, "--json")[1])["sender_id"] == "alice.near"
    assert "alice.near" in run("jobs", "show", identifier)[1]
    assert json.loads(run("jobs", "list", identifier, "--state", "running", "--json")[1]) == []


def test_several_jobs_of_a_repository_are_not_one(run: Run, records: Records) -> None:
    code, _, err = run("jobs", "cancel", "examples/word-count")
    assert (code, records.cancelled_with) == (1, [])
    assert "2 jobs are called" in err
    assert "offchainvm jobs list examples/word-count" in err


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (CancelAnswer.CANCELLED, 0, "Cancelled"),
        (CancelAnswer.BUSY, 1, "being signed"),
        (CancelAnswer.CARRIED, 1, "must never follow"),
        (CancelAnswer.SETTLED, 1, "is settled"),
        (CancelAnswer.UNKNOWN, 1, "no such job"),
    ],
)
def test_cancel_says_what_it_did_and_answers_the_contract(run: Run, records: Records, answer: CancelAnswer, code: int, text: str) -> None:
    records.cancel_answer = answer
    ended, out, _ = run("jobs", "cancel", "8")
    assert (ended, text in out) == (code, True)
    assert json.loads(run("jobs", "cancel", "8", "--json")[1]) == {"data_id": "abcd" * 16, "answer": answer.value}
    data_id, step = records.cancelled_with[0]
    assert (data_id, step.response.success) == ("abcd" * 16, False)
    assert (step.response.error or "").startswith("cancelled: ")
    assert step.report.request_id == 8


HOSTILE = b'{"type":"Dance","x":"\x1b[2J[red]\xff"}'


def test_where_nothing_was_set_aside_it_is_said(run: Run, records: Records) -> None:
    assert run("jobs", "rejected") == (0, "Nothing was set aside.\n", "")


def test_what_was_set_aside_is_shown_and_draws_nothing_of_its_own(run: Run, records: Records) -> None:
    records.set_aside = [
        Rejected(1_700_000_000.0, 12, "type: \x1b[31munknown", HOSTILE),
        Rejected(1_700_000_000.0, None, "no JSON", b"<html>"),
    ]
    records.messages = [Message(Stage.EXECUTE, ("ab" * 32,), "1700000000000-0", 10)]
    code, out, _ = run("jobs", "rejected")
    assert code == 0
    assert "\x1b[2J" not in out
    assert "\x1b[31m" not in out
    for text in ("12", "unknown", "[2J[red]", "no JSON", "<html>", "execute", "abababababab", "reconciler"):
        assert text in out


def test_what_was_set_aside_as_json_has_every_byte(run: Run, records: Records) -> None:
    records.set_aside = [Rejected(1_700_000_000.0, 12, "type: unknown", HOSTILE)]
    records.messages = [Message(Stage.EXECUTE, ("ab" * 32,), "1700000000000-0", 10)]
    told = json.loads(run("jobs", "rejected", "--limit", "5", "--json")[1])
    assert [(task["request_id"], base64.b64decode(task["task_base64"])) for task in told["tasks"]] == [(12, HOSTILE)]
    assert told["messages"] == [{"at": 1_700_000_000.0, "stage": "execute", "data_ids": ["ab" * 32], "attempt": 0}]
