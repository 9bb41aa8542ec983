"""From a history to the spans of a picture."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest

from offchainvm.errors import BuildCode, JobCode, Status
from offchainvm.jobs.record import Event, Job, Stage, State, fixed_text, parse_job
from offchainvm.remedies import REMEDIES, remedy_of
from offchainvm.web.picture import Picture, draw
from offchainvm.web.words import line, lines, value


def job(**changes: Any) -> Job:
    record = {"fixed": fixed_text(data_id="a" * 64, request_id=1), "stage": "resolve", "state": "settled"}
    return dataclasses.replace(parse_job(record), **changes)


def events(*told: tuple[float, str, str]) -> list[Event]:
    return [Event(at, stage, what, "") for at, stage, what in told]


WHOLE = events(
    (0, "compile", "accepted"), (2, "compile", "claimed"), (3, "compile", "building"), (10, "compile", "done"), (11, "execute", "claimed"),
    (15, "execute", "done"), (16, "resolve", "signed"), (20, "resolve", "accepted"),
)  # fmt: skip


def sums(picture: Picture) -> dict[str, tuple[float, float]]:
    return {row.stage: (row.work_seconds, row.wait_seconds) for row in picture.rows}


def test_work_stands_apart_from_waits_at_each_stage() -> None:
    picture = draw(job(), WHOLE, now=10**9)
    assert picture.seconds == 20
    assert sums(picture) == {"compile": (8, 2), "execute": (4, 1), "resolve": (4, 1)}
    assert [len(row.spans) for row in picture.rows] == [2, 2, 2]  # claimed and building are one bar
    assert sum(span.length for row in picture.rows for span in row.spans) == pytest.approx(1)


def test_bars_fill_the_line_without_gap_or_overlap() -> None:
    spans = sorted((span for row in draw(job(), WHOLE, now=0).rows for span in row.spans), key=lambda span: span.begin)
    assert spans[0].begin == 0
    for one, following in pairwise(spans):
        assert one.begin + one.length == pytest.approx(following.begin)


def test_a_job_under_way_is_drawn_until_now() -> None:
    running = draw(job(state=State.RUNNING, stage=Stage.EXECUTE), WHOLE[:5], now=41)
    assert sums(running)["execute"] == (30, 1)


def test_clocks_that_disagree_and_unknown_events_are_no_error() -> None:
    odd = events((5, "execute", "accepted"), (4, "execute", "claimed"), (4, "execute", "from_a_newer_version"), (9, "resolve", "expired"))
    assert sums(draw(job(), odd, now=0))["execute"] == (0, 0)
    assert draw(job(), [], now=1).rows == ()
    assert draw(job(), WHOLE[:1], now=1).rows == ()


def test_every_way_to_fail_has_a_remedy() -> None:
    codes = {one.value for kind in (BuildCode, Status, JobCode) for one in kind} - {"ok"}
    assert set(REMEDIES) == codes
    assert all(text.endswith((".", "?")) or "`" in text for text in REMEDIES.values())
    assert "instructions" in remedy_of("out_of_fuel: all 10 instructions were used")
    assert remedy_of("<script>: x") == remedy_of("") == ""


def test_strangers_texts_lose_what_a_terminal_or_a_reader_would_be_misled_by() -> None:
    hostile = "\x1b[31mred\x1b[0m\x1b]0;title\x07 \u202eevil\u202c \u200bzero\x00 end"
    assert line(hostile) == "red evil zero end"
    assert lines(f"{hostile}\n\n{hostile}") == "red evil zero end\nred evil zero end"
    assert value(hostile.encode()) == "red evil zero end"
    assert line("one\ntwo") == "one two"
    assert line("lone \ud800 surrogate").isprintable()


def test_endless_lines_are_cut() -> None:
    assert len(line("x" * 300_000)) == 400
    assert len(lines(("y" * 300_000 + "\n") * 3)) <= 3 * 401
    assert len(value(b"z" * 300_000)) <= 400
    assert value(b"\xff\x00") == "ff 00"
