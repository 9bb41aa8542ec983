"""The ways to count beside each other, in this process: what a call gave, and what it used."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import wasmtime

from offchainvm.engine.meter import LEFT, RESERVED, TICK, meter
from offchainvm.engine.meter_snippets import STACK_OVERFLOW
from offchainvm.engine.wasmtime_engine import engine

FUEL = 10**9
SLICE = 70
I64 = wasmtime.ValType.i64()
OUT_OF_FUEL, OVERFLOW, UNREACHABLE = wasmtime.TrapCode.OUT_OF_FUEL, wasmtime.TrapCode.STACK_OVERFLOW, wasmtime.TrapCode.UNREACHABLE


class Found(NamedTuple):
    """A result or a trap's code, and the instructions; at most the limit."""

    outcome: object
    used: int


class _Ended(Exception):
    def __init__(self, code: wasmtime.TrapCode) -> None:
        super().__init__(code)
        self.code = code


def native(wasm: bytes, name: str | None = "r", arguments: tuple[float, ...] = (), *, limit: int = FUEL) -> Found:
    """By wasmtime's fuel; no ``name``: the start alone."""
    store = wasmtime.Store(engine("native"))
    store.set_fuel(limit)
    outcome = _outcome(lambda: wasmtime.Instance(store, _compiled(wasm, "native"), []).exports(store), store, name, arguments)
    return Found(outcome, limit - store.get_fuel())


def injected(wasm: bytes, name: str | None = "r", arguments: tuple[float, ...] = (), *, limit: int = FUEL) -> Found:
    """By the module itself, in small slices, so that every check is passed both ways."""
    store, linker, granted = wasmtime.Store(engine("injected")), wasmtime.Linker(engine("injected")), 0
    counter: list[wasmtime.Global] = []

    def exports() -> wasmtime.InstanceExports:
        found = linker.instantiate(store, _compiled(wasm, "injected")).exports(store)
        counter[:] = [found[LEFT]]
        return found

    def tick(caller: wasmtime.Caller, left: int) -> int:
        nonlocal granted
        counter[:] = [caller[LEFT]]
        if left == STACK_OVERFLOW:
            raise _Ended(OVERFLOW)
        assert left < 0
        if granted - left > limit:
            granted = limit
            raise _Ended(OUT_OF_FUEL)
        given = min(SLICE, limit - granted + left)
        granted += given - left
        return given

    linker.define_func(RESERVED, TICK, wasmtime.FuncType([I64], [I64]), tick, access_caller=True)
    outcome = _outcome(exports, store, name, arguments)
    used = granted - counter[0].value(store) if counter and outcome is not OUT_OF_FUEL else granted
    return Found(outcome, used) if used <= limit else Found(OUT_OF_FUEL, limit)


@functools.lru_cache(maxsize=4)
def _compiled(wasm: bytes, metering: str) -> wasmtime.Module:
    return wasmtime.Module(engine(metering), meter(wasm) if metering == "injected" else wasm)


def _outcome(
    instantiate: Callable[[], wasmtime.InstanceExports], store: wasmtime.Store, name: str | None, arguments: tuple[float, ...]
) -> object:
    try:
        exports = instantiate()
        found = exports[name](store, *arguments) if name else None
    except wasmtime.Trap as trap:
        return trap.trap_code
    except _Ended as ended:
        return ended.code
    return [_comparable(item) for item in (found if isinstance(found, list) else [found])]


def _comparable(value: object) -> object:
    return "nan" if isinstance(value, float) and math.isnan(value) else value
