"""What a one-shot child gives up before it touches anything of a stranger's."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_DESCRIPTORS_MAX = 64
_PROCESSES_MAX = 0
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; ends it at once when that has happened already."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def isolate(*, parent: int) -> None:
    """Own session, death with the parent, and no new privileges."""
    os.setsid()
    die_with_parent(parent)
    if _prctl is not None:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_resources(*, data_bytes: int, cpu_seconds: int) -> None:
    """Limit memory, processor time, files and processes of this process, for ever.

    Address space is not limited: each linear memory reserves 4 GiB of it. ``data_bytes`` is what the process may hold
    beyond what it holds now.
    """
    for what, value in (
        (resource.RLIMIT_DATA, private_bytes() + data_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS_MAX),
        (resource.RLIMIT_NPROC, _PROCESSES_MAX),
    ):
        _lower(what, value)


def _lower(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def private_bytes() -> int:
    """Private writable memory of this process, as RLIMIT_DATA counts it; 0 where the system does not say."""
    try:
        statm = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return int(statm[5]) * resource.getpagesize()
