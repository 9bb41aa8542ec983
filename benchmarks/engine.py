"""The meters beside each other: one loop each of calls, memory, integers and floats; plain, native fuel and injected.

Each loop is timed in turn, several times, and the fastest round counts: ratios of one run, since hosts differ. The pass
itself is measured on one module of the same functions many times over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import wasmtime

from offchainvm.engine.machine import Counter, Watch
from offchainvm.engine.meter import meter
from offchainvm.engine.wasmtime_engine import engine, make_engine
from offchainvm.engine.wasmtime_machine import FuelCounter, InjectedCounter

_PLAIN, _NATIVE, _INJECTED = "plain", "native", "injected"
_FOREVER = 1 << 60
_COPIES = 3000
_CALLS = """(func (export "run") (param i32) (result i32) (call $fib (local.get 0)))
(func $fib (param i32) (result i32)
  (if (result i32) (i32.lt_s (local.get 0) (i32.const 2)) (then (local.get 0)) (else
    (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))"""
_INTEGERS = """(func (export "run") (param i32) (result i32) (local $x i64) (local.set $x (i64.const 88172645463325252))
  (loop $more
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
    (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
    (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (i32.wrap_i64 (local.get $x)))"""
_MEMORY = """(memory 32) (func (export "run") (param i32) (result i32) (local $i i32) (local $j i32) (local $found i32)
  (loop $again
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 2000000)) (local.set $i (i32.const 2))
    (loop $numbers
      (if (i32.eqz (i32.load8_u (local.get $i))) (then
        (local.set $found (i32.add (local.get $found) (i32.const 1)))
        (local.set $j (i32.add (local.get $i) (local.get $i)))
        (block $done (loop $multiples
          (br_if $done (i32.ge_u (local.get $j) (i32.const 2000000)))
          (i32.store8 (local.get $j) (i32.const 1))
          (local.set $j (i32.add (local.get $j) (local.get $i)))
          (br $multiples)))))
      (br_if $numbers (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2000000))))
    (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (local.get $found))"""
_FLOATS = """(memory 4) (func (export "run") (param i32) (result i32) (local $sum f64) (local $at i32)
  (loop $again
    (local.set $at (i32.const 0))
    (loop $products
      (local.set $sum (f64.add (local.get $sum) (f64.mul (f64.load (local.get $at)) (f64.load offset=100000 (local.get $at)))))
      (br_if $products (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 80000))))
    (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (i32.trunc_sat_f64_s (local.get $sum)))"""


@dataclass(frozen=True)
class Loop:
    """One program and the argument that makes it run for some 0.1 s."""

    name: str
    wat: str
    argument: int


LOOPS = (
    Loop("calls (fib)", _CALLS, 31),
    Loop("memory (sieve)", _MEMORY, 8),
    Loop("integers (xorshift)", _INTEGERS, 40_000_000),
    Loop("floats (dot product)", _FLOATS, 6_000),
)


@dataclass(frozen=True)
class MeasuredLoop:
    """Times against the plain engine's; ``same_count``: both meters counted ``instructions``."""

    name: str
    plain_ms: float
    native_ratio: float
    injected_ratio: float
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


def measure_loop(loop: Loop, *, share: float) -> MeasuredLoop:
    """Time one loop in every way, turn by turn."""
    wasm, argument = bytes(wasmtime.wat2wasm(f"(module {loop.wat})")), loop.argument
    if share < 1 and loop.wat is not _CALLS:
        argument = max(1, int(argument * share))
    ways = {name: _prepared(wasm, name) for name in (_PLAIN, _NATIVE, _INJECTED)}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(max(2, int(8 * share))):
        for name, (run, _) in ways.items():
            began = time.perf_counter()
            run(argument)
            best[name] = min(best[name], time.perf_counter() - began)
    native, injected = (_FOREVER - ways[name][1].left for name in (_NATIVE, _INJECTED))
    plain = best[_PLAIN]
    return MeasuredLoop(loop.name, plain * 1000, best[_NATIVE] / plain, best[_INJECTED] / plain, injected, native == injected)


def measure_pass(*, share: float) -> MeasuredPass:
    """The speed of the metering pass; linear is linear: both sizes go at the same speed."""
    quarter, whole = (_pass(max(1, int(copies * share))) for copies in (_COPIES, 4 * _COPIES))
    return MeasuredPass("metering pass", whole[0] / 1e6, whole[1], quarter[1], whole[2])


def _pass(copies: int) -> tuple[int, float, float]:
    functions = "".join(loop.wat[loop.wat.index("(func") :].replace(' (export "run")', "").replace(" $fib", " 0") for loop in LOOPS)
    wasm = bytes(wasmtime.wat2wasm(f"(module (memory 1) {functions.replace('(func 0', '(func') * copies})"))
    began = time.perf_counter()
    made = meter(wasm)
    return len(wasm), len(wasm) / 1e6 / (time.perf_counter() - began), len(made) / len(wasm)


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
