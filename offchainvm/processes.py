"""Small promises of a process: that its children end with it, what it forgets, and that it hears who asks it to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PROC = Path("/proc")
_libc = ctypes.CDLL(None, use_errno=True)

# Runs between fork and exec as a program of its own: a `preexec_fn` may deadlock in a parent that has threads.
_WRAPPER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(sys.argv[2]), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[3], sys.argv[3:])
"""

_BARE = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "TZ")
_BARE_PREFIXES = ("LC_", "LD_", "MALLOC_", "PYTHON")


def bare_environment() -> dict[str, str]:
    """What a program needs of this process's environment to run at all: neither settings nor secrets are among it."""
    return {name: value for name, value in os.environ.items() if name in _BARE or name.startswith(_BARE_PREFIXES)}


def bound_command(command: list[str], *, signal_number: int = signal.SIGKILL) -> list[str]:
    """``command`` (its first part an absolute path), wrapped so that it gets ``signal_number`` when this process dies.

    The kernel watches the *thread* that starts it: start it from one that lives as long as the process should. Where
    the platform has no such promise (macOS), nothing happens.
    """
    return [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), str(int(signal_number)), *command]


def die_with_parent(signal_number: int = signal.SIGKILL, *, parent: int | None = None) -> None:
    """Have the kernel send this process ``signal_number`` when its parent dies; send it now when that has happened already.

    ``parent``: its process id, where it is known from before; else whoever is the parent now.
    """
    expected = os.getppid() if parent is None else parent
    prctl(_PR_SET_PDEATHSIG, int(signal_number))
    if os.getppid() != expected:
        os.kill(os.getpid(), signal_number)


def prctl(option: int, *arguments: int) -> bool:
    """prctl(2); False where the system refuses it, or has none."""
    if sys.platform != "linux":
        return False
    four = (*arguments, 0, 0, 0, 0)[:4]
    return bool(_libc.prctl(option, *map(ctypes.c_ulong, four)) == 0)


def stat_fields(pid: int, *, proc: Path = _PROC) -> list[str]:
    """What the kernel tells of a process, from its state on (proc(5)); empty when there is none, or none that is seen."""
    try:
        # The name of the program stands before that, in parentheses, and may hold anything.
        return (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def started(pid: int, *, proc: Path = _PROC) -> str:
    """When a process began, in ticks since the kernel did; empty when there is none, or none that is seen."""
    return "".join(stat_fields(pid, proc=proc)[19:20])


def forget_environment_variable(name: str) -> None:
    """Remove a variable from this process for good, from what ``/proc/PID/environ`` shows too."""
    _libc.getenv.restype = ctypes.c_void_p
    _libc.getenv.argtypes = [ctypes.c_char_p]
    address = _libc.getenv(name.encode())
    value = os.environ.pop(name, None)
    if address and value:
        ctypes.memset(address, ord("*"), len(os.fsencode(value)))


class StopSignal:
    """SIGTERM or SIGINT, once one came. The handler takes no lock, as an event's does: the main thread may hold it just then.

    ``second_ends``: another one ends the process at once.
    """

    _TICK_SECONDS = 0.2

    def __init__(self, *, second_ends: bool = True) -> None:
        self.number = 0
        self._second_ends = second_ends
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def wait(self, seconds: float) -> bool:
        """Whether one came; in the main thread, for at most ``seconds``."""
        until = time.monotonic() + seconds
        while not self.number and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, self._TICK_SECONDS))
        return bool(self.number)

    def _hear(self, number: int, _frame: object) -> None:
        if self.number and self._second_ends:
            os._exit(128 + number)
        self.number = number
