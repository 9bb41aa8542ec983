"""Processes that die with their parent, so that a killed test run leaves nothing behind (Linux; elsewhere a no-op)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)

# Runs between fork and exec as a program of its own: a `preexec_fn` may deadlock in a parent that has threads.
_WRAPPER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def bound_command(command: list[str]) -> list[str]:
    """``command`` (its first part an absolute path), wrapped so that SIGKILL ends it when this process dies.

    The kernel watches the *thread* that starts it: start it from one that lives as long as the process should.
    """
    return [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), *command]


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM to this process when its parent dies."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
