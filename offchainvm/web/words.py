"""How times, sizes and strangers' texts are written on a page: the filters of the templates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timezone
from typing import Any

from offchainvm import times
from offchainvm.compiler.logtext import clean_line, clean_text
from offchainvm.jobs.record import Job

_RESULT_BYTES = 64 * 1024


def line(untrusted_text: str) -> str:
    """One line of printable characters, at most 400; the template escapes it."""
    return clean_line(" ".join(untrusted_text[:4000].split("\n")).encode("utf-8", "replace"))


def lines(untrusted_text: str) -> str:
    """The last 40 lines of it, each as ``line``."""
    return clean_text(untrusted_text.encode("utf-8", "replace"))


def value(untrusted_value: bytes) -> str:
    """What a program returned: as text where it is text."""
    try:
        shown = clean_text(untrusted_value[:_RESULT_BYTES].decode().encode())
    except UnicodeDecodeError:
        shown = f"{untrusted_value[:64].hex(' ')}{' …' if len(untrusted_value) > 64 else ''}"
    return shown


def moment(at: float) -> str:
    """Day and time of day in UTC."""
    return times.moment(at, timezone.utc)


def source(job: Job) -> str:
    """Where its program comes from, in short."""
    return line(job.untrusted_origin.removeprefix("https://github.com/"))


def outcome(job: Job) -> str:
    """How a job stands: ``ok``, ``failed`` or ``open``."""
    if job.verdict is None:
        return "open"
    return "ok" if job.verdict.value == "accepted" and job.response is not None and job.response.success else "failed"


FILTERS: dict[str, Callable[..., Any]] = {
    one.__name__: one for one in (line, lines, value, moment, times.duration, source, outcome)
}  # fmt: skip
