"""Makes a result of what a child said and of what the zygote saw. What the child said is a stranger's word."""

from __future__ import annotations

from typing import Any

from offchainvm.engine.base import ExecutionResult
from offchainvm.engine.limits import WASM_MEMORY_BYTES_MAX, Limits
from offchainvm.engine.process import Ending
from offchainvm.errors import Status

_MESSAGE_CHARACTERS_MAX, _TRAP_CHARACTERS_MAX = 500, 64


class Nonsense(Exception):
    """A child's frame that no child of ours writes."""


def result_of(ending: Ending, limits: Limits, **about: Any) -> ExecutionResult:
    """The result of one run; ``about`` are fields that the supervisor knows itself."""
    if ending.cancelled:
        return _without_frame(Status.CANCELLED, "The execution was cancelled by this worker.", ending, limits, about)
    if ending.killed:
        text = f"The program ran longer than {limits.wall_seconds:g} s, the limit, and had to be stopped."
        return _without_frame(Status.TIMEOUT, text, ending, limits, about)
    if not ending.head:
        return _without_frame(Status.ENGINE_CRASH, f"The engine's process {died(ending)}.", ending, limits, about)
    try:
        return _from_frame(ending, limits, about)
    except Nonsense:
        return _without_frame(Status.ENGINE_CRASH, "The engine's process answered with nonsense.", ending, limits, about)


def died(ending: Ending) -> str:
    """What became of a child that gave no frame, in words."""
    return "answered with nonsense" if ending.nonsense else f"ended without an answer (exit status {ending.exit_code})"


def status_of(untrusted: dict[str, Any]) -> tuple[Status, str]:
    """The status in a child's frame, and its sentence.

    Raises:
        Nonsense: it has none.
    """
    try:
        status = Status(untrusted.get("status"))
    except ValueError:
        raise Nonsense from None
    return status, _text(untrusted.get("message", ""), _MESSAGE_CHARACTERS_MAX)


def _from_frame(ending: Ending, limits: Limits, about: dict[str, Any]) -> ExecutionResult:
    untrusted = ending.head
    status, message = status_of(untrusted)
    counted = untrusted.get("instructions_used") is not None
    stdout, stderr = ending.blobs if len(ending.blobs) == 2 else _without_streams(status)
    return ExecutionResult(
        status=status,
        limits=limits,
        message=message,
        exit_code=_exit_code(untrusted.get("exit_code")),
        trap=None if untrusted.get("trap") is None else _text(untrusted["trap"], _TRAP_CHARACTERS_MAX),
        stdout=stdout[: limits.output_bytes],
        stderr=stderr[: limits.stderr_bytes],
        stdout_truncated=untrusted.get("stdout_truncated") is True,
        stderr_truncated=untrusted.get("stderr_truncated") is True,
        instructions_used=_count(untrusted.get("instructions_used") if counted else ending.known_instructions, limits.instructions),
        instructions_exact=counted and untrusted.get("instructions_exact") is True,
        peak_memory_bytes=_count(untrusted.get("peak_memory_bytes", ending.known_memory_bytes), WASM_MEMORY_BYTES_MAX),
        wall_ms=ending.wall_ms,
        cpu_ms=_milliseconds(untrusted.get("cpu_ms", 0.0), ending.wall_ms),
        **about,
    )


def _without_frame(status: Status, message: str, ending: Ending, limits: Limits, about: dict[str, Any]) -> ExecutionResult:
    return ExecutionResult(
        status=status,
        limits=limits,
        message=message,
        instructions_used=_count(ending.known_instructions, limits.instructions),
        instructions_exact=False,
        peak_memory_bytes=_count(ending.known_memory_bytes, WASM_MEMORY_BYTES_MAX),
        wall_ms=ending.wall_ms,
        cpu_ms=ending.cpu_ms or 0.0,
        **about,
    )


def _without_streams(status: Status) -> tuple[bytes, bytes]:
    """A child that could not run the guest has none; whoever ran it has."""
    if status is Status.OK:
        raise Nonsense
    return b"", b""


def _count(untrusted: object, most: int) -> int:
    if not isinstance(untrusted, int) or isinstance(untrusted, bool):
        raise Nonsense
    return min(max(0, untrusted), most)


def _milliseconds(untrusted: object, most: float) -> float:
    if not isinstance(untrusted, (int, float)) or isinstance(untrusted, bool):
        raise Nonsense
    # In this order: no comparison is true of what is no number.
    return float(min(max(0.0, untrusted), most))


def _exit_code(untrusted: object) -> int | None:
    if untrusted is None:
        return None
    if not isinstance(untrusted, int) or isinstance(untrusted, bool) or not -(2**31) <= untrusted < 2**32:
        raise Nonsense
    return untrusted


def _text(untrusted: object, most: int) -> str:
    """JSON can write a half of a surrogate pair, which nobody could encode."""
    if not isinstance(untrusted, str):
        raise Nonsense
    return untrusted[:most].encode("utf-8", "replace").decode()
