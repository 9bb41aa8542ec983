"""One supervisor for all tests of a file: it has to survive every one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import wasmtime

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB, CompileLimits
from offchainvm.engine.supervisor import Supervisor

Run = Callable[..., ExecutionResult]
GOOD = """(module (memory (export "memory") 1) (data (i32.const 100) "\\02\\00\\00\\00ok")
  (func (export "execute") (param i32 i32) (result i32) (i32.const 100)))"""


@pytest.fixture(scope="module", params=["native", "injected"])
def supervisor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    folder, before = tmp_path_factory.mktemp("native"), set(psutil.Process().children())
    limits = CompileLimits(wall_seconds=2, data_bytes=512 * MIB)
    with Supervisor(cache_folder=folder, cache_max_bytes=64 * MIB, compile_limits=limits, metering=request.param) as made:
        yield made
        _survived(made, folder)
    assert set(psutil.Process().children()) - before == set()


def _survived(supervisor: Supervisor, folder: Path) -> None:
    """Whatever the tests ran: one zygote to the end, with one child that stands by, and a good module still has its answer."""
    good = folder / "good.wasm"
    good.write_bytes(bytes(wasmtime.wat2wasm(GOOD)))
    limits = Limits(instructions=1000, memory_bytes=MIB, wall_seconds=5)
    zygote = supervisor._zygote
    assert supervisor.execute(good, ExecutionRequest(b"", limits)).stdout == b"ok"
    assert zygote is not None
    assert supervisor._zygote is zygote
    zygote._settle()
    process, deadline = psutil.Process(zygote.pid), time.monotonic() + 20
    while [child.status() for child in process.children(recursive=True)] != [psutil.STATUS_SLEEPING]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.num_threads() == 1


@pytest.fixture
def run(supervisor: Supervisor, tmp_path: Path) -> Run:
    """Run WAT (or bytes) with an input and limits, in the room's one supervisor."""

    def call(
        code: str | bytes,
        input: bytes = b"",
        *,
        instructions: int = 100_000_000,
        memory_bytes: int = 16 * MIB,
        wall_seconds: float = 5.0,
        environment: dict[str, str] | None = None,
        **more: int,
    ) -> ExecutionResult:
        path = tmp_path / "module.wasm"
        path.write_bytes(bytes(wasmtime.wat2wasm(code)) if isinstance(code, str) else code)
        limits = Limits(instructions=instructions, memory_bytes=memory_bytes, wall_seconds=wall_seconds, **more)
        return supervisor.execute(path, ExecutionRequest(input=input, limits=limits, environment=environment or {}))

    return call
