"""The ways to run one loop: in wasmtime, counted or not; in wasmer; in an interpreter. Each is a call that tells what one run took."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import wasmtime

from offchainvm.engine.identity import WASMER, Engine, find_engine
from offchainvm.engine.machine import Watch
from offchainvm.engine.meter import meter
from offchainvm.engine.wasmtime_engine import engine, make_engine
from offchainvm.engine.wasmtime_machine import FuelCounter, InjectedCounter
from offchainvm.errors import SettingsError
from offchainvm.settings import load_only

PLAIN, NATIVE, INJECTED = "plain", "native", "injected"
Run = Callable[[], "tuple[float, int | None]"]
"""Runs the loop once: its seconds, and the instructions counted since the first run; None where nobody counts."""
_FOREVER = 1 << 60
_ROOT = Path(__file__).parents[1]
_INTERPRETER = Path(__file__).parent / "interpreter"


def build_interpreter() -> Path | str:
    """The program in ``benchmarks/interpreter``, built by cargo; or why there is none."""
    try:
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=_INTERPRETER, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        return "cargo is not installed"
    except subprocess.CalledProcessError as error:
        return f"cargo could not build it: {error.stderr.strip().splitlines()[-1:]}"
    return _INTERPRETER / "target" / "release" / "interpreter"


def find_wasmer() -> Engine | str:
    """wasmer, of WASMER_PYTHON or of this Python; or why there is none."""
    try:
        return find_engine(WASMER, wasmer_python=load_only(["wasmer_python"]).wasmer_python)
    except SettingsError as error:
        return " ".join(error.problems)


def in_wasmtime(wasm: bytes, name: str, argument: int) -> Run:
    """Without a meter, with the engine's own fuel, or with the counter that the worker injects."""
    made = make_engine(INJECTED) if name == PLAIN else engine(name)
    store = wasmtime.Store(made)
    counter = FuelCounter(store, _FOREVER, _nothing) if name == NATIVE else InjectedCounter(store, _FOREVER, Watch(_nothing, _fail))
    module = wasmtime.Module(made, meter(wasm) if name == INJECTED else wasm)
    linker = wasmtime.Linker(made)
    instance = wasmtime.Linker.instantiate(linker, store, module) if name == PLAIN else counter.instantiate(linker, module)
    function = instance.exports(store)["run"]
    if not isinstance(function, wasmtime.Func):
        raise TypeError("the loop exports no function")

    def run() -> tuple[float, int | None]:
        began = time.process_time()
        counter.call(function, argument, results=1)
        return time.process_time() - began, None if name == PLAIN else _FOREVER - counter.left

    return run


@contextmanager
def in_wasmer(wasmer: Engine, wasm: bytes, argument: int) -> Iterator[Run]:
    """With the injected counter, in a process of the interpreter that has wasmer."""
    with _in_file(wasm) as path:
        command = [wasmer.python, "-m", "benchmarks.in_wasmer", path, str(argument)]
        with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

            def run() -> tuple[float, int | None]:
                print(file=process.stdin, flush=True)
                seconds, counted = process.stdout.readline().split()
                return float(seconds), int(counted)

            yield run


def in_interpreter(interpreter: Path, wasm: bytes, argument: int) -> Iterable[float]:
    """The seconds of two runs in wasmi, with its fuel."""
    with _in_file(wasm) as path:
        done = subprocess.run([interpreter, path, str(argument), "2"], check=True, capture_output=True, text=True)
    return map(float, done.stdout.split())


@contextmanager
def _in_file(wasm: bytes) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "loop.wasm"
        path.write_bytes(wasm)
        yield path


def _nothing() -> None:
    """No deadline here."""


def _fail(ended: BaseException) -> None:
    raise ended
