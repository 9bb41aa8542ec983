"""What ends a phase, seen by the worker that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from requests.exceptions import ReadTimeout
from urllib3.exceptions import ProtocolError

from offchainvm.compiler import follower

IDLE_SECONDS = 5.0
LATER = 1000.0


def wait(followed: SimpleNamespace, meanwhile: Callable[[], None], *, until: float) -> str:
    """Wait for a container that never ends; ``meanwhile`` happens while the worker waits for it."""

    def not_yet(**_: Any) -> None:
        meanwhile()
        raise ReadTimeout

    container: Any = SimpleNamespace(wait=not_yet, reload=lambda: None)
    untyped: Any = followed
    return follower.wait(container, until, IDLE_SECONDS, untyped)


@pytest.fixture
def followed() -> SimpleNamespace:
    return SimpleNamespace(last_output_at=time.monotonic() - LATER, ended=False)


def test_a_build_is_silent_when_it_still_is_after_another_look(followed: SimpleNamespace) -> None:
    assert wait(followed, lambda: None, until=time.monotonic() + LATER) == "no_output"


def test_a_worker_that_was_frozen_first_reads_what_was_printed_meanwhile(
    followed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def read() -> None:
        nonlocal now
        followed.last_output_at, now = now, now + 1

    assert wait(followed, read, until=now + 10) == "timeout"


def test_a_log_that_nobody_reads_any_more_is_no_silence(followed: SimpleNamespace) -> None:
    followed.ended = True

    assert wait(followed, lambda: None, until=time.monotonic() + 0.01) == "timeout"


class Stream:
    """The log of a container, which may break."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self._chunks, self._error = chunks, error
        self.left = ["stream", "response"]
        self._response = SimpleNamespace(close=lambda: self.left.remove("response"))

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._error:
            raise self._error

    def close(self) -> None:
        self.left.remove("stream")


def follow(stream: Stream, on_line: Callable[[str], None]) -> follower.Follower:
    container: Any = SimpleNamespace(logs=lambda **_: stream)
    with follower.Follower(container, on_line) as ended:
        pass
    assert not stream.left, "closed, however far it was read"
    return ended


def test_a_log_is_shown_to_its_end() -> None:
    lines = list[str]()

    ended = follow(Stream(b"one\ntw", b"o"), lines.append)

    assert lines == ["one", "two"]
    assert (ended.ended, ended.complete, ended.saw(b"one\ntwo")) == (True, True, True)


@pytest.mark.parametrize("end", [b"one\ntwo\nthree\n", b"", b"\x1b[2J\n"])
def test_a_stream_that_ends_before_its_log_does_was_not_followed_to_the_end(end: bytes) -> None:
    assert not follow(Stream(b"one\ntwo\n"), lambda line: None).saw(end)


def test_a_log_without_a_line_was_followed_to_its_end() -> None:
    assert follow(Stream(), lambda line: None).saw(b"")


def test_a_flood_is_followed_no_further() -> None:
    lines = list[str]()

    ended = follow(Stream(*[b"y\n" * 1000] * 30), lines.append)

    assert follower.FOLLOWED_LINES < len(lines) < follower.FOLLOWED_LINES + 2000
    assert (ended.ended, ended.complete) == (True, False)


@pytest.mark.parametrize("error", [ConnectionError("broken"), AttributeError("closed"), ProtocolError("cut")])
def test_a_stream_that_breaks_is_no_silence(error: Exception) -> None:
    ended = follow(Stream(b"one\n", error=error), lambda line: None)

    assert (ended.ended, ended.complete) == (True, False)


def test_a_listener_that_fails_is_no_silence() -> None:
    def fail(line: str) -> None:
        raise ZeroDivisionError

    ended = follow(Stream(b"one\n"), fail)

    assert (ended.ended, ended.complete) == (True, False)
