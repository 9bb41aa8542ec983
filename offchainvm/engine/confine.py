"""What a one-shot child gives up before it touches anything of a stranger's."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from offchainvm.processes import die_with_parent, prctl

_PR_SET_NO_NEW_PRIVS = 38  # prctl(2)
HOST_STACK_BYTES = 1536 * 1024
"""Beside a guest's part of a stack, what Python and its host functions need."""
_DESCRIPTORS_MAX = 64
_PROCESSES_MAX = 0


def allow_stack(guest_bytes: int) -> None:
    """Let the main thread's stack grow until a guest can have so much of it, as far as the system lets us."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    wanted = guest_bytes + HOST_STACK_BYTES
    resource.setrlimit(resource.RLIMIT_STACK, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def available_stack_bytes(most: int) -> int:
    """How much of this process's stack a guest may have: ``most``, or what is there beside the host's."""
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return most if soft == resource.RLIM_INFINITY else min(most, max(soft - HOST_STACK_BYTES, HOST_STACK_BYTES))


def isolate(*, parent: int) -> None:
    """Own session, death with the parent, and no new privileges."""
    os.setsid()
    die_with_parent(parent=parent)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


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
