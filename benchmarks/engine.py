"""The meters beside each other, on loops of calls, memory, integers and floats: plain, native fuel, injected; wasmer; an interpreter.

Each loop is timed in every way in turn, several times, and the fastest round counts, in the processor's time: ratios of one
run, since hosts differ, and do other things too. The pass itself is measured on one module of the same functions many
times over, and on a quarter of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import wasmtime

from benchmarks.loops import LOOPS, Loop
from benchmarks.ways import INJECTED, NATIVE, PLAIN, in_interpreter, in_wasmer, in_wasmtime
from offchainvm.engine.identity import WASMER, Engine
from offchainvm.engine.meter import meter

_COPIES = 3000


@dataclass(frozen=True)
class MeasuredLoop:
    """Times against the plain engine's; ``same_count``: every meter counted ``instructions``.

    ``wasmer_ratio`` and ``interpreter_ratio`` are None where there was none.
    """

    name: str
    plain_ms: float
    native_ratio: float
    injected_ratio: float
    wasmer_ratio: float | None
    interpreter_ratio: float | None
    instructions: int
    same_count: bool


@dataclass(frozen=True)
class MeasuredPass:
    """The metering pass on one module, on one of a quarter of its size, and on the shape that it is slowest on."""

    name: str
    megabytes: float
    megabytes_per_second: float
    quarter_megabytes_per_second: float
    growth: float
    slowest_shape: str
    slowest_megabytes_per_second: float


def measure_loop(loop: Loop, *, share: float, interpreter: Path | None, wasmer: Engine | None) -> MeasuredLoop:
    """Time one loop in every way, turn by turn; the interpreter after them."""
    rounds = max(2, int(4 * share))
    best, counts = dict[str, float](), set[int]()
    for wasm in loop.placed():
        with ExitStack() as stack:
            ways = {name: in_wasmtime(wasm, name, loop.argument) for name in (PLAIN, NATIVE, INJECTED)}
            if wasmer:
                ways[WASMER] = stack.enter_context(in_wasmer(wasmer, wasm, loop.argument))
            for turn in range(1, rounds + 1):
                for name, run in ways.items():
                    seconds, counted = run()
                    best[name] = min(seconds, best.get(name, seconds))
                    counts |= set() if counted is None else {counted // turn}
    plain = best[PLAIN]
    return MeasuredLoop(
        name=loop.name,
        plain_ms=plain * 1000,
        native_ratio=best[NATIVE] / plain,
        injected_ratio=best[INJECTED] / plain,
        wasmer_ratio=best[WASMER] / plain if wasmer else None,
        interpreter_ratio=min(in_interpreter(interpreter, wasm, loop.argument)) / plain if interpreter else None,
        instructions=min(counts),
        same_count=len(counts) == 1,
    )


def measure_pass(*, share: float) -> MeasuredPass:
    """The speed of the metering pass; linear is linear: both sizes go at the same speed."""
    quarter, whole = (_pass(_loops(max(1, int(copies * share)))) for copies in (_COPIES, 4 * _COPIES))
    speeds = {name: _pass(shape(max(1, int(20_000 * share))))[1] for name, shape in _SHAPES.items()}
    slowest = min(speeds, key=lambda name: speeds[name])
    return MeasuredPass("metering pass", whole[0] / 1e6, whole[1], quarter[1], whole[2], slowest, speeds[slowest])


def _loops(copies: int) -> str:
    return "(memory 1)" + "".join(loop.functions(number) for number in range(copies // len(LOOPS)) for loop in LOOPS)


# Little of each is code of the guest's: nearly every operator is one at which the pass has something to do.
_SHAPES: dict[str, Callable[[int], str]] = {
    "calls alone": lambda copies: f"(func $f) (func {'(call $f)' * copies})",
    "loops alone": lambda copies: f"(func (local i32) {'(loop (br_if 0 (local.get 0)))' * copies})",
    "branches alone": lambda copies: f"(func (local i32) {'(if (local.get 0) (then))' * copies})",
    "tiny functions": lambda copies: "(func (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))" * copies,
    "references alone": lambda copies: f"(func $f) (elem func {'$f ' * copies})",
}


def _pass(fields: str) -> tuple[int, float, float]:
    """Bytes of the module, megabytes a second, and how many times as long it becomes."""
    wasm = bytes(wasmtime.wat2wasm(f"(module {fields})"))
    made, seconds = b"", float("inf")
    for _ in range(3):
        began = time.process_time()
        made = meter(wasm)
        seconds = min(seconds, time.process_time() - began)
    return len(wasm), len(wasm) / 1e6 / seconds, len(made) / len(wasm)
