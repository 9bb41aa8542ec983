"""What ends a phase, seen by the worker that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from requests.exceptions import ReadTimeout

from offchainvm.compiler import sandbox

IDLE_SECONDS = 5.0
LATER = 1000.0


def wait(follower: SimpleNamespace, meanwhile: Callable[[], None], *, until: float) -> str:
    """Wait for a container that never ends; ``meanwhile`` happens while the worker waits for it."""

    def not_yet(**_: Any) -> None:
        meanwhile()
        raise ReadTimeout

    container: Any = SimpleNamespace(wait=not_yet, reload=lambda: None)
    untyped: Any = follower
    return sandbox._wait(container, until, IDLE_SECONDS, untyped)


@pytest.fixture
def follower() -> SimpleNamespace:
    return SimpleNamespace(last_output_at=time.monotonic() - LATER, flooded=False)


def test_a_build_is_silent_when_it_still_is_after_another_look(follower: SimpleNamespace) -> None:
    assert wait(follower, lambda: None, until=time.monotonic() + LATER) == "no_output"


def test_a_worker_that_was_frozen_first_reads_what_was_printed_meanwhile(
    follower: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def read() -> None:
        nonlocal now
        follower.last_output_at, now = now, now + 1

    assert wait(follower, read, until=now + 10) == "timeout"


def test_a_log_that_nobody_reads_any_more_is_no_silence(follower: SimpleNamespace) -> None:
    follower.flooded = True

    assert wait(follower, lambda: None, until=time.monotonic() + 0.01) == "timeout"
