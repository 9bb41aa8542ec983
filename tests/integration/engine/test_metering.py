"""Both ways of counting, beside each other: the same answers, and the same counts wherever a count is exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB, TABLE_ELEMENTS_MAX
from offchainvm.engine.meter import STACK_BYTES
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import Status
from tests.integration.engine.conftest import ENGINES
from tests.integration.engine.test_abis import CAT, ECHO

Both = Callable[..., dict[str, ExecutionResult]]
LOOP = """(module (func (export "_start") (local i32)
  (loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 4000000))))))"""
EARLY = '(module (func $s (drop (i32.const 1)) (unreachable)) (start $s) (func (export "_start")))'
LATE = '(module (func $f nop) (func (export "_start") (call $f) (drop (i32.const 1)) (unreachable)))'
DIVIDES = '(module (func $f nop) (func (export "_start") (call $f) (drop (i32.div_u (i32.const 1) (i32.const 0)))))'


@pytest.fixture(scope="module")
def supervisors(make_supervisor: Callable[..., Supervisor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Supervisor]:
    """Every engine and way of counting, on one cache."""
    folder = tmp_path_factory.mktemp("native")
    return {name: make_supervisor(name, folder) for name in ENGINES}


@pytest.fixture
def both(supervisors: dict[str, Supervisor], tmp_path: Path) -> Both:
    def call(wat: str, input: bytes = b"", *, instructions: int = 10**9, memory_bytes: int = 16 * MIB) -> dict[str, ExecutionResult]:
        path = tmp_path / "module.wasm"
        path.write_bytes(bytes(wasmtime.wat2wasm(wat)))
        limits = Limits(instructions=instructions, memory_bytes=memory_bytes, wall_seconds=5)
        return {name: one.execute(path, ExecutionRequest(input=input, limits=limits)) for name, one in supervisors.items()}

    return call


@pytest.mark.parametrize(("wat", "input"), [(ECHO, b"hello"), (ECHO, b"x" * 200_000), (CAT, b"\0 some input"), (LOOP, b"")])
def test_answers_and_counts_are_the_same(both, wat, input):
    found = both(wat, input)
    native, injected, wasmer = found["native"], found["injected"], found["wasmer"]
    for other in (injected, wasmer):
        assert (native.status, native.stdout, native.stderr) == (other.status, other.stdout, other.stderr)
        assert native.instructions_used == other.instructions_used > 0
        assert other.instructions_exact
        assert native.peak_memory_bytes == other.peak_memory_bytes
        assert not native.cache_hit or other.cache_hit
    assert native.meter_version != injected.meter_version == wasmer.meter_version


@pytest.mark.parametrize("wat", [EARLY, LATE])
def test_a_program_that_stops_itself_is_counted_exactly(both, wat):
    found = both(wat)
    assert {(item.status, item.trap, item.instructions_exact) for item in found.values()} == {(Status.TRAP, "unreachable", True)}
    assert len({item.instructions_used for item in found.values()}) == 1


def test_any_other_trap_says_that_its_count_is_not_exact(both):
    assert {(item.trap, item.instructions_exact) for item in both(DIVIDES).values()} == {("integer_division_by_zero", False)}


def test_of_a_trap_at_least_half_of_the_count_is_known(both):
    """Nothing is written down between two slices, and the next is no longer than all before it."""
    body = LOOP.rpartition(")")[0]
    needed = both(LOOP)["injected"].instructions_used
    found = both(f"{body[: body.rindex(')')]} (drop (i32.div_u (i32.const 1) (i32.const 0)))))")
    for name in ("injected", "wasmer"):
        assert found[name].trap == "integer_division_by_zero"
        assert needed // 2 <= found[name].instructions_used <= needed + 3


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


def many(operator: str, count: int) -> str:
    return "".join(operator.format(16 * index, index) for index in range(count))


V128 = "v128 "
RECURSIONS = {
    "no locals": '(module (func $f (export "_start") (call $f)))',
    "through a table": '(module (table 1 funcref) (elem (i32.const 0) $f) (func $f (export "_start") (call_indirect (i32.const 0))))',
    "many locals": f"""(module (memory 2) (func $f (export "_start") (local {V128 * 4900})
      {many("(local.set {1} (v128.load offset={0} (i32.const 0)))", 4900)} (call $f)
      {many("(v128.store offset={0} (i32.const 0) (local.get {1}))", 4900)}))""",
    "many parameters": f"""(module (func $f (param {V128 * 900}) (call $f {many("(local.get {1})", 900)}))
      (func (export "_start") (call $f {"(v128.const i64x2 1 2)" * 900})))""",
    "many results": f"""(module (func $f (result {V128 * 900}) (call $f) (call $f) {"(drop)" * 900})
      (func (export "_start") (call $f) {"(drop)" * 900}))""",
    "many operands": f"""(module (global $g (mut i32) (i32.const 0)) (func $f (export "_start") (local i32)
      {"(i32x4.splat (local.tee 0 (i32.popcnt (i32.add (local.get 0) (global.get $g)))))" * 1500} (call $f)
      {"(v128.any_true) (global.set $g)" * 1500}))""",
}


# Each of sixteen bytes, put there by three bytes of code.
GLOBALS = "".join(f"(global $g{index} (mut v128) (v128.const i64x2 1 2))" for index in range(2000))
RECURSIONS["many globals"] = f"""(module {GLOBALS} (func $f (export "_start") {many("(global.get {1})", 2000)} (call $f)
  {"(v128.xor)" * 1999} (global.set $g0)))"""
RECURSIONS["many arguments"] = f"""(module (func $many (param {V128 * 900})) (func $f (local v128) (call $f)
  {"(local.get 0)" * 900} (call $many)) (func (export "_start") (call $f)))"""
# Its compiler aborts where parameters or results are too many for it.
BEYOND_WASMER = ("many parameters", "many results", "many arguments")


@pytest.mark.parametrize("name", RECURSIONS)
def test_the_counted_stack_ends_before_the_engines(supervisors, tmp_path, name):
    path = tmp_path / "module.wasm"
    path.write_bytes(bytes(wasmtime.wat2wasm(RECURSIONS[name])))
    limits = Limits(instructions=10**9, memory_bytes=16 * MIB, wall_seconds=20)
    for engine in ("injected", "wasmer"):
        found = supervisors[engine].execute(path, ExecutionRequest(b"", limits))
        if engine == "wasmer" and name in BEYOND_WASMER:
            assert found.status is Status.COMPILE_RESOURCE_LIMIT
            continue
        assert (found.status, found.trap, found.instructions_exact) == (Status.STACK_OVERFLOW, None, True), engine
        assert f"{STACK_BYTES} bytes" in found.message
        if name == "no locals":
            assert found.instructions_used == 2 * (STACK_BYTES // 66 + 1)


def test_calls_give_their_stack_back_and_tail_calls_need_none(both):
    """Each of the three goes nearly as deep as is allowed: the second finds what the first left, in the same module."""
    deep = "(if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1)))))"
    tail = "(if (local.get 0) (then (call $deep (i32.const 3)) (return_call $tail (i32.sub (local.get 0) (i32.const 1)))))"
    found = both(f"""(module (func $deep (param i32) {deep}) (func $tail (param i32) {tail})
      (func $down (export "_initialize") (return_call $deep (i32.const 45000)))
      (func (export "_start") (call $deep (i32.const 45000)) (call $down) (call $tail (i32.const 100000))))""")["injected"]
    assert (found.status, found.message) == (Status.OK, "")


EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
REFUSED = "(drop (memory.grow (i32.const 5000)))"
GRANTED = "(drop (memory.grow (i32.const 200)))"
FAILURES = {
    "(unreachable)": Status.TRAP,
    "(i32.store (i32.const -4) (i32.const 1))": Status.TRAP,
    "(call $exit (i32.const 3))": Status.GUEST_EXIT,
}


def failing(first: str, then: str, *, memory: str = "1") -> str:
    return f'(module {EXIT} (memory (export "memory") {memory}) (func (export "_start") {first} {then}))'


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_by_the_memory_limit_exactly_where_growth_beyond_it_was_refused(both, failure):
    for name in ("injected", "wasmer"):
        assert both(failing(REFUSED, failure))[name].status is Status.MEMORY_LIMIT, name
        for memory in ("1", "1 9"):  # by the second, it is the program itself that refuses
            assert both(failing(GRANTED, failure, memory=memory))[name].status is FAILURES[failure], name


@pytest.mark.parametrize("failure", FAILURES)
def test_a_refusal_that_the_program_got_over_names_no_later_failure(both, failure):
    """As AssemblyScript and TinyGo allocate: first the double, and where that is refused what is needed. No pages are no help."""
    for name in ("injected", "wasmer"):
        assert both(failing(REFUSED, GRANTED + failure))[name].status is FAILURES[failure], name
        assert both(failing(REFUSED, "(drop (memory.grow (i32.const 0)))" + failure))[name].status is Status.MEMORY_LIMIT, name
        assert both(failing(REFUSED, GRANTED + REFUSED + failure))[name].status is Status.MEMORY_LIMIT, name


def test_refused_growth_is_known_in_a_start_function_and_of_an_error_code(both):
    starts = f'(module (memory 1) (func $s {REFUSED} (unreachable)) (start $s) (func (export "_start")))'
    gives = f"""(module (memory (export "memory") 1)
      (func (export "execute") (param i32 i32) (result i32) {REFUSED} (i32.const -7)))"""
    for wat in (starts, gives):
        found = both(wat)
        assert {found[name].status for name in ("injected", "wasmer")} == {Status.MEMORY_LIMIT}
        assert {item.instructions_used for item in found.values()} == {found["native"].instructions_used}


def test_all_tables_together_hold_as_many_elements_on_every_engine(both):
    """Each its share, and none more, however little memory the program may have."""
    tables = "".join(f"(table $t{number} 1 {kind})" for number, kind in enumerate(("funcref", "externref") * 8))
    grown = "".join(
        f"(i32.add (table.grow $t{number} (ref.null {kind}) (i32.const {count})))"
        for number, kind in enumerate(("func", "extern") * 8)
        for count in (999_999, TABLE_ELEMENTS_MAX // 16 - 1, 1)
    )
    # Of each three answers the second is 1, the size before; the others are -1.
    found = both(f'(module {tables} (func (export "_start") (i32.const 16) {grown} (if (then (unreachable)))))', memory_bytes=MIB)
    assert {name: (item.status, item.message) for name, item in found.items()} == dict.fromkeys(found, (Status.OK, ""))
    assert found["injected"].instructions_used == found["wasmer"].instructions_used


def test_native_code_of_one_way_or_engine_is_not_taken_for_another(both):
    wat = '(module (func (export "_start") (drop (i64.const 271828))))'
    assert [item.cache_hit for item in both(wat).values()] == [False, False, False]
    assert [item.cache_hit for item in both(wat).values()] == [True, True, True]
