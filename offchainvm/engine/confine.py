"""What a one-shot child gives up before it touches anything of a stranger's."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

from offchainvm.processes import die_with_parent, prctl

_PR_SET_NO_NEW_PRIVS = 38  # prctl(2)
HOST_STACK_BYTES = 1536 * 1024
"""Beside a guest's part of a stack, what Python and its host functions need."""
_OPEN_FILES_MAX = 64
_M_ARENA_MAX = -8  # mallopt(3)
_PROCESSES_MAX = 0
_STATM_BYTES_MAX = 256


def allow_stack(guest_bytes: int) -> None:
    """Let the main thread's stack grow until a guest can have so much of it, as far as the system lets us."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    wanted = guest_bytes + HOST_STACK_BYTES
    resource.setrlimit(resource.RLIMIT_STACK, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def available_stack_bytes(most: int) -> int:
    """How much of this process's stack a guest may have: ``most``, or what is there beside the host's."""
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return most if soft == resource.RLIM_INFINITY else min(most, max(soft - HOST_STACK_BYTES, HOST_STACK_BYTES))


def one_heap() -> None:
    """One heap for all threads to come: when the C library shrinks a thread's own, it opens a file."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(_M_ARENA_MAX, 1)


def isolate(*, parent: int) -> None:
    """Own session, death with the parent, no new privileges, and the limits that are the same for every job; for ever."""
    os.setsid()
    die_with_parent(parent=parent)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES_MAX)


def limit_resources(*, data_bytes: int, cpu_seconds: int) -> None:
    """Limit memory, processor time and processes of this process, for ever: the threads that it needs it has by now.

    Address space is not limited: each linear memory reserves 4 GiB of it. ``data_bytes`` is what the process may hold
    beyond what it holds now.
    """
    _lower(resource.RLIMIT_DATA, private_bytes() + data_bytes)
    _lower(resource.RLIMIT_CPU, cpu_seconds)
    _lower(resource.RLIMIT_NPROC, _PROCESSES_MAX)


def _lower(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def private_bytes() -> int:
    """Private writable memory of this process, as RLIMIT_DATA counts it; 0 where the system does not say."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(os.read(statm, _STATM_BYTES_MAX).split()[5]) * resource.getpagesize()
    finally:
        os.close(statm)
