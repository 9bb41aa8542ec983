"""Which engines can run modules here."""

from __future__ import annotations

from offchainvm.engine.identity import WASMER, WASMTIME, find_engine
from offchainvm.errors import OffchainVMError, SettingsError
from offchainvm.settings import load_only


def check_engines() -> str:
    """The engine of WASM_RUNTIME can run here; of the other it is told whether it could, and why not."""
    settings = load_only(["wasm_runtime", "wasmer_python", "metering"])
    told, wrong = list[str](), list[str]()
    for name in (WASMTIME, WASMER):
        try:
            engine = find_engine(name, metering=settings.metering, wasmer_python=settings.wasmer_python)
            told.append(f"{name} {engine.version}, counts {engine.meter_version}" + (" (in use)" if name == settings.wasm_runtime else ""))
        except SettingsError as error:
            (wrong if name == settings.wasm_runtime else told).append(f"{name} cannot be used: {' '.join(error.problems)}")
    if wrong:
        raise OffchainVMError("\n".join([*wrong, *told]), remedy="Correct WASM_RUNTIME or WASMER_PYTHON; see docs/engines.md.")
    return "\n".join(told)
