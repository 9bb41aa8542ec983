"""The meters beside each other, on loops of calls, memory, integers and floats: plain, native fuel, injected; and an interpreter.

Each loop is timed in every way in turn, several times, and the fastest round counts: ratios of one run, since hosts
differ. The pass itself is measured on one module of the same functions many times over, and on a quarter of it.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import wasmtime

from benchmarks.loops import LOOPS, Loop
from offchainvm.engine.machine import Counter, Watch
from offchainvm.engine.meter import meter
from offchainvm.engine.wasmtime_engine import engine, make_engine
from offchainvm.engine.wasmtime_machine import FuelCounter, InjectedCounter

_PLAIN, _NATIVE, _INJECTED = "plain", "native", "injected"
_FOREVER = 1 << 60
_COPIES = 3000
_INTERPRETER = Path(__file__).parent / "interpreter"


@dataclass(frozen=True)
class MeasuredLoop:
    """Times against the plain engine's; ``same_count``: both meters counted ``instructions``.

    ``interpreter_ratio`` is None where none could be built.
    """

    name: str
    plain_ms: float
    native_ratio: float
    injected_ratio: float
    interpreter_ratio: float | None
    instructions: int
    same_count: bool


@dataclass(frozen=True)
class MeasuredPass:
    """The metering pass on one module, and on one of a quarter of its size."""

    name: str
    megabytes: float
    megabytes_per_second: float
    quarter_megabytes_per_second: float
    growth: float


def build_interpreter() -> Path | str:
    """The program in ``benchmarks/interpreter``, built by cargo; or why there is none."""
    try:
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=_INTERPRETER, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        return "cargo is not installed"
    except subprocess.CalledProcessError as error:
        return f"cargo could not build it: {error.stderr.strip().splitlines()[-1:]}"
    return _INTERPRETER / "target" / "release" / "interpreter"


def measure_loop(loop: Loop, *, share: float, interpreter: Path | None) -> MeasuredLoop:
    """Time one loop in every way, turn by turn."""
    rounds = max(2, int(4 * share))
    best, counts = dict.fromkeys((_PLAIN, _NATIVE, _INJECTED), float("inf")), set[int]()
    for wasm in loop.placed():
        ways = {name: _prepared(wasm, name) for name in best}
        for _ in range(rounds):
            for name, (run, _) in ways.items():
                best[name] = min(best[name], _seconds(run, loop.argument))
        counts |= {(_FOREVER - ways[name][1].left) // rounds for name in (_NATIVE, _INJECTED)}
    plain = best[_PLAIN]
    other = min(_interpreted(interpreter, wasm, loop.argument)) / plain if interpreter else None
    return MeasuredLoop(
        loop.name, plain * 1000, best[_NATIVE] / plain, best[_INJECTED] / plain, other, min(counts), same_count=len(counts) == 1
    )


def measure_pass(*, share: float) -> MeasuredPass:
    """The speed of the metering pass; linear is linear: both sizes go at the same speed."""
    quarter, whole = (_pass(max(1, int(copies * share))) for copies in (_COPIES, 4 * _COPIES))
    return MeasuredPass("metering pass", whole[0] / 1e6, whole[1], quarter[1], whole[2])


def _pass(copies: int) -> tuple[int, float, float]:
    functions = "".join(loop.functions(number) for number in range(copies // len(LOOPS)) for loop in LOOPS)
    wasm = bytes(wasmtime.wat2wasm(f"(module (memory 1) {functions})"))
    made, seconds = b"", float("inf")
    for _ in range(3):
        began = time.perf_counter()
        made = meter(wasm)
        seconds = min(seconds, time.perf_counter() - began)
    return len(wasm), len(wasm) / 1e6 / seconds, len(made) / len(wasm)


def _seconds(run: Callable[[int], object], argument: int) -> float:
    began = time.perf_counter()
    run(argument)
    return time.perf_counter() - began


def _interpreted(interpreter: Path, wasm: bytes, argument: int) -> Iterable[float]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "loop.wasm"
        path.write_bytes(wasm)
        done = subprocess.run([interpreter, path, str(argument), "2"], check=True, capture_output=True, text=True)
    return map(float, done.stdout.split())


def _prepared(wasm: bytes, name: str) -> tuple[Callable[[int], object], Counter]:
    made = make_engine(_INJECTED) if name == _PLAIN else engine(name)
    store = wasmtime.Store(made)
    counter = FuelCounter(store, _FOREVER, _nothing) if name == _NATIVE else InjectedCounter(store, _FOREVER, Watch(_nothing, _fail))
    module = wasmtime.Module(made, meter(wasm) if name == _INJECTED else wasm)
    linker = wasmtime.Linker(made)
    instance = wasmtime.Linker.instantiate(linker, store, module) if name == _PLAIN else counter.instantiate(linker, module)
    function = instance.exports(store)["run"]
    if not isinstance(function, wasmtime.Func):
        raise TypeError("the loop exports no function")
    return (lambda argument: counter.call(function, argument, results=1)), counter


def _nothing() -> None:
    """No deadline here."""


def _fail(ended: BaseException) -> None:
    raise ended
