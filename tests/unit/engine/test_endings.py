"""How a child's end becomes a status: what is the module's doing, what is the engine's, and what somebody wished."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict

import pytest
import wasmtime

from offchainvm.engine import child, guest, wasmtime_engine
from offchainvm.engine.compiled import compiled
from offchainvm.engine.limits import CompileLimits, Limits
from offchainvm.engine.module import ModuleInfo
from offchainvm.engine.process import Ending
from offchainvm.engine.protocol import decode
from offchainvm.engine.reply import result_of
from offchainvm.errors import ExecutionError, Status

LIMITS = Limits(instructions=100, memory_bytes=1 << 20, wall_seconds=1)


GOOD = {"status": "ok", "module": asdict(ModuleInfo(("_start",), ("fd_write",)))}


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
        compiled(seen, CompileLimits())
    assert raised.value.status is status


@pytest.mark.parametrize(
    ("head", "blobs"),
    [
        ({"status": "bogus"}, [b""]),
        ({"message": "x"}, [b""]),
        ({"status": "ok"}, [b""]),
        (GOOD, []),
        *(({**GOOD, "module": {**GOOD["module"], **change}}, [b""]) for change in (
            {"entries": []}, {"entries": "_start"}, {"entries": ["main"]}, {"wasi_imports": ["path_up"]}, {"wasi_imports": [[]]},
            {"memory_min_bytes": -1}, {"memory_min_bytes": 2**40}, {"memory_min_bytes": True}, {"initialize": 1},
        )),
    ],
)  # fmt: skip
def test_a_compiler_that_answers_with_nonsense_is_an_engine_crash(head: dict[str, object], blobs: list[bytes]) -> None:
    with pytest.raises(ExecutionError) as raised:
        compiled(Ending(head=head, blobs=blobs, exit_code=0, wall_ms=1.0), CompileLimits())
    assert raised.value.status is Status.ENGINE_CRASH


def test_what_was_compiled_is_taken_as_it_was_told() -> None:
    told = Ending(head=json.loads(json.dumps(GOOD)), blobs=[b"native"], exit_code=0, wall_ms=1.0)
    assert compiled(told, CompileLimits()) == (ModuleInfo(("_start",), ("fd_write",)), b"native")


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        (ending(-signal.SIGSYS), Status.ENGINE_CRASH),
        (ending(-signal.SIGKILL), Status.ENGINE_CRASH),
        (ending(0, nonsense=True), Status.ENGINE_CRASH),
        (ending(-signal.SIGKILL, nonsense=True), Status.ENGINE_CRASH),
        (ending(-signal.SIGKILL, killed=True), Status.TIMEOUT),
        (ending(-signal.SIGKILL, cancelled=True), Status.CANCELLED),
    ],
)
def test_a_guest_that_gave_no_answer_keeps_its_last_count(seen: Ending, status: Status) -> None:
    result = result_of(seen, LIMITS)
    assert (result.status, result.instructions_used, result.instructions_exact) == (status, 70, False)


def test_a_host_function_that_fails_is_the_workers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    wat = """(module (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
      (func (export "_start") (drop (call $yield))))"""
    program = wasmtime_engine.load_ours(bytes(wasmtime.wat2wasm(wat)), "injected")
    monkeypatch.setattr(guest.Wasi, "function", lambda _self, _name: lambda _arguments: 1 // 0)
    job = guest.Job(ModuleInfo(("_start",), ("sched_yield",)), "_start", b"", {}, LIMITS, "injected")
    outcome = guest.Guest(wasmtime_engine, program, job, time.monotonic(), lambda *_: None).run()
    assert (outcome.status, outcome.message) == (Status.INTERNAL_ERROR, "A host function failed (ZeroDivisionError).")


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("run", ValueError("untold"), Status.INTERNAL_ERROR),
        ("run", MemoryError(), Status.INTERNAL_ERROR),
        ("compile", MemoryError(), Status.COMPILE_RESOURCE_LIMIT),
        ("compile", ExecutionError(Status.LINK_ERROR, "what is missing"), Status.LINK_ERROR),
    ],
)
def test_what_breaks_a_childs_own_work_is_told_without_its_text(
    monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception, status: Status
) -> None:
    def broken(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(child, f"_{kind}", broken)
    frame = child._frame(None, {"kind": kind}, [], lambda *_: None, None)  # type: ignore[arg-type]
    taken = iter(frame)
    head, _ = decode(lambda count: bytes(next(taken) for _ in range(count)), max_bytes=0)
    assert head["status"] == status.value
    assert head["message"]
    assert "untold" not in head["message"]
