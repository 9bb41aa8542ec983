"""The two ways to count a guest's instructions: the engine's fuel, and the count that a metered module keeps itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

import wasmtime
from wasmtime import _ffi as ffi

from offchainvm.engine import hostcalls
from offchainvm.engine.binary import FunctionType
from offchainvm.engine.fuel import Slices
from offchainvm.engine.meter import LEFT, RESERVED, TICK
from offchainvm.engine.meter_snippets import STACK_OVERFLOW
from offchainvm.engine.wasi import OutOfInstructions, StackOverflow

SLICE_INSTRUCTIONS = 10_000_000
"""What a metered module runs between two looks at the deadline: some milliseconds, and never near the grace of a kill."""
_TICK_TYPE = FunctionType(("i64",), ("i64",))
_SIGN, _RANGE = 1 << 63, 1 << 64


class Counter(Protocol):
    """Runs one guest and counts. ``left`` is never negative; ``overdrawn``: more was used than the limit."""

    @property
    def left(self) -> int: ...

    @property
    def overdrawn(self) -> bool: ...

    def charge(self, count: int) -> None: ...

    def see(self, _: Any, /) -> None: ...

    def instantiate(self, linker: wasmtime.Linker, module: wasmtime.Module) -> wasmtime.Instance: ...

    def call(self, function: wasmtime.Func, *arguments: int, results: int = 0) -> int | None: ...


class FuelCounter(Slices):
    """The engine's own fuel."""

    overdrawn = False

    def __init__(self, store: wasmtime.Store, instructions: int, on_slice: Callable[[], None]) -> None:
        super().__init__(store, on_slice)
        store.set_fuel(instructions)

    @property
    def left(self) -> int:
        return int(self._store.get_fuel())

    def charge(self, count: int) -> None:
        """Charge what a host function did.

        Raises:
            OutOfInstructions: it is more than what is left.
        """
        left = self._store.get_fuel()
        self._store.set_fuel(max(0, left - count))
        if count > left:
            raise OutOfInstructions

    def see(self, _: Any) -> None:
        return


class InjectedCounter:
    """What a metered module counts: it holds one slice, and asks for the next when that falls below zero.

    Before a call the module writes its count down, so host functions find it, and charge it, in the global.
    ``ended`` is told what ends the guest.
    """

    def __init__(
        self, store: wasmtime.Store, instructions: int, on_slice: Callable[[], None], ended: Callable[[BaseException], None]
    ) -> None:
        self._store, self._on_slice, self._ended = store, on_slice, ended
        self._not_given, self._global, self._last = instructions, None, None
        self._keep: list[object] = []

    _global: wasmtime.Global | None
    _last: int | None

    @property
    def _exactly_left(self) -> int:
        return self._not_given + self._held() if self._last is None else self._last

    @property
    def left(self) -> int:
        return max(0, self._exactly_left)

    @property
    def overdrawn(self) -> bool:
        return self._exactly_left < 0

    def charge(self, count: int) -> None:
        """Charge what a host function did.

        Raises:
            OutOfInstructions: it is more than what is left.
        """
        if count > self._exactly_left or self._global is None:
            self._last = 0
            raise OutOfInstructions
        self._hold(self._held() - count)

    def see(self, caller: Any) -> None:
        """The counter is found at the first call, since a start function runs before anybody can be asked for it."""
        if self._global is None:
            self._find(hostcalls.exported(caller, LEFT))

    def instantiate(self, linker: wasmtime.Linker, module: wasmtime.Module) -> wasmtime.Instance:
        self._keep.append(hostcalls.define(linker, RESERVED, TICK, _TICK_TYPE, self._tick))
        instance = linker.instantiate(self._store, module)
        self._find(instance.exports(self._store)[LEFT])
        return instance

    def call(self, function: wasmtime.Func, *arguments: int, results: int = 0) -> int | None:
        found = function(self._store, *arguments)
        return int(found) if results else None

    def _tick(self, caller: Any, arguments: tuple[int, ...]) -> int:
        self.see(caller)
        (held,) = arguments
        held = held - _RANGE if held & _SIGN else held
        overflow = held == STACK_OVERFLOW
        # Until this returns, the count is here and not in the global; but for an overflow, which wrote it down.
        left = self._exactly_left if overflow else self._not_given + held
        self._last = left
        try:
            if overflow:
                raise StackOverflow
            if left < 0:
                raise OutOfInstructions
            self._on_slice()
        except BaseException as ended:
            self._ended(ended)
            raise
        self._last = None
        given = min(left, SLICE_INSTRUCTIONS)
        self._not_given = left - given
        return given

    def _find(self, found: object) -> None:
        if isinstance(found, wasmtime.Global):
            self._global = found

    def _held(self) -> int:
        if self._global is None:
            return 0
        value = ffi.wasmtime_val_t()
        ffi.wasmtime_global_get(self._store._context(), ctypes.byref(self._global._global), ctypes.byref(value))
        return int(value.of.i64)

    def _hold(self, count: int) -> None:
        if self._global is not None:
            self._global.set_value(self._store, wasmtime.Val.i64(count))
