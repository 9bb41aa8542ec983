"""What is drawn, and that a stranger's text draws nothing of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.console import Console

from offchainvm.cli import report
from offchainvm.jobs.record import Event, Job, State
from offchainvm.models import ExecutionResponse
from offchainvm.times import duration, moment


def drawn(thing: object) -> str:
    console = Console(width=160, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[31mb", "a·[31mb"), ("x\ny\r\t", "x·y··"), ("\u202eabc", "·abc"), ("[bold]x[/]", "[bold]x[/]")]
)
def test_untrusted_text_is_shown_as_text(text: str, shown: str) -> None:
    assert drawn(report.untrusted(text)).rstrip("\n") == shown


def test_untrusted_text_is_cut() -> None:
    assert report.untrusted("x" * 500, limit=10) == "x" * 10 + "…"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0124, "12 ms"), (1.26, "1.3 s"), (119, "119.0 s"), (600, "10.0 min"), (7200, "2.0 h"), (200_000, "2.3 d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(b"42", "42"), (b"\xff\x00", "2 bytes: ff00"), (b"\xff" * 40, "40 bytes: " + "ff" * 32 + "…")])
def test_values_that_are_no_text_are_shown_in_hex(value: bytes, text: str) -> None:
    assert report.value_text(value) == text


def test_the_facts_of_a_job(make_job: Callable[..., Job]) -> None:
    text = drawn(report.job_facts(make_job()))
    for part in (
        "7",
        "ab" * 32,
        "accepted",
        "examples/word-count@cccccccccccc",
        "1,000 instructions, 16 MiB, 2 s",
        "max_memory_mb",
        "1200",
        "42",
        "Hash",
    ):
        assert part in text
    assert "secret of the requester" not in text


def test_a_failure_is_told_with_what_to_do_and_the_attempt_counts_from_one(make_job: Callable[..., Job]) -> None:
    failed = ExecutionResponse(success=False, error="repo_not_found: there is no such repository")
    text = " ".join(drawn(report.job_facts(make_job(response=failed))).split())
    assert "what to do Check the repository's name" in text
    assert "attempt 1" in text


def test_times_are_told_with_their_day(make_job: Callable[..., Job], history: list[Event]) -> None:
    day = moment(1_700_000_000.0).partition(" ")[0]
    assert day in drawn(report.jobs_table([make_job()]))
    assert drawn(report.timeline(history)).count(day) == len(history)


def test_a_strangers_text_in_a_row_of_doctor_is_shown_as_text() -> None:
    text = drawn(report.checks_table([(False, "Redis", "one\x1b[31m\n[bold]two", "three\x1b[0m")]))
    assert "\x1b" not in text
    assert [shown in text for shown in ("one·[31m", "[bold]two", "→ three·[0m")] == [True] * 3


def test_a_failed_answer_is_told_as_failed(make_job: Callable[..., Job]) -> None:
    job = make_job(response=ExecutionResponse(success=False, error="trap: \x1b[2Jit trapped"))
    assert report.verdict_of(job) == "accepted, failed"
    assert "trap: ·[2Jit trapped" in drawn(report.job_facts(job))


def test_a_list_has_a_row_for_each_job(make_job: Callable[..., Job]) -> None:
    text = drawn(report.jobs_table([make_job(), make_job(request_id=8, state=State.RUNNING, verdict=None, source=None)]))
    assert text.count("abababababab") == 2
    assert "running" in text
    assert "source key dddddddddddd…" in text


def test_a_time_line_has_a_bar_where_the_time_went(history: list[Event]) -> None:
    lines = drawn(report.timeline(history)).splitlines()
    bars = [line.count("▇") for line in lines[1:]]
    assert len(bars) == 4
    assert bars[1] == max(bars)
    assert min(bars) >= 1
    assert "9.0 s" in lines[4]


def test_an_empty_history_and_one_moment_can_be_drawn(history: list[Event]) -> None:
    assert "stage" in drawn(report.timeline([]))
    assert "accepted" in drawn(report.timeline(history[:1]))


def test_checks_show_their_remedy() -> None:
    text = drawn(
        report.checks_table([(True, "Redis", "fine", ""), (False, "RPC", "away [x]", "Start it."), (None, "Docker", "not asked", "")])
    )
    assert [line.split()[0] for line in text.splitlines() if line.strip() and not line.strip().startswith("→")] == ["ok", "WRONG", "-"]
    assert "→ Start it." in text
    assert "away [x]" in text
