"""wasmtime: the engine's configuration, validation, compilation, and the linear memory of a guest."""

from __future__ import annotations

import ctypes
import functools

import wasmtime
from wasmtime import _ffi as ffi

from offchainvm.engine.confine import HOST_STACK_BYTES, available_stack_bytes
from offchainvm.engine.meter import NATIVE_STACK_BYTES, meter
from offchainvm.engine.wasi import BadPointer
from offchainvm.errors import ExecutionError, Status

WASM_STACK_BYTES = 512 * 1024


def make_engine(metering: str) -> wasmtime.Engine:
    """An engine with one thread, deterministic floats, fuel where that is the meter, and without the proposals that are not run here.

    Every change here counts ``identity.CONFIGURATION`` up.
    """
    config = wasmtime.Config()
    config.consume_fuel = metering == "native"
    # A process that compiled in parallel must not fork: its children hang on the pool's locks.
    config.parallel_compilation = False
    config.cranelift_nan_canonicalization = True
    stack = WASM_STACK_BYTES if metering == "native" else available_stack_bytes(NATIVE_STACK_BYTES)
    # Calls that count fuel have a stack of their own; the rest of it is for the host functions, which are Python.
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), stack + HOST_STACK_BYTES)
    config.max_wasm_stack = stack
    for proposal in ("threads", "memory64", "multi_memory", "gc", "function_references", "exceptions", "relaxed_simd", "stack_switching",
                     "custom_page_sizes", "wide_arithmetic", "component_model"):  # fmt: skip
        setattr(config, f"wasm_{proposal}", False)
    return wasmtime.Engine(config)


@functools.cache
def engine(metering: str = "native") -> wasmtime.Engine:
    """The one engine of this process for this way of counting."""
    return make_engine(metering)


def validate(untrusted_wasm: bytes) -> None:
    """The engine's own validation.

    Raises:
        ExecutionError: invalid_module or unsupported_feature.
    """
    try:
        wasmtime.Module.validate(engine(), untrusted_wasm)
    except wasmtime.WasmtimeError as error:
        raise _invalid(str(error)) from None


def compile_module(untrusted_wasm: bytes, *, metering: str = "native") -> bytes:
    """Native code of a checked module, which counts in itself where that is asked for; only ever in a child with limits.

    Raises:
        ExecutionError: module_too_complex, where the compiler has a limit of its own.
    """
    if metering == "injected":
        untrusted_wasm = meter(untrusted_wasm)
    try:
        return bytes(wasmtime.Module(engine(metering), untrusted_wasm).serialize())
    except wasmtime.WasmtimeError as error:
        text = " ".join(str(error).split())[:300]
        raise ExecutionError(Status.MODULE_TOO_COMPLEX, f"The module could not be compiled: {text}") from None


class StaleNativeCode(Exception):
    """Native code that this engine on this processor cannot use: compile again."""


def load(path: str, *, metering: str = "native") -> wasmtime.Module:
    """A module from a file of native code that this worker made itself.

    Raises:
        StaleNativeCode: it was made by another version, configuration or processor.
    """
    try:
        return wasmtime.Module.deserialize_file(engine(metering), path)
    except wasmtime.WasmtimeError:
        raise StaleNativeCode from None


def _invalid(untrusted_message: str) -> ExecutionError:
    text = " ".join(untrusted_message.split())[:300]
    if any(words in text for words in ("not enabled", "proposal", "requires")):
        return ExecutionError(Status.UNSUPPORTED_FEATURE, f"The module uses a feature that is switched off: {text}")
    return ExecutionError(Status.INVALID_MODULE, f"The module is not valid WebAssembly: {text}")


# Bound once more: the package's own binding makes a pointer object of each answer, which costs more than the question.
_memory_data = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(("wasmtime_memory_data", ffi.dll))
_memory_size = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)(("wasmtime_memory_data_size", ffi.dll))


class LinearMemory:
    """A guest's memory, every access checked against its present size."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._context, self._memory = store._context(), ctypes.byref(memory._memory)
        # ``byref`` keeps no reference of its own to the structure.
        self._keep = (store, memory)

    @property
    def size(self) -> int:
        return int(_memory_size(self._context, self._memory))

    def read(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(self._at(pointer, size), size) if size else self._nothing(pointer)

    def write(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(self._at(pointer, len(data)), data, len(data))

    def _nothing(self, pointer: int) -> bytes:
        self._at(pointer, 0)
        return b""

    def _at(self, pointer: int, size: int) -> int:
        if pointer < 0 or size < 0 or pointer + size > self.size:
            raise BadPointer
        # wasmtime keeps a memory where it is only while nobody grows it, so its place is asked for each time.
        return (_memory_data(self._context, self._memory) or 0) + pointer
