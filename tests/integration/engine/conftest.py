"""One supervisor for all tests of a file: it has to survive every one of them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import wasmtime
from guests import KILL_GRACE_SECONDS, child_standing_by

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB, CompileLimits
from offchainvm.engine.supervisor import Supervisor

Run = Callable[..., ExecutionResult]
GOOD = """(module (memory (export "memory") 1) (data (i32.const 100) "\\02\\00\\00\\00ok")
  (func (export "execute") (param i32 i32) (result i32) (i32.const 100)))"""


ROOT = Path(__file__).parents[3]
FIND_PYTHON = ROOT / "deploy" / "setup" / "find-python"
ENGINES = {"native": ("wasmtime", "native"), "injected": ("wasmtime", "injected"), "wasmer": ("wasmer", "injected")}


@pytest.fixture(scope="session")
def wasmer_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python 3.10 of its own, with wasmer by the hashes of requirements.lock and nothing else."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("wasmer is locked for Linux on x86-64 alone")
    asked = subprocess.run([FIND_PYTHON], env={**os.environ, "PYTHON": "", "VERSIONS": "3.10"}, capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = f"wasmer is tested in a Python 3.10: {asked.stderr.strip()}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("wasmer")
    subprocess.run([asked.stdout.strip(), "-m", "venv", "--without-pip", folder / "venv"], check=True)
    locked = (ROOT / "requirements.lock").read_text()
    wanted = re.findall(r"^(wasmer[\w-]*==\S+) ;[^\n]*(\n(?:    --hash.*\n)+)", locked, re.MULTILINE)
    (folder / "requirements.txt").write_text("".join(f"{name} \\{hashes}" for name, hashes in wanted))
    made = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", made, "install", "-q", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--require-hashes", "-r", folder / "requirements.txt"], check=True)
    return made


@pytest.fixture(scope="module")
def make_supervisor(request: pytest.FixtureRequest) -> Iterator[Callable[..., Supervisor]]:
    """A supervisor by its name in ENGINES and its cache; closed at the end."""
    before = set(psutil.Process().children())
    with contextlib.ExitStack() as stack:

        def make(name: str, folder: Path, **more: Any) -> Supervisor:
            engine, metering = ENGINES[name]
            python = request.getfixturevalue("wasmer_python") if engine == "wasmer" else None
            made = Supervisor(
                cache_folder=folder, cache_max_bytes=64 * MIB, metering=metering, engine=engine, wasmer_python=python,
                kill_grace_seconds=KILL_GRACE_SECONDS, **more,
            )  # fmt: skip
            return stack.enter_context(made)

        yield make
    assert set(psutil.Process().children()) - before == set()


@pytest.fixture(scope="module", params=ENGINES)
def supervisor(
    request: pytest.FixtureRequest, make_supervisor: Callable[..., Supervisor], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("native")
    made = make_supervisor(request.param, folder, compile_limits=CompileLimits(wall_seconds=2, data_bytes=512 * MIB))
    yield made
    _survived(made, folder)


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
    child_standing_by(zygote.pid)
    assert psutil.Process(zygote.pid).num_threads() == 1


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
        entry: str = "auto",
        **more: int,
    ) -> ExecutionResult:
        path = tmp_path / "module.wasm"
        path.write_bytes(bytes(wasmtime.wat2wasm(code)) if isinstance(code, str) else code)
        limits = Limits(instructions=instructions, memory_bytes=memory_bytes, wall_seconds=wall_seconds, **more)
        return supervisor.execute(path, ExecutionRequest(input=input, limits=limits, environment=environment or {}, entry=entry))

    return call
