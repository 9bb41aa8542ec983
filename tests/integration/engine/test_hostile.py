"""Every hostile module of engine.md ends with its status, within its limits, and the supervisor goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import wasmtime

from offchainvm.engine.base import ExecutionResult
from offchainvm.errors import Status

WASI = "wasi_snapshot_preview1"
MEMORY = '(memory (export "memory") 1)'


def start(body: str, *, before: str = "", memory: str = MEMORY) -> str:
    return f'(module {before} {memory} (func $start (export "_start") {body}))'


def execute(body: str) -> str:
    return f'(module {MEMORY} (func (export "execute") (param i32 i32) (result i32) {body}))'


WRITE = f'(import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))'
POLL = f'(import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))'
RANDOM = f'(import "{WASI}" "random_get" (func $random (param i32 i32) (result i32)))'
EXIT = f'(import "{WASI}" "proc_exit" (func $exit (param i32)))'
USE_LOCALS = "".join(f"(i64.store (i32.const {8 * n}) (local.get {n}))" for n in range(900))
FLOOD = """(i32.store (i32.const 4) (i32.const 60000))
  (loop (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8))) {again})"""
GROW_AND_FAIL = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)"

RUNTIME = {
    "endless loop": (start("(loop (br 0))"), Status.OUT_OF_FUEL),
    "endless recursion": (start("(call $start)"), Status.STACK_OVERFLOW),
    "memory bomb by minimum": (start("", memory='(memory (export "memory") 60000)'), Status.MEMORY_LIMIT),
    "memory bomb by growth": (start(GROW_AND_FAIL), Status.MEMORY_LIMIT),
    "data segment outside the memory": (start("", before='(data (i32.const 65530) "too long")'), Status.TRAP),
    "element segment outside the table": (start("", before="(table 1 funcref) (elem (i32.const 1) $start)"), Status.TRAP),
    "negative result": (execute("(i32.const -2147483648)"), Status.GUEST_EXIT),
    "exit code of all bits": (start("(call $exit (i32.const -1))", before=EXIT), Status.GUEST_EXIT),
    "recursion with big frames": (start(f"{'(local i64)' * 900} (call $start) {USE_LOCALS}"), Status.STACK_OVERFLOW),
    "growth of one page at a time": (start(GROW_AND_FAIL.replace("16", "1")), Status.MEMORY_LIMIT),
    "memory filled without end": (start("(loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536)) (br 0))"), Status.OUT_OF_FUEL),
    "unreachable": (start("(unreachable)"), Status.TRAP),
    "division by zero": (start("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), Status.TRAP),
    "out of bounds": (start("(drop (i32.load (i32.const -1)))"), Status.TRAP),
    "indirect call of the wrong type": (
        start(
            "(call_indirect (type 0) (i32.const 0))",
            before="(type (func)) (table 1 funcref) (elem (i32.const 0) $f) (func $f (param i32))",
        ),
        Status.TRAP,
    ),
    "start function that loops": ('(module (func $s (loop (br 0))) (start $s) (func (export "_start")))', Status.OUT_OF_FUEL),
    "output pointer out of bounds": (execute("(i32.const 65534)"), Status.TRAP),
    "output length past the memory": (execute("(i32.store (i32.const 8) (i32.const 65530)) (i32.const 8)"), Status.TRAP),
    "output length of 4 GiB": (execute("(i32.store (i32.const 8) (i32.const -1)) (i32.const 8)"), Status.TRAP),
    "stdout flood": (start(FLOOD.format(fd=1, again="(br 0)"), before=WRITE), Status.OUTPUT_LIMIT),
    "stderr flood": (start(FLOOD.format(fd=2, again="(br 0)"), before=WRITE), Status.OUT_OF_FUEL),
    "a write of 4 GiB": (
        start(
            "(i32.store (i32.const 4) (i32.const -1)) (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))",
            before=WRITE,
        ),
        Status.OUT_OF_FUEL,
    ),
    "random_get of 4 GB": (start("(drop (call $random (i32.const 0) (i32.const -1)))", before=RANDOM), Status.OK),
    "table bomb by growth": (
        start("(drop (table.grow 0 (ref.null func) (i32.const 2000000)))", before="(table 1 funcref)"),
        Status.OK,
    ),
}  # fmt: skip


@pytest.fixture
def report(record_property) -> Callable[[ExecutionResult], None]:
    """What a hostile module got, for the test report: times are told there, and never judged."""

    def tell(result: ExecutionResult) -> None:
        for name in ("status", "trap", "instructions_used", "instructions_exact", "peak_memory_bytes", "wall_ms", "cpu_ms", "compile_ms"):
            record_property(name, str(getattr(result, name)))

    return tell


@pytest.mark.parametrize("name", RUNTIME)
def test_hostile_program_ends_with(run, report, name):
    code, status = RUNTIME[name]
    result = run(code)
    report(result)
    assert result.status is status, result.message
    assert result.instructions_used <= result.limits.instructions
    assert bool(result.message) is (status is not Status.OK)
    if status is Status.OUT_OF_FUEL:
        assert result.instructions_used == result.limits.instructions
    assert len(result.stdout) <= result.limits.output_bytes
    assert len(result.stderr) <= result.limits.stderr_bytes


STATIC = {
    "table bomb": (start("", before="(table 4000000000 funcref)"), Status.MODULE_TOO_COMPLEX),
    "200 k data segments": (start("", before='(data "x")' * 200_000), Status.MODULE_TOO_COMPLEX),
    "200 k element segments": (start("", before="(elem func)" * 200_000), Status.MODULE_TOO_COMPLEX),
    "30 k globals": (start("", before="(global i32 (i32.const 0))" * 30_000), Status.MODULE_TOO_COMPLEX),
    "30 k types": (start("", before="(type (func))" * 30_000), Status.MODULE_TOO_COMPLEX),
    "a function body of 2 MB": (start("(drop (i64.const 0x7fffffffffffffff))" * 180_000), Status.MODULE_TOO_COMPLEX),
    "a module of 17 MB": (b"\0asm\1\0\0\0" + b"\0" + b"\x80\x80\x80\x08" + bytes(17 << 20), Status.MODULE_TOO_COMPLEX),
    "huge locals": (start("(local " + "i64 " * 50_000 + ")"), Status.MODULE_TOO_COMPLEX),
    "500 k nested blocks": (start("(block " * 500_000 + ")" * 500_000), Status.MODULE_TOO_COMPLEX),
    "2 k nested blocks": (start("(block " * 2_000 + ")" * 2_000), Status.MODULE_TOO_COMPLEX),
    "200 k empty functions": ("(module " + "(func)" * 200_000 + ")", Status.MODULE_TOO_COMPLEX),
    "missing entry": ("(module)", Status.LINK_ERROR),
    "mistyped execute": (f'(module {MEMORY} (func (export "execute") (param i32)))', Status.LINK_ERROR),
    "missing memory": ('(module (func (export "execute") (param i32 i32) (result i32) (i32.const 0)))', Status.LINK_ERROR),
    "unknown import": (start("", before='(import "env" "host" (func))'), Status.LINK_ERROR),
    "mistyped import": (start("", before=f'(import "{WASI}" "fd_write" (func))'), Status.LINK_ERROR),
    "imported memory": ('(module (import "env" "memory" (memory 1)) (func (export "_start")))', Status.LINK_ERROR),
    "shared memory": ('(module (memory 1 1 shared) (func (export "_start")))', Status.UNSUPPORTED_FEATURE),
    "64-bit memory": ('(module (memory i64 1) (func (export "_start")))', Status.UNSUPPORTED_FEATURE),
    "two memories": ('(module (memory 1) (memory 1) (func (export "_start")))', Status.UNSUPPORTED_FEATURE),
    "exceptions": ('(module (tag) (func (export "_start") (throw 0)))', Status.UNSUPPORTED_FEATURE),
    "an empty module": (b"\0asm\1\0\0\0", Status.LINK_ERROR),
    "no module at all": (b"MZ\x90", Status.INVALID_MODULE),
    "nothing": (b"", Status.INVALID_MODULE),
}  # fmt: skip


@pytest.mark.parametrize("name", STATIC)
def test_hostile_module_is_refused_before_it_runs(run, report, name):
    code, status = STATIC[name]
    result = run(code)
    report(result)
    assert result.status is status, result.message
    assert (result.instructions_used, result.peak_memory_bytes) == (0, 0)


def test_100_k_ifs_in_one_function_end_within_the_compilers_limits(run, report):
    result = run(start("(if (i32.const 3) (then nop))" * 100_000))
    report(result)
    assert result.status in (Status.OK, Status.COMPILE_TIMEOUT, Status.COMPILE_RESOURCE_LIMIT, Status.MODULE_TOO_COMPLEX)


def test_traps_have_a_code_and_keep_their_metrics(run):
    body = "(loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 1000000)))) (unreachable)"
    result = run(start("(local i32) " + body))
    assert (result.trap, result.instructions_exact, result.peak_memory_bytes) == ("unreachable", True, 65536)
    assert result.instructions_used > 7_000_000


def test_an_endless_loop_is_stopped_at_its_time_with_its_count(run):
    result = run(start("(loop (br 0))"), instructions=10**15, wall_seconds=0.3)
    assert (result.status, result.instructions_exact) == (Status.TIMEOUT, True)
    assert result.instructions_used > 1_000_000
    assert result.cpu_ms > 0


def test_a_sleeping_program_is_stopped_at_its_time(run):
    # One relative clock subscription of an hour.
    body = """(i64.store (i32.const 24) (i64.const 3600000000000)) (i32.store (i32.const 16) (i32.const 1))
      (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))"""
    result = run(start(body, before=POLL), wall_seconds=0.2)
    assert result.status is Status.TIMEOUT


def test_a_short_sleep_is_slept(run):
    body = """(i64.store (i32.const 24) (i64.const 20000000)) (i32.store (i32.const 16) (i32.const 1))
      (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))"""
    began = time.monotonic()
    assert run(start(body, before=POLL)).status is Status.OK
    assert time.monotonic() - began >= 0.02


def test_one_endless_host_instruction_is_killed_from_outside(run):
    """A memory.fill of 512 MiB again and again: whether wasmtime can be interrupted in it or not, the time limit holds."""
    body = "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 536870912)) (br 0))"
    result = run(start(body, memory='(memory (export "memory") 8192)'), memory_bytes=1 << 29, instructions=10**15, wall_seconds=0.3)
    assert result.status is Status.TIMEOUT, result.message
    assert result.peak_memory_bytes == 1 << 29


def test_refused_growth_alone_is_no_failure(run):
    assert run(start("(drop (memory.grow (i32.const 60000)))")).status is Status.OK


def test_truncated_and_bit_flipped_binaries_never_break_the_supervisor(run):
    good = bytes(wasmtime.wat2wasm(start(FLOOD.format(fd=1, again=""), before=WRITE)))
    assert run(good).status is Status.OK
    for cut in range(0, len(good), 5):
        assert run(good[:cut]).status is not Status.INTERNAL_ERROR
    for place in range(8, len(good), 3):
        broken = bytearray(good)
        broken[place] ^= 0x15
        assert run(bytes(broken), instructions=1_000_000, wall_seconds=1).status not in (Status.INTERNAL_ERROR, Status.ENGINE_CRASH)
    assert run(good).status is Status.OK
