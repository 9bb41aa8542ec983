"""Which engine runs, in which version, and what it counts: known without loading it."""

from __future__ import annotations

import functools
import importlib.metadata

from offchainvm.engine.meter import METER_VERSION

ENGINE = "wasmtime"
CONFIGURATION = 2
"""Part of the key of cached native code: count up with every change of ``wasmtime_engine.make_engine``."""


@functools.cache
def engine_version() -> str:
    return importlib.metadata.version(ENGINE)


@functools.cache
def meter_version(metering: str = "native") -> str:
    """Names what one instruction is: who counts operators by which table, and one per byte that a host function moves."""
    table = f"{ENGINE}-{engine_version().split('.')[0]}" if metering == "native" else f"{metering}-{METER_VERSION}"
    return f"{table}+host-1"
