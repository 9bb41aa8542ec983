"""wasmtime: the engine's configuration, and validation under it."""

from __future__ import annotations

import functools
import importlib.metadata

import wasmtime

from offchainvm.errors import ExecutionError, Status

NAME = "wasmtime"


@functools.cache
def version() -> str:
    return importlib.metadata.version("wasmtime")


def make_engine() -> wasmtime.Engine:
    """An engine with fuel, one thread, deterministic floats, and without the proposals that this worker does not run."""
    config = wasmtime.Config()
    config.consume_fuel = True
    config.parallel_compilation = False
    config.cranelift_nan_canonicalization = True
    config.max_wasm_stack = 512 * 1024
    for proposal in ("threads", "memory64", "multi_memory", "gc", "function_references", "exceptions", "relaxed_simd", "stack_switching",
                     "custom_page_sizes", "wide_arithmetic", "component_model"):  # fmt: skip
        setattr(config, f"wasm_{proposal}", False)
    return wasmtime.Engine(config)


@functools.cache
def engine() -> wasmtime.Engine:
    """The one engine of this process."""
    return make_engine()


def validate(untrusted_wasm: bytes) -> None:
    """The engine's own validation.

    Raises:
        ExecutionError: invalid_module or unsupported_feature.
    """
    try:
        wasmtime.Module.validate(engine(), untrusted_wasm)
    except wasmtime.WasmtimeError as error:
        raise invalid(str(error)) from None


def invalid(untrusted_message: str) -> ExecutionError:
    """The error for what the engine says about a module."""
    text = " ".join(untrusted_message.split())[:300]
    missing = "support is not enabled" in text or "proposal" in text or "requires" in text
    if missing:
        return ExecutionError(Status.UNSUPPORTED_FEATURE, f"The module uses a feature that is switched off: {text}")
    return ExecutionError(Status.INVALID_MODULE, f"The module is not valid WebAssembly: {text}")
