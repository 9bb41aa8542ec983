"""What one execution costs: in this process, by a worker's warm child, and in an interpreter that starts for it; and how many a second.

The work is next to nothing for the costs, and some 20 ms for the rate: a rate of nothing would measure the parent alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import wasmtime

from benchmarks.loops import LOOPS
from offchainvm.engine import wasmtime_engine
from offchainvm.engine.base import ExecutionRequest, Limits
from offchainvm.engine.limits import MIB
from offchainvm.engine.machine import Watch
from offchainvm.engine.supervisor import Supervisor

_LIMITS = Limits(instructions=10**10, memory_bytes=16 * MIB, wall_seconds=60)
_LITTLE = """(module (memory (export "memory") 1) (func (export "execute") (param i32 i32) (result i32)
  (i32.store (i32.const 64) (local.get 1)) (i32.const 64)))"""
_COPIES = 400
_WORK = 30_000_000
_ALONE = """
import sys, benchmarks.execution as execution
from pathlib import Path
execution.run_here(Path(sys.argv[1]).read_bytes())
"""


@dataclass(frozen=True)
class MeasuredExecution:
    """Medians in milliseconds of one small execution with a few bytes of input; ``cold_ms`` compiles ``module_kb`` first."""

    name: str
    in_process_ms: float
    warm_ms: float
    fresh_interpreter_ms: float
    cold_ms: float
    module_kb: float


@dataclass(frozen=True)
class MeasuredRate:
    """Executions per second of two workers on one core, and on two."""

    name: str
    one_core: float
    two_cores: float


def measure_execution(*, share: float) -> MeasuredExecution:
    """Time each way in turn."""
    with _workers(1) as (folder, (worker,)):
        little = _module(folder / "little.wasm", _LITTLE)
        program = wasmtime_engine.load_ours(little.read_bytes(), metering="injected")
        request = ExecutionRequest(b"abcd", _LIMITS)
        here, warm, alone = list[float](), list[float](), list[float]()
        worker.execute(little, request)
        for index in range(max(20, int(300 * share))):
            here.append(_ms(lambda: _call(program)))
            warm.append(_ms(lambda: worker.execute(little, request)))
            if index % 15 == 0:
                alone.append(_ms(lambda: subprocess.run([sys.executable, "-c", _ALONE, little], check=True)))
        functions = "".join(loop.functions(number) for number in range(_COPIES) for loop in LOOPS)
        large = [_module(folder / f"{index}.wasm", f"{_LITTLE[:-1]} (func (drop (i32.const {index}))) {functions})") for index in range(3)]
        cold = [_ms(lambda path=path: worker.execute(path, request)) for path in large]  # type: ignore[misc]
        size = large[0].stat().st_size / 1000
    return MeasuredExecution("one execution", median(here), median(warm), median(alone), median(cold), size)


def measure_rate(*, share: float) -> MeasuredRate:
    """Two workers, each in a thread of its own as the processes of a pool would be, first bound to one core, then to two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return MeasuredRate("two workers", 0, 0)
    try:
        one, two = (_rate(set(cores[:count]), jobs=max(10, int(150 * share))) for count in (1, 2))
    finally:
        os.sched_setaffinity(0, cores)
    return MeasuredRate("two workers", one, two)


def run_here(wasm: bytes) -> None:
    """All that an execution needs, in this process."""
    _call(wasmtime_engine.load_ours(wasm, metering="injected"))


def _call(program: wasmtime.Module) -> None:
    machine = wasmtime_engine.machine(program, _LIMITS, Watch(lambda: None, lambda _: None), metering="injected")
    machine.start({})
    machine.write(0, b"abcd")
    machine.call("execute", 0, 4, results=1)


def _rate(cores: set[int], *, jobs: int) -> float:
    os.sched_setaffinity(0, cores)
    code = LOOPS[2].wat.replace('(func (export "run")', "(func $run")
    with _workers(2) as (folder, workers):
        path = _module(folder / "work.wasm", f'(module {code} (func (export "_start") (drop (call $run (i32.const {_WORK})))))')
        for worker in workers:
            worker.execute(path, ExecutionRequest(b"", _LIMITS))
        threads = [threading.Thread(target=_repeat, args=(worker, path, jobs)) for worker in workers]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(workers) * jobs / (time.perf_counter() - began)


def _repeat(worker: Supervisor, path: Path, jobs: int) -> None:
    for _ in range(jobs):
        worker.execute(path, ExecutionRequest(b"", _LIMITS)).raise_for_status()


@contextmanager
def _workers(count: int) -> Iterator[tuple[Path, list[Supervisor]]]:
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        made = [Supervisor(cache_folder=folder / f"native-{index}", cache_max_bytes=256 * MIB) for index in range(count)]
        yield folder, [stack.enter_context(worker) for worker in made]


def _module(path: Path, wat: str) -> Path:
    path.write_bytes(bytes(wasmtime.wat2wasm(wat)))
    return path


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
