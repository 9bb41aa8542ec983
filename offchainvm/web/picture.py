"""A job's history as spans of time: at which stage it was, and whether somebody worked on it or it waited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from offchainvm.jobs.record import Event, Job, Stage, State

_WORK = frozenset({"claimed", "building", "signed"})
"""Events after which somebody (for a signed answer: the chain) works on the job; after all others it waits."""


@dataclass(frozen=True)
class Span:
    """Part of a row; ``begin`` and ``length`` are fractions of the whole picture."""

    work: bool
    begin: float
    length: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One stage."""

    stage: str
    spans: tuple[Span, ...]

    @property
    def work_seconds(self) -> float:
        return sum(span.seconds for span in self.spans if span.work)

    @property
    def wait_seconds(self) -> float:
        return sum(span.seconds for span in self.spans if not span.work)


@dataclass(frozen=True)
class Picture:
    """All stages that the job has been at, on one time line of ``seconds``."""

    seconds: float
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Part:
    stage: str
    work: bool
    begin: float
    end: float


def draw(job: Job, history: Sequence[Event], *, now: float) -> Picture:
    """The picture of a job; ``now`` (seconds since 1970) ends it where the job is not settled."""
    end = Event(max(now, history[-1].at), job.stage.value, "", "") if history and job.state is not State.SETTLED else None
    events = [*history, *([end] if end else [])]
    if len(events) < 2:
        return Picture(0.0, ())
    parts = _joined([_part(one, following) for one, following in pairwise(events)])
    start, whole = events[0].at, max(events[-1].at - events[0].at, 1e-3)
    return Picture(whole, tuple(row for stage in Stage if (row := _row(stage.value, parts, start, whole)).spans))


def _part(event: Event, following: Event) -> _Part:
    work = event.what in _WORK
    # What was done at one stage waits for the next one.
    return _Part(event.stage if work else following.stage, work, event.at, max(event.at, following.at))


def _joined(parts: Sequence[_Part]) -> list[_Part]:
    joined: list[_Part] = []
    for part in parts:
        if joined and (joined[-1].stage, joined[-1].work) == (part.stage, part.work):
            joined[-1] = replace(joined[-1], end=part.end)
        else:
            joined.append(part)
    return joined


def _row(stage: str, parts: Sequence[_Part], start: float, whole: float) -> Row:
    spans = (Span(part.work, (part.begin - start) / whole, (part.end - part.begin) / whole, part.end - part.begin)
             for part in parts if part.stage == stage)  # fmt: skip
    return Row(stage, tuple(spans))
