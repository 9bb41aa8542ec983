"""The engines that there are, by their names."""

from __future__ import annotations

from offchainvm.engine.machine import Backend


def backend(engine: str) -> Backend:
    """The room of the engine of this name; loads its library."""
    if engine == "wasmer":
        from offchainvm.engine import wasmer_engine  # noqa: PLC0415 - only one of the two need be installed

        return wasmer_engine
    from offchainvm.engine import wasmtime_engine  # noqa: PLC0415 - the same

    return wasmtime_engine
