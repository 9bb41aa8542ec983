"""Which engine runs, in which version and interpreter, and what it counts: known without loading it here."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from offchainvm.engine.meter import METER_VERSION
from offchainvm.errors import SettingsError

WASMTIME, WASMER = "wasmtime", "wasmer"
METERINGS = ("native", "injected")
_CONFIGURATIONS = {WASMTIME: 7, WASMER: 6}
"""Part of the key of cached native code: count up with every change of ``make_engine``, of a pass, of the static
limits, or of what is kept beside it."""
_ASK_SECONDS = 20.0
_ASK_WASMER = """
import json, sys
if sys.version_info[:2] != (3, 10):
    sys.exit("it is Python %d.%d" % sys.version_info[:2])
import wasmer, wasmer_compiler_cranelift
print(json.dumps([wasmer.__version__, [path for path in sys.path if path]]))
"""
_INSTALL = "pip install wasmer==1.1.0 wasmer-compiler-cranelift==1.1.0"


@dataclass(frozen=True)
class Engine:
    """An engine that can run here; its processes run in the interpreter ``python``, with these paths to its libraries."""

    name: str
    version: str
    metering: str
    python: str
    paths: tuple[str, ...]

    @property
    def meter_version(self) -> str:
        """Names what one instruction is: who counts operators by which table, and one per byte that a host function moves."""
        return f"{self.native_meter if self.metering == 'native' else f'{self.metering}-{METER_VERSION}'}+host-1"

    @property
    def native_meter(self) -> str:
        """The engine's own count; with this alone components are counted."""
        return f"{self.name}-{self.version.split('.')[0]}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Native code made by one is of use to another of the same identity only."""
        return self.name, self.version, str(_CONFIGURATIONS[self.name]), self.meter_version


def find_engine(name: str, *, metering: str = "injected", wasmer_python: Path | None = None) -> Engine:
    """The engine of this name. wasmer has no meter of its own: there, modules always count themselves.

    Args:
        name: ``wasmtime`` or ``wasmer``.
        metering: ``native``, the engine's own fuel, or ``injected``, by the module itself.
        wasmer_python: a Python 3.10 that has wasmer; by default this interpreter.

    Raises:
        SettingsError: it cannot be used here; the problem says why, and what to do.
    """
    if metering not in METERINGS:
        raise SettingsError([f"METERING: {metering!r} is not built into this version. Set METERING=native or METERING=injected."])
    if name == WASMTIME:
        return Engine(name, importlib.metadata.version(WASMTIME), metering, sys.executable, _own_paths())
    if name != WASMER:
        raise SettingsError([f"WASM_RUNTIME: the engine {name!r} is not built into this version. Set WASM_RUNTIME=wasmtime."])
    version, paths = _wasmer_of(wasmer_python)
    return Engine(name, version, "injected", str(wasmer_python or sys.executable), paths)


def _own_paths() -> tuple[str, ...]:
    return tuple(path for path in sys.path if Path(path).is_absolute())


@functools.cache
def _wasmer_of(python: Path | None) -> tuple[str, tuple[str, ...]]:
    """The version of wasmer that this interpreter has, and where it finds modules."""
    try:
        command = [str(python or sys.executable), "-I", "-c", _ASK_WASMER]
        asked = subprocess.run(command, env={}, cwd="/", capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError([_no_wasmer(python, type(error).__name__)]) from None
    if asked.returncode:
        raise SettingsError([_no_wasmer(python, asked.stderr.strip().rpartition("\n")[2][:200])])
    version, paths = json.loads(asked.stdout)
    return version, tuple(paths)


def _no_wasmer(python: Path | None, why: str) -> str:
    told = f" ({why})" if why else ""
    if python is None:
        return (
            f"WASM_RUNTIME: this Python {sys.version_info[0]}.{sys.version_info[1]} cannot run wasmer{told}, whose last packages are for "
            f"Python 3.10. In a Python 3.10: {_INSTALL}; then set WASMER_PYTHON to it. Or set WASM_RUNTIME=wasmtime."
        )
    return (
        f"WASMER_PYTHON: {python} is no Python 3.10 that can import wasmer and wasmer_compiler_cranelift{told}. "
        f"In it: {_INSTALL}; or correct the path, or remove the setting."
    )
