"""Both ways of counting, beside each other: the same answers, and the same counts wherever a count is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wasmtime

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import METERINGS, Supervisor
from offchainvm.errors import Status
from tests.integration.engine.test_abis import CAT, ECHO

Both = Callable[..., dict[str, ExecutionResult]]
LOOP = """(module (func (export "_start") (local i32)
  (loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 4000000))))))"""
EARLY = '(module (func $s (drop (i32.const 1)) (unreachable)) (start $s) (func (export "_start")))'
LATE = '(module (func $f nop) (func (export "_start") (call $f) (drop (i32.const 1)) (unreachable)))'
DIVIDES = '(module (func $f nop) (func (export "_start") (call $f) (drop (i32.div_u (i32.const 1) (i32.const 0)))))'


@pytest.fixture(scope="module")
def supervisors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Supervisor]]:
    folder = tmp_path_factory.mktemp("native")
    made = {name: Supervisor(cache_folder=folder, cache_max_bytes=64 * MIB, metering=name) for name in METERINGS}
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def both(supervisors: dict[str, Supervisor], tmp_path: Path) -> Both:
    def call(wat: str, input: bytes = b"", *, instructions: int = 10**9) -> dict[str, ExecutionResult]:
        path = tmp_path / "module.wasm"
        path.write_bytes(bytes(wasmtime.wat2wasm(wat)))
        limits = Limits(instructions=instructions, memory_bytes=16 * MIB, wall_seconds=5)
        return {name: one.execute(path, ExecutionRequest(input=input, limits=limits)) for name, one in supervisors.items()}

    return call


@pytest.mark.parametrize(("wat", "input"), [(ECHO, b"hello"), (ECHO, b"x" * 200_000), (CAT, b"\0 some input"), (LOOP, b"")])
def test_answers_and_counts_are_the_same(both, wat, input):
    found = both(wat, input)
    native, injected = found["native"], found["injected"]
    assert (native.status, native.stdout, native.stderr) == (injected.status, injected.stdout, injected.stderr)
    assert native.instructions_used == injected.instructions_used > 0
    assert injected.instructions_exact
    assert native.peak_memory_bytes == injected.peak_memory_bytes
    assert native.meter_version != injected.meter_version
    assert not native.cache_hit or injected.cache_hit


@pytest.mark.parametrize("wat", [EARLY, LATE])
def test_a_program_that_stops_itself_is_counted_exactly(both, wat):
    found = both(wat)
    assert {(item.status, item.trap, item.instructions_exact) for item in found.values()} == {(Status.TRAP, "unreachable", True)}
    assert len({item.instructions_used for item in found.values()}) == 1


def test_any_other_trap_says_that_its_count_is_not_exact(both):
    assert {(item.trap, item.instructions_exact) for item in both(DIVIDES).values()} == {("integer_division_by_zero", False)}


@pytest.mark.parametrize(("wat", "input"), [(ECHO, b"hello"), (CAT, b"\0abc"), (LATE, b"")])
def test_injected_is_out_of_fuel_below_its_count_and_only_there(both, wat, input):
    needed = both(wat, input)["injected"]
    for limit in {0, 1, needed.instructions_used // 2, needed.instructions_used - 1}:
        short = both(wat, input, instructions=limit)["injected"]
        assert (short.status, short.instructions_used, short.instructions_exact) == (Status.OUT_OF_FUEL, limit, True)
        if wat == ECHO:
            assert short.stdout == b""
    enough = both(wat, input, instructions=needed.instructions_used)["injected"]
    assert (enough.status, enough.instructions_used) == (needed.status, needed.instructions_used)


def test_native_code_of_one_way_is_not_taken_for_the_other(both):
    wat = '(module (func (export "_start") (drop (i64.const 271828))))'
    assert [item.cache_hit for item in both(wat).values()] == [False, False]
    assert [item.cache_hit for item in both(wat).values()] == [True, True]


@pytest.mark.parametrize(
    ("wat", "status"),
    [
        ('(module (global (export "offchainvm.left") i32 (i32.const 1)) (func (export "_start")))', Status.LINK_ERROR),
        ('(module (import "offchainvm" "tick" (func (param i64) (result i64))) (func (export "_start")))', Status.LINK_ERROR),
        ("\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\7\n\1\6_start\0\0\n\7\1\5\0\x23\0\x1a\x0b", Status.INVALID_MODULE),
    ],
)
def test_the_meters_names_and_its_counter_are_out_of_reach(supervisors, tmp_path, wat, status):
    path = tmp_path / "module.wasm"
    path.write_bytes(wat.encode() if wat.startswith("\0") else bytes(wasmtime.wat2wasm(wat)))
    limits = Limits(instructions=1000, memory_bytes=MIB, wall_seconds=5)
    assert {one.execute(path, ExecutionRequest(b"", limits)).status for one in supervisors.values()} == {status}
