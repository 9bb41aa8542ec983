"""Every hostile module of engine.md ends with its status, within its limits, and the supervisor goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import wasmtime

from offchainvm.engine.base import ExecutionResult
from offchainvm.engine.limits import MIB
from offchainvm.errors import Status
from tests.integration.engine.conftest import Run

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
FUEL = "all of its 100000000 instructions"
GROW_AND_FAIL = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)"

# By the status; each with the trap, or with the words of the message that name what ended it.
RUNTIME = {
    Status.OUT_OF_FUEL: {
        "endless loop": (start("(loop (br 0))"), FUEL),
        "memory filled without end": (start("(loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536)) (br 0))"), FUEL),
        "start function that loops": ('(module (func $s (loop (br 0))) (start $s) (func (export "_start")))', FUEL),
        "stderr flood": (start(FLOOD.format(fd=2, again="(br 0)"), before=WRITE), FUEL),
        "a write of 4 GiB": (
            start(
                "(i32.store (i32.const 4) (i32.const -1)) (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))",
                before=WRITE,
            ),
            FUEL,
        ),
    },
    Status.STACK_OVERFLOW: {
        "endless recursion": (start("(call $start)"), "calls nest too deep"),
        "recursion with big frames": (start(f"{'(local i64)' * 900} (call $start) {USE_LOCALS}"), "calls nest too deep"),
    },
    Status.MEMORY_LIMIT: {
        "memory bomb by minimum": (start("", memory='(memory (export "memory") 60000)'), "the limit is 16777216"),
        "memory bomb by growth": (start(GROW_AND_FAIL), "more than its 16777216 bytes"),
        "growth of a memory that it keeps to itself": (start(GROW_AND_FAIL, memory="(memory 1)"), "more than its 16777216 bytes"),
        "growth of a memory by another name": (
            start(GROW_AND_FAIL, memory='(memory (export "m") 1) (func (export "memory"))'), "more than its 16777216 bytes",
        ),
        "growth of a memory whose name is taken": (
            start(GROW_AND_FAIL, memory='(memory 1) (func (export "memory")) (func (export "memory_"))'), "more than its 16777216 bytes",
        ),
        "growth of one page at a time": (start(GROW_AND_FAIL.replace("16", "1")), "more than its 16777216 bytes"),
    },
    Status.OUTPUT_LIMIT: {
        "stdout flood": (start(FLOOD.format(fd=1, again="(br 0)"), before=WRITE), "more than 1048576 bytes"),
    },
    Status.TRAP: {
        "unreachable": (start("(unreachable)"), "unreachable"),
        "division by zero": (start("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "integer_division_by_zero"),
        "out of bounds": (start("(drop (i32.load (i32.const -1)))"), "memory_out_of_bounds"),
        "data segment outside the memory": (start("", before='(data (i32.const 65530) "too long")'), "memory_out_of_bounds"),
        "element segment outside the table": (start("", before="(table 1 funcref) (elem (i32.const 1) $start)"), "table_out_of_bounds"),
        "indirect call of the wrong type": (
            start(
                "(call_indirect (type 0) (i32.const 0))",
                before="(type (func)) (table 1 funcref) (elem (i32.const 0) $f) (func $f (param i32))",
            ),
            "bad_signature",
        ),
        "output pointer out of bounds": (execute("(i32.const 65534)"), "output_out_of_bounds"),
        "output length past the memory": (execute("(i32.store (i32.const 8) (i32.const 65530)) (i32.const 8)"), "output_out_of_bounds"),
        "output length of 4 GiB": (execute("(i32.store (i32.const 8) (i32.const -1)) (i32.const 8)"), "output_out_of_bounds"),
    },
    Status.GUEST_EXIT: {
        "negative result": (execute("(i32.const -2147483648)"), "error code -2147483648"),
        "exit code of all bits": (start("(call $exit (i32.const -1))", before=EXIT), "code 4294967295"),
    },
    # They are told that it failed, and go on.
    Status.OK: {
        "random_get of 4 GB": (start("(drop (call $random (i32.const 0) (i32.const -1)))", before=RANDOM), ""),
        "table bomb by growth": (start("(drop (table.grow 0 (ref.null func) (i32.const 2000000)))", before="(table 1 funcref)"), ""),
    },
}  # fmt: skip


@pytest.fixture
def hostile(run: Run, record_property: Callable[[str, object], None]) -> Run:
    """Run a hostile module, and record how it ended and how long that took: told, never judged."""

    def call(code: str | bytes, **limits: Any) -> ExecutionResult:
        began = time.monotonic()
        result = run(code, **limits)
        took_ms = (time.monotonic() - began) * 1000
        record_property(
            "ended", f"{result.status.value} after {took_ms:.0f} ms (compiled {result.compile_ms:.0f}, ran {result.wall_ms:.0f})"
        )
        record_property("used", f"{result.instructions_used} instructions, {result.peak_memory_bytes} bytes")
        return result

    return call


def cases(table: dict[Status, dict[str, Any]]) -> list[Any]:
    return [pytest.param(status, name, id=f"{status.value}: {name}") for status, named in table.items() for name in named]


@pytest.mark.parametrize(("status", "name"), cases(RUNTIME))
def test_hostile_program_ends_with(hostile, status, name):
    code, words = RUNTIME[status][name]
    result = hostile(code)
    assert result.status is status, result.message
    assert words in (result.trap if status is Status.TRAP else result.message)
    assert result.instructions_used <= result.limits.instructions
    assert bool(result.message) is (status is not Status.OK)
    if status is Status.OUT_OF_FUEL:
        assert result.instructions_used == result.limits.instructions
    if status is Status.MEMORY_LIMIT and result.trap:
        assert 15 * MIB < result.peak_memory_bytes <= 16 * MIB
    assert len(result.stdout) <= result.limits.output_bytes
    assert len(result.stderr) <= result.limits.stderr_bytes


STATIC = {
    Status.MODULE_TOO_COMPLEX: {
        "table bomb": (start("", before="(table 4000000000 funcref)"), "4000000000 elements in one table; the limit is 1000000"),
        "200 k data segments": (start("", before='(data "x")' * 200_000), "200000 data segments; the limit is 10000"),
        "200 k element segments": (start("", before="(elem func)" * 200_000), "200000 element segments; the limit is 10000"),
        "30 k globals": (start("", before="(global i32 (i32.const 0))" * 30_000), "30000 globals; the limit is 10000"),
        "30 k types": (start("", before="(type (func))" * 30_000), "30000 types; the limit is 10000"),
        "a function body of 2 MB": (start("(drop (i64.const 0x7fffffffffffffff))" * 180_000), "in one function; the limit is 1048576"),
        "a module of 17 MB": (b"\0asm\1\0\0\0" + b"\0" + b"\x80\x80\x80\x08" + bytes(17 << 20), "17825805 bytes; the limit is 16777216"),
        "huge locals": (start("(local " + "i64 " * 50_000 + ")"), "50000 locals in one function; the limit is 5000"),
        "500 k nested blocks": (start("(block " * 500_000 + ")" * 500_000), "1500002 bytes in one function; the limit is 1048576"),
        "2 k nested blocks": (start("(block " * 2_000 + ")" * 2_000), "nested blocks in one function; the limit is 1001"),
        "200 k empty functions": ("(module " + "(func)" * 200_000 + ")", "200000 functions; the limit is 50000"),
    },
    Status.LINK_ERROR: {
        "missing entry": ("(module)", "neither `execute` nor `_start`"),
        "an empty module": (b"\0asm\1\0\0\0", "neither `execute` nor `_start`"),
        "mistyped execute": (f'(module {MEMORY} (func (export "execute") (param i32)))', "`execute` is (i32) -> ()"),
        "missing memory": ('(module (func (export "execute") (param i32 i32) (result i32) (i32.const 0)))', "no `memory`"),
        "unknown import": (start("", before='(import "env" "host" (func))'), "the func env.host"),
        "mistyped import": (start("", before=f'(import "{WASI}" "fd_write" (func))'), "imports fd_write as () -> ()"),
        "imported memory": ('(module (import "env" "memory" (memory 1)) (func (export "_start")))', "the memory env.memory"),
        "an export by a reserved name": (start("", before='(global (export "offchainvm.left") i32 (i32.const 1))'), "reserved"),
        "an import by a reserved name": (start("", before='(import "offchainvm" "tick" (func (param i64) (result i64)))'), "reserved"),
    },
    Status.UNSUPPORTED_FEATURE: {
        "shared memory": ('(module (memory 1 1 shared) (func (export "_start")))', "shared, 64-bit"),
        "64-bit memory": ('(module (memory i64 1) (func (export "_start")))', "shared, 64-bit"),
        "two memories": ('(module (memory 1) (memory 1) (func (export "_start")))', "more than one memory"),
        "exceptions": ('(module (tag) (func (export "_start") (throw 0)))', "not enabled"),
    },
    Status.INVALID_MODULE: {
        "the counter's global addressed": (
            b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\7\n\1\6_start\0\0\n\7\1\5\0\x23\0\x1a\x0b", "global",
        ),
        "no module at all": (b"MZ\x90", "magic number"),
        "nothing": (b"", "magic number"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("status", "name"), cases(STATIC))
def test_hostile_module_is_refused_before_it_runs(hostile, status, name):
    code, words = STATIC[status][name]
    result = hostile(code)
    assert result.status is status, result.message
    assert words in result.message
    assert (result.instructions_used, result.peak_memory_bytes) == (0, 0)


BOMBS = {
    "100 k ifs": start("(if (i32.const 3) (then nop))" * 100_000),
    "4,900 locals that meet at 4,900 branches": start(
        "(local " + "i32 " * 4900 + ") (block $out "
        + "".join(f"(br_if $out (local.get {n})) (local.set {n} (i32.add (local.get {n * 7 % 4900}) (i32.const {n})))" for n in range(4900))
        + ")" + "".join(f"(i32.store (i32.const {4 * n}) (local.get {n}))" for n in range(4900))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_no_static_limit_names_ends_within_the_compilers_limits(hostile, name):
    """How far each engine's compiler comes in its time is its own affair."""
    result = hostile(BOMBS[name])
    words = {Status.OK: "", Status.COMPILE_TIMEOUT: "longer than 2 s to compile", Status.COMPILE_RESOURCE_LIMIT: "more than 512 MiB"}
    assert result.status in words, result.message
    assert words[result.status] in result.message


def test_traps_have_a_code_and_keep_their_metrics(run):
    body = "(loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 1000000)))) (unreachable)"
    result = run(start("(local i32) " + body))
    assert (result.trap, result.instructions_exact, result.peak_memory_bytes) == ("unreachable", True, 65536)
    assert result.instructions_used > 7_000_000


def test_an_endless_loop_is_stopped_at_its_time_with_its_count(hostile):
    result = hostile(start("(loop (br 0))"), instructions=10**15, wall_seconds=0.3)
    assert (result.status, result.instructions_exact) == (Status.TIMEOUT, True)
    assert result.instructions_used > 1_000_000
    assert result.cpu_ms > 0


# Each place says where the next one is, by the steps of a random number generator that comes to all of them: no load can begin before the
# one before it has waited for memory.
CHASE = """(local $here i32) (local $next i32)
  (loop $lay (i32.store (local.get $here) (local.tee $next (i32.shl (i32.and (i32.const 0xfffff) (i32.add (i32.const 1013904223)
    (i32.mul (i32.const 1664525) (i32.shr_u (local.get $here) (i32.const 6))))) (i32.const 6))))
    (br_if $lay (local.tee $here (local.get $next))))
  (loop $go (local.set $here (i32.load (local.get $here))) (br $go))"""


def test_a_chase_through_memory_is_stopped_at_its_time(hostile):
    limits = {"memory_bytes": 64 * MIB, "instructions": 10**15, "wall_seconds": 0.8}
    result = hostile(start(CHASE, memory='(memory (export "memory") 1024)'), **limits)
    assert result.status is Status.TIMEOUT
    assert result.instructions_used > 1_000_000


def test_a_sleeping_program_is_stopped_at_its_time(hostile):
    # One relative clock subscription of an hour.
    body = """(i64.store (i32.const 24) (i64.const 3600000000000)) (i32.store (i32.const 16) (i32.const 1))
      (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))"""
    result = hostile(start(body, before=POLL), wall_seconds=0.2)
    assert result.status is Status.TIMEOUT


def test_a_short_sleep_is_slept(run):
    body = """(i64.store (i32.const 24) (i64.const 20000000)) (i32.store (i32.const 16) (i32.const 1))
      (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))"""
    began = time.monotonic()
    assert run(start(body, before=POLL)).status is Status.OK
    assert time.monotonic() - began >= 0.02


def test_one_endless_host_instruction_is_killed_from_outside(hostile):
    """A memory.fill of 512 MiB again and again: whether wasmtime can be interrupted in it or not, the time limit holds."""
    body = "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 536870912)) (br 0))"
    result = hostile(start(body, memory='(memory (export "memory") 8192)'), memory_bytes=1 << 29, instructions=10**15, wall_seconds=0.3)
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
