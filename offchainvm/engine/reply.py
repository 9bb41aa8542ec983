"""Makes a result of what a child said and of what the zygote saw. What the child said is a stranger's word."""

from __future__ import annotations

from typing import Any

from offchainvm.engine.base import ExecutionResult
from offchainvm.engine.limits import WASM_MEMORY_BYTES_MAX, Limits
from offchainvm.engine.process import Ending
from offchainvm.errors import Status

_MESSAGE_CHARACTERS_MAX = 500


def result_of(ending: Ending, limits: Limits, **about: Any) -> ExecutionResult:
    """The result of one run; ``about`` are fields that the supervisor knows itself."""
    if ending.cancelled:
        return _without_frame(Status.CANCELLED, "The execution was cancelled by this worker.", ending, limits, about)
    if ending.killed:
        text = f"The program ran longer than {limits.wall_seconds:g} s, the limit, and had to be stopped."
        return _without_frame(Status.TIMEOUT, text, ending, limits, about)
    try:
        return _from_frame(ending, limits, about)
    except (KeyError, TypeError, ValueError, IndexError):
        text = f"The engine's process ended without an answer (exit status {ending.exit_code})."
        return _without_frame(Status.ENGINE_CRASH, text, ending, limits, about)


def _from_frame(ending: Ending, limits: Limits, about: dict[str, Any]) -> ExecutionResult:
    untrusted = ending.head
    status = Status(untrusted["status"])
    stdout, stderr = ending.blobs or (b"", b"")
    exact = untrusted.get("instructions_exact", True) is True
    return ExecutionResult(
        status=status,
        limits=limits,
        message=str(untrusted.get("message", ""))[:_MESSAGE_CHARACTERS_MAX],
        exit_code=_optional_int(untrusted.get("exit_code")),
        trap=None if untrusted.get("trap") is None else str(untrusted["trap"])[:64],
        stdout=stdout[: limits.output_bytes],
        stderr=stderr[: limits.stderr_bytes],
        stdout_truncated=untrusted.get("stdout_truncated") is True,
        stderr_truncated=untrusted.get("stderr_truncated") is True,
        instructions_used=_within(untrusted.get("instructions_used", ending.known_instructions), limits.instructions),
        instructions_exact=exact and "instructions_used" in untrusted,
        peak_memory_bytes=_within(untrusted.get("peak_memory_bytes", ending.known_memory_bytes), WASM_MEMORY_BYTES_MAX),
        wall_ms=min(float(untrusted.get("wall_ms", ending.wall_ms)), ending.wall_ms),
        cpu_ms=min(float(untrusted.get("cpu_ms", 0.0)), ending.wall_ms),
        **about,
    )


def _without_frame(status: Status, message: str, ending: Ending, limits: Limits, about: dict[str, Any]) -> ExecutionResult:
    return ExecutionResult(
        status=status,
        limits=limits,
        message=message,
        instructions_used=_within(ending.known_instructions, limits.instructions),
        instructions_exact=False,
        peak_memory_bytes=_within(ending.known_memory_bytes, WASM_MEMORY_BYTES_MAX),
        wall_ms=ending.wall_ms,
        cpu_ms=ending.cpu_ms or 0.0,
        **about,
    )


def _within(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("not a count")
    return min(max(0, value), most)


def _optional_int(value: object) -> int | None:
    return None if value is None else _within_i32(value)


def _within_i32(value: object) -> int:
    if not isinstance(value, int) or not -(2**31) <= value < 2**32:
        raise TypeError("not an exit code")
    return value
