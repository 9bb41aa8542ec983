"""Calls into a guest in slices of fuel, through wasmtime's asynchronous C functions.

A plain call gives control back only at its end: a guest that must be stopped then leaves no count behind, since
wasmtime keeps the fuel in a register. An asynchronous call stops after each slice, with the fuel written down, on the
calling thread and without any thread of its own. So the deadline is looked at every millisecond or so and every count is known.
https://docs.wasmtime.dev/c-api/async_8h.html (the Python package has no asynchronous calls)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component

SLICE_INSTRUCTIONS = 1_000_000
"""What a slice costs beside its work is some 3 µs; what a count may lack after a trap is less than a slice."""

_VOID = ctypes.c_void_p
_call_async = ffi.dll.wasmtime_func_call_async
_call_async.restype, _call_async.argtypes = _VOID, [_VOID, _VOID, _VOID, ctypes.c_size_t, _VOID, ctypes.c_size_t, _VOID, _VOID]
_instantiate_async = ffi.dll.wasmtime_linker_instantiate_async
_instantiate_async.restype, _instantiate_async.argtypes = _VOID, [_VOID] * 6
_poll = ffi.dll.wasmtime_call_future_poll
_poll.restype, _poll.argtypes = ctypes.c_bool, [_VOID]
_delete = ffi.dll.wasmtime_call_future_delete
_delete.restype, _delete.argtypes = None, [_VOID]


def _address(pointer: Any) -> ctypes.c_void_p:
    return ctypes.cast(pointer, _VOID)


class Slices:
    """Runs the guests of one store; ``on_slice`` is called after each slice and ends the guest by raising."""

    def __init__(self, store: wasmtime.Store, on_slice: Callable[[], None]) -> None:
        self._store, self._on_slice = store, on_slice
        error = ffi.wasmtime_context_fuel_async_yield_interval(store._context(), SLICE_INSTRUCTIONS)
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)

    def instantiate(self, linker: wasmtime.Linker, module: wasmtime.Module) -> wasmtime.Instance:
        """Instantiate, the module's start function included.

        Raises:
            wasmtime.Trap, wasmtime.WasmtimeError: what the guest or the linking ended with.
        """
        instance = ffi.wasmtime_instance_t()
        self._drive(
            lambda trap, error: _instantiate_async(
                _address(linker.ptr()), _address(self._store._context()), _address(module.ptr()), ctypes.byref(instance), trap, error
            )
        )
        return wasmtime.Instance._from_raw(instance)

    def call(self, function: wasmtime.Func, *arguments: int, results: int = 0) -> int | None:
        """Call a function of i32 arguments; gives its result where ``results`` is 1."""
        values = (ffi.wasmtime_val_t * max(1, len(arguments)))()
        for value, argument in zip(values, arguments, strict=False):
            value.kind, value.of.i32 = ffi.WASMTIME_I32.value, argument
        found = (ffi.wasmtime_val_t * 1)()
        self._drive(
            lambda trap, error: _call_async(
                _address(self._store._context()), ctypes.byref(function._func), values, len(arguments), found, results, trap, error
            )
        )
        return int(found[0].of.i32) if results else None

    def instantiate_component(self, linker: component.Linker, program: component.Component) -> component.Instance:
        """Instantiate, the start functions of its core modules included.

        Raises:
            wasmtime.WasmtimeError: what the guest or the linking ended with.
        """
        made = ffi.wasmtime_component_instance_t()
        self._drive(
            lambda _, error: ffi.wasmtime_component_linker_instantiate_async(
                linker.ptr(), self._store._context(), program.ptr(), ctypes.byref(made), error
            )
        )
        return component.Instance._from_raw(made)

    def call_component(self, function: component.Func) -> object:
        """Call a function without arguments, for its one result.

        Raises:
            wasmtime.WasmtimeError: what the guest ended with.
        """
        found = ffi.wasmtime_component_val_t()
        self._drive(
            lambda _, error: ffi.wasmtime_component_func_call_async(
                ctypes.byref(function._func), self._store._context(), None, 0, ctypes.byref(found), 1, error
            )
        )
        kind = function.type(self._store).result
        return None if kind is None else kind.convert_from_c(found)

    def _drive(self, start: Callable[[Any, Any], Any]) -> None:
        trap, error = ctypes.POINTER(ffi.wasm_trap_t)(), ctypes.POINTER(ffi.wasmtime_error_t)()
        future = start(ctypes.byref(trap), ctypes.byref(error))
        try:
            while not _poll(future):
                self._on_slice()
        finally:
            _delete(future)
        if trap:
            raise wasmtime.Trap._from_ptr(trap)
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
