"""Command components in wasmtime's own WASI: the same stdin, stdout and statuses, and nothing else of this host.

``cat.component.wasm`` is CAT of test_abis.py as a component: ``wasm-tools component new --adapt`` (wasm-tools 1.262) with the command
adapter of the crate wasi-preview1-component-adapter-provider 36 (Apache-2.0 WITH LLVM-exception), then ``wasm-tools strip --all``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from guests import KILL_GRACE_SECONDS

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB, TABLE_ELEMENTS_MAX
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import Status

CAT = (Path(__file__).parent / "cat.component.wasm").read_bytes()
SLEEP = """
  (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer)) (export "pollable" (type $own (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $own))))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $wait (canon lower (func $clock "subscribe-duration")))
  (core instance $host (export "block" (func $block)) (export "wait" (func $wait)))"""
HOST = '(import "" "block" (func $block (param i32))) (import "" "wait" (func $wait (param i64) (result i32)))'


def command(body: str, *, before: str = "", imports: str = "", more: str = "") -> bytes:
    """A component whose run is this core function, which answers 0 (ok) or 1 (error)."""
    given = '(with "" (instance $host))' if before else ""
    core = f'(module $m {imports} {more} (func $run (export "run") (result i32) {body}))'
    wat = f"""(component {before} (core {core[1:]} (core instance $i (instantiate $m {given}))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $exported (export "run" (func $run))) (export "wasi:cli/run@0.2.3" (instance $exported)))"""
    return bytes(wasmtime.wat2wasm(wat))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ExecutionResult]]:
    folder = tmp_path_factory.mktemp("components")
    path = folder / "component.wasm"
    with Supervisor(cache_folder=folder / "native", cache_max_bytes=64 * MIB, kill_grace_seconds=KILL_GRACE_SECONDS) as supervisor:

        def call(wasm: bytes, input: bytes = b"", **limited: Any) -> ExecutionResult:
            path.write_bytes(wasm)
            limits = Limits(**{"instructions": 10**8, "memory_bytes": 16 * MIB, "wall_seconds": 5, **limited})
            return supervisor.execute(path, ExecutionRequest(input, limits, {"NEAR_REQUEST_ID": "7"}))

        yield call


def test_a_component_reads_stdin_and_writes_both_streams(run):
    found = [run(CAT, b"\0 some input of several reads") for _ in range(20)]
    assert {(item.status, item.exit_code) for item in found} == {(Status.GUEST_EXIT, 1)}
    assert {item.stdout for item in found} == {item.stderr for item in found} == {b"\0 some input of several reads"}
    assert len({item.instructions_used for item in found}) == 1
    assert all(item.instructions_exact for item in found)
    assert {item.meter_version for item in found} == {f"wasmtime-{found[0].engine_version.partition('.')[0]}"}
    ok = run(CAT, b"\0hello")
    assert (ok.status, ok.stdout, ok.exit_code, ok.cache_hit, ok.entry) == (Status.OK, b"\0hello", 0, True, "wasi:cli/run")


@pytest.mark.parametrize(
    ("wasm", "status"),
    [
        (command("(i32.const 0)"), Status.OK),
        (command("(i32.const 1)"), Status.GUEST_EXIT),
        (command("(unreachable)"), Status.TRAP),
        (command("(loop (br 0)) (i32.const 0)"), Status.OUT_OF_FUEL),
        (command("(call $run)"), Status.STACK_OVERFLOW),
        (command("(i32.const 0)", more="(memory 60000)"), Status.MEMORY_LIMIT),
        (command("(i32.add (memory.grow (i32.const 6000)) (i32.const 1))", more="(memory 1)"), Status.OK),
        (command("(i32.const 0)", more="(func (local i32) " + "(block " * 2000 + ")" * 2001), Status.MODULE_TOO_COMPLEX),
        (bytes(wasmtime.wat2wasm("(component)")), Status.LINK_ERROR),
        (CAT[:5000], Status.INVALID_MODULE),
    ],
)
def test_every_end_of_a_component_has_its_status(run, wasm, status):
    result = run(wasm)
    assert result.status is status, result.message
    assert bool(result.message) is (status is not Status.OK)
    if status is Status.OUT_OF_FUEL:
        assert (result.instructions_used, result.instructions_exact) == (10**8, True)


def test_a_components_memory_is_never_told_to_be_more_than_its_limit(run):
    touched = command("(memory.fill (i32.const 0) (i32.const 1) (i32.const 8388608)) (i32.const 0)", more="(memory 128)")
    assert 7 * MIB < run(touched).peak_memory_bytes <= 16 * MIB
    assert 7 * MIB < run(touched, memory_bytes=8 * MIB).peak_memory_bytes <= 8 * MIB


def several(count: int, more: str, grow: str) -> bytes:
    """Core modules beside each other, each with this; run answers error where one of them gave anything but -1."""
    numbers = range(count)
    core = "".join(
        f'(core module $m{n} {more} (func (export "grow") (result i32) {grow})) (core instance $i{n} (instantiate $m{n}))' for n in numbers
    )
    imports = "".join(f'(import "{n}" "grow" (func $grow{n} (result i32)))' for n in numbers)
    given = "".join(f'(with "{n}" (instance $i{n}))' for n in numbers)
    added = "".join(f"(i32.add (call $grow{n}))" for n in numbers)
    wat = f"""(component {core} (core module $m {imports} (func (export "run") (result i32) (i32.const {count}) {added}
        (i32.const 0) (i32.ne)))
      (core instance $i (instantiate $m {given})) (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $exported (export "run" (func $run))) (export "wasi:cli/run@0.2.3" (instance $exported)))"""
    return bytes(wasmtime.wat2wasm(wat))


TWICE = """(component (core module $m (memory 1)) (core instance (instantiate $m)) (core instance (instantiate $m))
  (core module $run (func (export "run") (result i32) (i32.const 0))) (core instance $i (instantiate $run))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run))) (export "wasi:cli/run@0.2.3" (instance $exported)))"""
ALONE = "(i32.const -1)"


@pytest.mark.parametrize(
    "wasm",
    [
        bytes(wasmtime.wat2wasm(TWICE)),
        several(17, "(table 1 funcref)", ALONE),
        several(2, "(memory 40)", ALONE),
    ],
    ids=["a memory twice", "17 tables", "a large and a small memory"],
)
def test_what_a_component_declares_is_no_limit_of_what_it_is_made_of(run, wasm):
    assert run(wasm, memory_bytes=64 * 65536).status is Status.OK


@pytest.mark.parametrize(("pages", "status"), [(256, Status.OK), (255, Status.GUEST_EXIT)])
def test_each_memory_of_a_component_may_have_the_whole_limit(run, pages, status):
    """16 MiB are 256 pages: with one there already, 255 more are granted."""
    result = run(several(2, "(memory 1)", f"(memory.grow (i32.const {pages}))"))
    assert (result.status, result.peak_memory_bytes <= 16 * MIB) == (status, True)


def test_what_the_memories_of_a_component_took_together_is_its_memory(run):
    result = run(several(4, "(memory 256)", f"(memory.fill (i32.const 0) (i32.const 1) (i32.const {16 * MIB})) {ALONE}"))
    assert (result.status, result.peak_memory_bytes, result.instructions_exact) == (Status.MEMORY_LIMIT, 16 * MIB, True)
    assert "together" in result.message


@pytest.mark.parametrize(("each", "limit"), [(257, 16 * MIB), (1600, 100 * MIB)])
def test_a_component_whose_memories_need_too_much_at_the_start_is_refused(run, each, limit):
    """One alone more than the limit, or all together more than the kernel gives."""
    assert run(several(4, f"(memory {each})", ALONE), memory_bytes=limit).status is Status.MEMORY_LIMIT


def test_the_tables_of_a_component_have_a_limit_each(run):
    each = TABLE_ELEMENTS_MAX // 16
    tables = "(table 1 funcref)" * 4
    assert run(several(4, tables, f"(table.grow 0 (ref.null func) (i32.const {each}))")).status is Status.OK
    assert run(several(4, tables, f"(table.grow 0 (ref.null func) (i32.const {each - 1}))")).status is Status.GUEST_EXIT
    assert run(several(1, f"(table {each + 1} funcref)", ALONE)).status is Status.MODULE_TOO_COMPLEX


def test_a_component_has_so_many_memories_and_tables(run):
    tables = "(table 1 funcref)" * 8
    assert [run(several(count, tables, ALONE)).status for count in (4, 5)] == [Status.OK, Status.LINK_ERROR]
    assert [run(several(count, "(memory 1)", ALONE)).status for count in (4, 5)] == [Status.OK, Status.LINK_ERROR]


def test_a_trap_of_a_component_has_its_code(run):
    found = [run(command(body)) for body in ("(unreachable)", "(i32.div_u (i32.const 1) (i32.const 0))")]
    assert [(item.trap, item.instructions_exact) for item in found] == [("unreachable", True), ("integer_division_by_zero", False)]


def test_an_endless_component_is_stopped_at_its_time_with_its_count(run):
    result = run(command("(loop (br 0)) (i32.const 0)"), wall_seconds=0.3, instructions=10**15)
    assert (result.status, result.instructions_exact) == (Status.TIMEOUT, True)
    assert result.instructions_used > 1_000_000
    assert "had to be stopped" not in result.message


def test_a_component_that_is_stopped_by_force_keeps_its_last_count(run):
    body = """(local $left i32) (local.set $left (i32.const 5000000))
      (loop (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (call $block (call $wait (i64.const 3600000000000))) (i32.const 0)"""
    result = run(command(body, before=SLEEP, imports=HOST), wall_seconds=0.5)
    assert (result.status, result.instructions_exact) == (Status.TIMEOUT, False)
    assert result.instructions_used >= 20_000_000


def test_a_sleeping_component_is_stopped_at_its_time_by_force(run):
    asleep = command("(call $block (call $wait (i64.const 3600000000000))) (i32.const 0)", before=SLEEP, imports=HOST)
    result = run(asleep, wall_seconds=0.2)
    assert (result.status, result.instructions_exact) == (Status.TIMEOUT, False)
    short = command("(call $block (call $wait (i64.const 1000000))) (i32.const 0)", before=SLEEP, imports=HOST)
    assert run(short).status is Status.OK


def test_more_output_than_the_limit_is_output_limit(run):
    result = run(CAT, b"\0" * 500, output_bytes=100)
    assert (result.status, result.stdout, result.stdout_truncated) == (Status.OUTPUT_LIMIT, b"\0" * 100, True)


def test_an_operator_may_refuse_components_and_wasmer_has_none(tmp_path, make_supervisor):
    path = tmp_path / "component.wasm"
    path.write_bytes(CAT)
    request = ExecutionRequest(b"", Limits(instructions=1000, memory_bytes=MIB, wall_seconds=5))
    refused = make_supervisor("native", tmp_path / "native", components=False).execute(path, request)
    assert (refused.status, "WASM_COMPONENTS" in refused.message) == (Status.UNSUPPORTED_FEATURE, True)
    elsewhere = make_supervisor("wasmer", tmp_path / "native").execute(path, request)
    assert (elsewhere.status, "wasmer cannot run" in elsewhere.message) == (Status.UNSUPPORTED_FEATURE, True)
