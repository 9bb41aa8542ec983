"""Whether an engine runs modules here: it is asked to run one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Executor, Limits
from offchainvm.engine.limits import MIB

# (module (func (export "_start")))
_MODULE = bytes.fromhex("0061736d0100000001040160000003020100070a01065f737461727400000a040102000b")
_LIMITS = Limits(instructions=1000, memory_bytes=MIB, wall_seconds=10)


def run_module(executor: Executor) -> ExecutionResult:
    """What became of a module that does nothing.

    Raises:
        ExecutionError: it did not run to its end.
    """
    with tempfile.TemporaryDirectory(prefix="offchainvm-trial-") as folder:
        module = Path(folder) / "module.wasm"
        module.write_bytes(_MODULE)
        result = executor.execute(module, ExecutionRequest(b"", _LIMITS))
    result.raise_for_status()
    return result
