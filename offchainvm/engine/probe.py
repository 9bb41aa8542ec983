"""What a guest that broke out of the engine could still do on this host: tried out, once, by processes of ours.

A promise that the kernel does not keep here (an old kernel, another system, a container that forbids seccomp) is told
to whoever asks, instead of being taken for granted.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import offchainvm
from offchainvm.engine.confine import isolate, limit_resources
from offchainvm.engine.limits import MIB
from offchainvm.engine.system_calls import forbid_other_calls
from offchainvm.errors import OffchainVMError

_PROBE_SECONDS = 30.0
_MAIN = "import sys; sys.path[0] = sys.argv[1]; from offchainvm.engine.probe import main; main()"
_COULD = 77
_REMEDY = "Run execute workers on Linux (x86-64 or ARM64), in a container that allows seccomp and has /proc."
_ESCAPES: Mapping[str, Callable[[], object]] = {
    "open files": lambda: os.open("/", os.O_RDONLY),
    "open sockets": socket.socket,
    "start processes": os.fork,
    "signal other processes": lambda: os.kill(os.getppid(), 0),
    "take memory without limit": lambda: mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
}


@functools.cache
def open_ways() -> tuple[str, ...]:
    """What a child could still do, in words; empty where the kernel keeps every promise.

    Raises:
        OffchainVMError: it could not be tried out.
    """
    root = str(Path(offchainvm.__file__).parent.parent)
    # A process of its own: this one may have threads, and what a child gives up it never gets back.
    command = [sys.executable, "-I", "-S", "-c", _MAIN, root]
    try:
        tried = subprocess.run(command, env={}, capture_output=True, timeout=_PROBE_SECONDS, check=True)
        return tuple(map(str, json.loads(tried.stdout)))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise OffchainVMError(f"The confinement of guests could not be tried out ({type(error).__name__}).", remedy=_REMEDY) from None


def report() -> str:
    """One sentence for the people who run this worker.

    Raises:
        OffchainVMError: a way is open, or it could not be tried out.
    """
    ways = open_ways()
    if ways:
        raise OffchainVMError(f"A guest that broke out of the engine could still {', '.join(ways)}.", remedy=_REMEDY)
    return "a guest that broke out of the engine could open no file and no socket, and start no process"


def main() -> None:
    """Try every way out and print those that are open, as JSON."""
    print(json.dumps([name for name, escape in _ESCAPES.items() if _is_open(escape)]))


def _is_open(escape: Callable[[], object]) -> bool:
    parent, child = os.getpid(), os.fork()
    if child == 0:
        try:
            isolate(parent=parent)
            limit_resources(data_bytes=MIB, cpu_seconds=10)
            forbid_other_calls()
            escape()
            os._exit(_COULD)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _COULD
