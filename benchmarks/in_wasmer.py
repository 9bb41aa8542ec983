"""``python -m benchmarks.in_wasmer MODULE ARGUMENT``: a loop in wasmer, metered.

Each line that comes in runs it once, and is answered with the seconds that took and the instructions counted so far.
Runs in the interpreter that has wasmer, which may have nothing else: the standard library and wasmer alone.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from offchainvm.engine import wasmer_engine
from offchainvm.engine.limits import MIB, Limits
from offchainvm.engine.machine import Watch

_FOREVER = 1 << 60
_INJECTED = "injected"


def main() -> None:
    program = wasmer_engine.load_ours(Path(sys.argv[1]).read_bytes(), _INJECTED)
    limits = Limits(instructions=_FOREVER, memory_bytes=16 * MIB, wall_seconds=1)
    machine = wasmer_engine.machine(program, limits, Watch(lambda: None, lambda _: None), _INJECTED)
    machine.start({})
    for _ in sys.stdin:
        began = time.process_time()
        machine.call("run", int(sys.argv[2]), results=1)
        print(time.process_time() - began, _FOREVER - machine.counter.left, flush=True)


if __name__ == "__main__":
    main()
