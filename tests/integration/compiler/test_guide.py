"""The programs of the guest author's guide, built in the sandbox and run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from offchainvm.compiler.base import BuiltModule
from offchainvm.engine.base import ExecutionRequest, Limits
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import Status

PAGE = (Path(__file__).parents[3] / "docs" / "guests.md").read_text()
WAYS = {"A command": ("src/main.rs", "wasm32-wasip1"), "A reactor": ("src/lib.rs", "wasm32-unknown-unknown")}
LIMITS = Limits(instructions=10**7, memory_bytes=16 * MIB, wall_seconds=10)


@pytest.mark.parametrize("heading", WAYS)
def test_the_guides_program_adds_up(build: Callable[..., BuiltModule], publish: Callable[..., str], tmp_path: Path, heading: str) -> None:
    file, target = WAYS[heading]
    section = PAGE.partition(f"\n### {heading}\n")[2].partition("\n##")[0]
    (manifest,), (program,) = (re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL) for language in ("toml", "rust"))
    commit_sha = publish({"Cargo.toml": manifest, file: program}, without=("Cargo.lock", *({"src/lib.rs"} - {file})))
    module = tmp_path / "my.wasm"
    module.write_bytes(build(commit_sha, target=target).wasm)

    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB) as engine:
        results = [engine.execute(module, ExecutionRequest(text, LIMITS)) for text in (b"1 2\n-30 ", b"", b"one")]

    assert [(result.status, result.stdout) for result in results] == [
        (Status.OK, b"-27"),
        (Status.OK, b"0"),
        (Status.GUEST_EXIT, b""),
    ]
    assert results[2].exit_code == (1 if heading == "A command" else -1)
    assert (b"no list of numbers" in results[2].stderr) is (heading == "A command")

    # The line by which the guide tries it.
    (line,) = re.findall(r"^offchainvm (run my\.wasm .*)$", PAGE, re.MULTILINE)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "offchainvm", *shlex.split(line)]
    tried = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (tried.returncode, tried.stdout.rstrip().endswith("\n6")) == (0, True), tried.stderr
