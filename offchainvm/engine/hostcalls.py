"""Host functions for wasmtime without its Python conversions, which cost 40 µs a call; this way it is some 5.

https://docs.wasmtime.dev/c-api/func_8h.html (wasmtime_func_unchecked_callback_t): arguments and result share one array of 16-byte values.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from offchainvm.engine.binary import FunctionType

HostFunction = Callable[[Any, tuple[int, ...]], "int | None"]
"""Gets the caller (to be cast when needed) and unsigned arguments; gives its one result, or None; raises to end the guest."""

_TYPES = {"i32": wasmtime.ValType.i32(), "i64": wasmtime.ValType.i64()}
_FORMATS = {"i32": "I12x", "i64": "Q8x"}
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_ENDED = b"ended by a host function"


def define(linker: wasmtime.Linker, module: str, name: str, signature: FunctionType, function: HostFunction) -> object:
    """Define one host function; what is returned has to live as long as the linker and its instances."""
    layout = struct.Struct("<" + "".join(_FORMATS[kind] for kind in signature.params))
    result_type = ctypes.c_int64 if "i64" in signature.results else ctypes.c_int32
    string_at, result_at, size = ctypes.string_at, result_type.from_address, layout.size

    def call(_environment: int | None, caller: int, values: int, _count: int) -> int:
        try:
            result = function(caller, layout.unpack(string_at(values, size)) if size else ())
            if result is not None:
                result_at(values).value = result
        except BaseException:  # the function has noted it; nothing may cross the C frames
            trap = ffi.wasmtime_trap_new(_ENDED, len(_ENDED))
            return ctypes.cast(trap, ctypes.c_void_p).value or 0
        return 0

    callback = _CALLBACK(call)
    kind = wasmtime.FuncType([_TYPES[item] for item in signature.params], [_TYPES[item] for item in signature.results])
    error = ffi.wasmtime_linker_define_func_unchecked(
        linker.ptr(), module.encode(), len(module), name.encode(), len(name), kind.ptr(),
        ctypes.cast(callback, ffi.wasmtime_func_unchecked_callback_t), None, _NO_FINALIZER,
    )  # fmt: skip
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    return callback


def exported(caller: Any, name: str) -> object:
    """The calling module's export of this name, or None."""
    pointer = ctypes.cast(caller, ctypes.POINTER(ffi.wasmtime_caller_t))
    return wasmtime.Caller(pointer).get(name)
