"""One supervisor for all tests of the room: it has to survive every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wasmtime

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB, CompileLimits
from offchainvm.engine.supervisor import Supervisor

Run = Callable[..., ExecutionResult]


@pytest.fixture(scope="module", params=["native", "injected"])
def supervisor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("native")
    limits = CompileLimits(wall_seconds=5, data_bytes=512 * MIB)
    with Supervisor(cache_folder=folder, cache_max_bytes=64 * MIB, compile_limits=limits, metering=request.param) as made:
        yield made


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
