"""``offchainvm run`` as its user runs it: each option reaches the engine, each limit bites, and the exit code tells how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from tests.integration.engine.test_abis import ECHO

# `execute` echoes its input, `_start` traps.
BOTH = ECHO[: ECHO.rindex(")")] + '(func (export "_start") (unreachable)))'
LOOP = '(module (func (export "_start") (loop (br 0))))'
GROW = """(module (memory 1) (func (export "_start")
  (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)))"""
ENVIRONMENT = """(module (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "execute") (param i32 i32) (result i32)
    (drop (call $sizes (i32.const 1000) (i32.const 2000))) (drop (call $get (i32.const 1004) (i32.const 2004))) (i32.const 2000)))"""
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """``offchainvm run`` of this WAT with these words after it."""

    def call(wat: str, *words: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        module = tmp_path / "module.wasm"
        module.write_bytes(bytes(wasmtime.wat2wasm(wat)))
        given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OFFCHAINVM_ENV_FILE": "", "COLUMNS": "200", **environment}
        line = [sys.executable, "-m", "offchainvm", "run", module, *words]
        return subprocess.run(line, env=given, input=input, capture_output=True, text=True, check=False)

    return call


@pytest.mark.parametrize(
    ("wat", "words", "exit_code", "told"),
    [
        (BOTH, ("--input", "hello"), 0, {"status": "ok", "stdout": "hello", "entry": "execute"}),
        (BOTH, ("--input", "hello", "--metering", "native"), 0, {"stdout": "hello", "engine": "wasmtime"}),
        (BOTH, ("--entry", "_start"), 10, {"status": "trap", "trap": "unreachable", "entry": "_start"}),
        (ENVIRONMENT, ("--env", "A=1", "--env", "B=x=y"), 0, {"stdout": "A=1\0B=x=y\0"}),
        (LOOP, ("--max-instructions", "1.5e3"), 11, {"status": "out_of_fuel", "instructions_used": 1500}),
        (LOOP, ("--max-instructions", "1e15", "--max-time", "200ms"), 11, {"status": "timeout"}),
        (GROW, ("--max-memory", "128KiB"), 11, {"status": "memory_limit", "peak_memory_bytes": 128 << 10}),
        (BOTH, ("--input", "hello", "--max-output", "2B"), 11, {"status": "output_limit", "stdout": "he", "stdout_truncated": True}),
        ("(module)", (), 12, {"status": "link_error", "entry": ""}),
    ],
)
def test_an_execution_ends_with_the_exit_code_of_its_status(
    command: Command, wat: str, words: tuple[str, ...], exit_code: int, told: dict[str, Any]
) -> None:
    ended = command(wat, *words, "--json")
    found = json.loads(ended.stdout)
    assert (ended.returncode, {name: found[name] for name in told}) == (exit_code, told), ended.stderr
    assert found["meter_version"].startswith("wasmtime-" if "native" in words else "injected-")


def test_input_comes_from_standard_input_or_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("from a file")
    assert json.loads(command(BOTH, "--input", "-", "--json", input="from a pipe").stdout)["stdout"] == "from a pipe"
    assert json.loads(command(BOTH, "--input", f"@{tmp_path / 'input'}", "--json").stdout)["stdout"] == "from a file"


def test_wasmer_runs_it_with_the_same_count(command: Command, wasmer_python: Path) -> None:
    words = ("--input", "hello", "--json")
    here, there = (
        json.loads(command(BOTH, *words, "--engine", name, WASMER_PYTHON=str(wasmer_python)).stdout) for name in ("wasmtime", "wasmer")
    )
    assert (there["engine"], there["stdout"], there["instructions_used"]) == ("wasmer", "hello", here["instructions_used"])


def test_without_json_a_table_shows_each_use_against_its_limit(command: Command) -> None:
    ended = command(BOTH, "--input", "hello", "--max-instructions", "1e6", "--max-memory", "1MiB", "--max-time", "2s")
    assert ended.returncode == 0
    for text in ("ok", "entered by execute", "1,000,000", "1.00 MiB", "2,000 ms", "exact, by injected-", "wasmtime 50", "hello"):
        assert text in ended.stdout
