"""Which engine runs, in which version, and what it counts: known without loading it."""

from __future__ import annotations

import functools
import importlib.metadata

ENGINE = "wasmtime"
CONFIGURATION = 1
"""Part of the key of cached native code: count up with every change of ``wasmtime_engine.make_engine``."""


@functools.cache
def engine_version() -> str:
    return importlib.metadata.version(ENGINE)


@functools.cache
def meter_version() -> str:
    """Names what one instruction is: wasmtime's table of operators, and one per byte that a host function moves."""
    return f"{ENGINE}-{engine_version().split('.')[0]}+host-1"
