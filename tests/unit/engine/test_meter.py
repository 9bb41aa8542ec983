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
    assert METER_VERSION == 3
