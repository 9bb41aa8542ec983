"""What does not compile is not tried again, where it was the module's doing."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from offchainvm.engine.failures import Failures
from offchainvm.engine.limits import CompileLimits
from offchainvm.engine.machine import invalid, too_complex
from offchainvm.engine.process import Ending
from offchainvm.errors import ExecutionError, Status

TOLD = Ending(head={"status": "told"}, blobs=[], exit_code=0, wall_ms=5.0)


def ended(**seen: Any) -> Ending:
    return Ending(**{"head": {}, "blobs": [], "exit_code": -signal.SIGKILL, "wall_ms": 10_000.0, **seen})


@pytest.fixture
def failures() -> Failures:
    return Failures(CompileLimits(wall_seconds=10))


def known(failures: Failures, key: str = "key") -> tuple[Status, str] | None:
    try:
        failures.check(key)
    except ExecutionError as error:
        return error.status, error.sentence
    return None


@pytest.mark.parametrize("status", [Status.INVALID_MODULE, Status.UNSUPPORTED_FEATURE, Status.MODULE_TOO_COMPLEX, Status.LINK_ERROR])
def test_what_the_module_alone_decides_is_remembered(failures: Failures, monkeypatch: pytest.MonkeyPatch, status: Status) -> None:
    failures.put("key", ExecutionError(status, "It is wrong."), TOLD)
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert (known(failures), known(failures, "other")) == ((status, "It is wrong."), None)


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        (Status.COMPILE_TIMEOUT, ended(killed=True, cpu_ms=8_000.0)),
        (Status.COMPILE_RESOURCE_LIMIT, TOLD),
    ],
)
def test_what_the_host_decides_too_is_tried_again_after_some_minutes(
    failures: Failures, monkeypatch: pytest.MonkeyPatch, status: Status, ending: Ending
) -> None:
    failures.put("key", ExecutionError(status, "It was too much."), ending)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 200)
    assert known(failures) == (status, "It was too much.")
    monkeypatch.setattr(time, "monotonic", lambda: now + 400)
    assert known(failures) is None


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        (Status.COMPILE_TIMEOUT, ended(killed=True, cpu_ms=7_000.0)),
        (Status.COMPILE_TIMEOUT, ended(killed=True)),
        (Status.COMPILE_RESOURCE_LIMIT, ended()),
        (Status.ENGINE_CRASH, ended()),
        (Status.CANCELLED, ended(cancelled=True)),
        (Status.INTERNAL_ERROR, TOLD),
    ],
)
def test_what_a_busy_host_or_a_kill_may_have_done_is_tried_again_at_once(failures: Failures, status: Status, ending: Ending) -> None:
    failures.put("key", ExecutionError(status, "It happened."), ending)
    assert known(failures) is None


def test_the_failures_met_last_are_kept(failures: Failures) -> None:
    for number in range(300):
        failures.put(str(number), ExecutionError(Status.INVALID_MODULE, "It is wrong."), TOLD)
        assert known(failures, "0")
    assert [number for number in range(300) if known(failures, str(number))] == [0, *range(45, 300)]


@pytest.mark.parametrize("why", [invalid, too_complex])
@pytest.mark.parametrize("text", ["Cannot allocate memory (os error 12)", "mmap failed:\n  os error 12"])
def test_a_compiler_without_memory_says_nothing_of_the_module(why: Any, text: str) -> None:
    assert why(text).status is Status.COMPILE_RESOURCE_LIMIT
    assert why("unexpected end").status is not Status.COMPILE_RESOURCE_LIMIT
