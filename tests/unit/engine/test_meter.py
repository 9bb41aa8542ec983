"""The metering pass counts what wasmtime's own fuel counts, and changes nothing else."""

from __future__ import annotations

import math
import time

import pytest
import wasmtime

from offchainvm.engine.meter import LEFT, METER_VERSION, RESERVED, TICK, meter
from offchainvm.engine.wasmtime_engine import engine
from offchainvm.errors import ExecutionError, Status
from tests.unit.engine.wat_programs import CORPUS, START, TRAPS, Chance

FUEL = 10**9
SLICE = 70
I64 = wasmtime.ValType.i64()


def native(wasm: bytes) -> tuple[object, int]:
    store = wasmtime.Store(engine())
    store.set_fuel(FUEL)
    instance = wasmtime.Instance(store, wasmtime.Module(engine(), wasm), [])
    return outcome(store, instance), FUEL - store.get_fuel()


def injected(wasm: bytes) -> tuple[object, int]:
    """Small slices, so that every check is passed both ways; the engine's own fuel is on, but not looked at."""
    store, granted = wasmtime.Store(engine()), 0
    store.set_fuel(FUEL * 100)

    def tick(left: int) -> int:
        nonlocal granted
        assert left < 0
        granted += SLICE - left
        return SLICE

    linker = wasmtime.Linker(engine())
    linker.define_func(RESERVED, TICK, wasmtime.FuncType([I64], [I64]), tick)
    instance = linker.instantiate(store, wasmtime.Module(engine(), meter(wasm)))
    found = outcome(store, instance)
    left = instance.exports(store)[LEFT]
    assert isinstance(left, wasmtime.Global)
    return found, granted - left.value(store)


def outcome(store: wasmtime.Store, instance: wasmtime.Instance) -> object:
    function = instance.exports(store)["r"]
    assert isinstance(function, wasmtime.Func)
    try:
        found = function(store)
    except wasmtime.Trap as trap:
        return trap.trap_code
    return "nan" if isinstance(found, float) and math.isnan(found) else found


def setup(wasm: bytes) -> int:
    """What wasmtime charges for its own work on tables and globals at the start, where there is no start function."""
    store = wasmtime.Store(engine())
    store.set_fuel(FUEL)
    wasmtime.Instance(store, wasmtime.Module(engine(), wasm), [])
    return FUEL - store.get_fuel()


@pytest.mark.parametrize("group", CORPUS)
def test_every_group_of_operators_gives_the_same_result_and_count(group):
    for wat in CORPUS[group]:
        wasm = bytes(wasmtime.wat2wasm(wat))
        found, count = native(wasm)
        assert injected(wasm) == (found, count - setup(wasm)), wat


def test_a_start_function_is_counted_too():
    for wat in START:
        wasm = bytes(wasmtime.wat2wasm(wat))
        assert injected(wasm) == native(wasm)


@pytest.mark.parametrize("wat", TRAPS)
def test_other_traps_stay_the_same_traps(wat):
    wasm = bytes(wasmtime.wat2wasm(wat))
    found, _ = native(wasm)
    assert isinstance(found, wasmtime.TrapCode)
    assert injected(wasm)[0] == found


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_programs_made_by_chance_give_the_same_result_and_count(first):
    long = 0
    for seed in range(first, first + 100):
        wasm = bytes(wasmtime.wat2wasm(Chance(seed).module()))
        expected = native(wasm)
        assert injected(wasm) == expected, f"seed {seed}"
        long += expected[1] > 300
    assert long > 10


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
    assert (given.value(store), exports["f"](store, 3), calls) == (50, 30, [-4])
    left = exports[LEFT].value(store)
    assert exports["r"](store, 7) == 570
    assert (given.value(store), exports["g"].value(store), exports["own"].value(store)) == (500, 500, 42)
    assert left - exports[LEFT].value(store) == 16
    assert set(exports) == {"f", "g", "own", "r", LEFT}


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
    assert METER_VERSION == 4
