"""How a child's end becomes a status: what is the module's doing, what is the engine's, and what somebody wished."""

from __future__ import annotations

import signal

import pytest

from offchainvm.engine.limits import CompileLimits, Limits
from offchainvm.engine.process import Ending
from offchainvm.engine.reply import result_of
from offchainvm.engine.supervisor import _compiled
from offchainvm.errors import ExecutionError, Status

LIMITS = Limits(instructions=100, memory_bytes=1 << 20, wall_seconds=1)


def ending(exit_code: int, **seen: bool) -> Ending:
    return Ending(head={}, blobs=[], exit_code=exit_code, wall_ms=5.0, known_instructions=70, **seen)


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        (ending(-signal.SIGABRT), Status.COMPILE_RESOURCE_LIMIT),
        (ending(-signal.SIGKILL), Status.COMPILE_RESOURCE_LIMIT),
        (ending(-signal.SIGKILL, killed=True), Status.COMPILE_TIMEOUT),
        (ending(-signal.SIGKILL, cancelled=True), Status.CANCELLED),
        (ending(-signal.SIGSEGV), Status.ENGINE_CRASH),
        (ending(-signal.SIGSYS), Status.ENGINE_CRASH),
    ],
)
def test_a_compiler_that_gave_no_answer(seen: Ending, status: Status) -> None:
    with pytest.raises(ExecutionError) as raised:
        _compiled(seen, CompileLimits())
    assert raised.value.status is status


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        (ending(-signal.SIGSYS), Status.ENGINE_CRASH),
        (ending(-signal.SIGKILL), Status.ENGINE_CRASH),
        (ending(-signal.SIGKILL, killed=True), Status.TIMEOUT),
        (ending(-signal.SIGKILL, cancelled=True), Status.CANCELLED),
    ],
)
def test_a_guest_that_gave_no_answer_keeps_its_last_count(seen: Ending, status: Status) -> None:
    result = result_of(seen, LIMITS)
    assert (result.status, result.instructions_used, result.instructions_exact) == (status, 70, False)
