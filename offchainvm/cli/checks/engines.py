"""Which engines can run modules here: each is asked to run one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from offchainvm.engine.identity import WASMER, WASMTIME, find_engine
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.engine.trial import run_module
from offchainvm.errors import ExecutionError, OffchainVMError, SettingsError
from offchainvm.settings import Settings, load_only


def check_engines() -> str:
    """The engine of WASM_RUNTIME runs a module here; of the other it is told whether it does, and why not."""
    settings = load_only(["wasm_runtime", "wasmer_python", "metering", "wasm_components"])
    told, wrong = list[str](), list[str]()
    for name in (WASMTIME, WASMER):
        used = name == settings.wasm_runtime
        try:
            told.append(_try(name, settings) + (" (in use)" if used else ""))
        except SettingsError as error:
            (wrong if used else told).append(f"{name} cannot be used: {' '.join(error.problems)}")
        except ExecutionError as error:
            (wrong if used else told).append(f"{name} cannot be used: it ran no module here: {error.sentence}")
    if wrong:
        raise OffchainVMError("\n".join([*wrong, *told]), remedy="Correct WASM_RUNTIME or WASMER_PYTHON; see docs/engines.md.")
    return "\n".join(told)


def _try(name: str, settings: Settings) -> str:
    engine = find_engine(name, metering=settings.metering, wasmer_python=settings.wasmer_python)
    with (
        tempfile.TemporaryDirectory(prefix="offchainvm-doctor-") as folder,
        Supervisor(
            cache_folder=Path(folder), cache_max_bytes=MIB, metering=settings.metering, engine=name, wasmer_python=settings.wasmer_python
        ) as supervisor,
    ):
        run_module(supervisor)
    components = "components too" if name == WASMTIME and settings.wasm_components else "no components"
    return f"{name} {engine.version} runs modules, {components}, counts {engine.meter_version}"
