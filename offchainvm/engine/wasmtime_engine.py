"""wasmtime: the engine's configuration, validation and compilation."""

from __future__ import annotations

import functools
from collections.abc import Callable

import wasmtime
from wasmtime import _ffi as ffi

from offchainvm.engine.confine import HOST_STACK_BYTES, available_stack_bytes
from offchainvm.engine.hosted import bounded
from offchainvm.engine.limits import Limits
from offchainvm.engine.machine import StaleNativeCode, Watch, invalid, too_complex
from offchainvm.engine.meter import NATIVE_STACK_BYTES, meter
from offchainvm.engine.wasmtime_machine import WasmtimeMachine

WASM_STACK_BYTES = 512 * 1024


def make_engine(metering: str, *, components: bool = False) -> wasmtime.Engine:
    """An engine with one thread, deterministic floats, fuel where that is the meter, and without the proposals that are not run here.

    Every change here counts ``identity._CONFIGURATIONS`` up.
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
                     "custom_page_sizes", "wide_arithmetic"):  # fmt: skip
        setattr(config, f"wasm_{proposal}", False)
    config.wasm_component_model = components
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
        raise invalid(str(error)) from None


def in_child(work: Callable[[], None]) -> None:
    """This engine bounds a guest's stack itself."""
    work()


def prepare_compiler() -> None:
    """This compiler needs nothing beforehand."""


def compile_module(untrusted_wasm: bytes, metering: str = "native") -> bytes:
    """Native code of a checked module, which counts in itself where that is asked for; only ever in a child with limits.

    Raises:
        ExecutionError: module_too_complex, where the compiler has a limit of its own; compile_resource_limit.
    """
    made = bounded(untrusted_wasm)
    try:
        return bytes(wasmtime.Module(engine(metering), meter(made) if metering == "injected" else made).serialize())
    except wasmtime.WasmtimeError as error:
        raise too_complex(str(error)) from None


def load(path: str, metering: str = "native") -> wasmtime.Module:
    """A module from a file of native code that this worker made itself.

    Raises:
        StaleNativeCode: it was made by another version, configuration or processor.
    """
    try:
        return wasmtime.Module.deserialize_file(engine(metering), path)
    except wasmtime.WasmtimeError:
        raise StaleNativeCode from None


def load_ours(wasm: bytes, metering: str = "native") -> wasmtime.Module:
    """A program from a module of ours."""
    return wasmtime.Module.deserialize(engine(metering), compile_module(wasm, metering))


def machine(program: wasmtime.Module, limits: Limits, watch: Watch, metering: str = "native") -> WasmtimeMachine:
    """A store of its own for one guest."""
    return WasmtimeMachine(engine(metering), program, limits, watch, metering=metering)
