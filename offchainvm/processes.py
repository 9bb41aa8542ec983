"""Small promises between a process and its children."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signal_number: int = signal.SIGKILL) -> Callable[[], None]:
    """A ``preexec_fn`` after which the kernel sends the child ``signal_number`` when its parent is gone.

    The parent is the thread that started the child: start it from one that lives as long as the child should.
    Where the platform has no such promise (macOS), nothing happens.
    """
    parent = os.getpid()

    def promise() -> None:
        prctl = getattr(_libc, "prctl", None)
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return promise


def forget_environment_variable(name: str) -> None:
    """Remove a variable from this process for good, from what ``/proc/PID/environ`` shows too."""
    _libc.getenv.restype = ctypes.c_void_p
    _libc.getenv.argtypes = [ctypes.c_char_p]
    address = _libc.getenv(name.encode())
    value = os.environ.pop(name, None)
    if address and value:
        ctypes.memset(address, ord("*"), len(os.fsencode(value)))
