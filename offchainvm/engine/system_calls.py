"""The few system calls that a child still needs once it has its job; any other one ends it (seccomp).

Measured with strace over every test program, both ways of counting: memory, clocks, random numbers, signals of its own,
and one socket that is open already. No file, no process, no new descriptor.

https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import functools
import platform
import struct
import sys

from offchainvm.processes import prctl

# asm/unistd_64.h and asm-generic/unistd.h. `write` is for a last word to stderr, which is /dev/null.
_NUMBERS = {
    "x86_64": {
        "write": 1, "close": 3, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
        "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "sendto": 44, "recvfrom": 45, "exit": 60,
        "gettimeofday": 96, "getrusage": 98, "sigaltstack": 131, "futex": 202, "restart_syscall": 219, "clock_gettime": 228,
        "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318, "membarrier": 324,
    },
    "aarch64": {
        "close": 57, "write": 64, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101, "clock_gettime": 113,
        "clock_nanosleep": 115, "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134,
        "rt_sigprocmask": 135, "rt_sigreturn": 139, "getrusage": 165, "gettimeofday": 169, "sendto": 206, "recvfrom": 207, "brk": 214,
        "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "membarrier": 283,
    },
}  # fmt: skip
# The compiler asks whether stderr is a terminal: it is told no.
_IOCTL = {"x86_64": 16, "aarch64": 29}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, linux/audit.h

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_KILL_PROCESS, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid_other_calls() -> bool:
    """From now on this process may make the calls of the table, and dies (SIGSYS) of any other one; for ever.

    Needs ``no_new_privs``. False where the system or its kernel does not offer it: nothing is forbidden then.
    """
    instructions = _instructions()
    if not instructions:
        return False
    program = _Program(len(instructions) // 8, instructions)
    return prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


@functools.cache
def _instructions() -> bytes:
    """The filter as the kernel reads it; empty on a machine whose numbers are not known here."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _NUMBERS:
        return b""
    allowed = sorted(_NUMBERS[machine].values())
    # A jump skips that many instructions. By another architecture's numbers (int 0x80) a call means something else: it kills.
    to_allow = range(len(allowed) + 2, 2, -1)
    return b"".join([
        _instruction(_LOAD_WORD, _ARCHITECTURE_AT),
        _instruction(_JUMP_IF_EQUAL, _ARCHITECTURES[machine], if_false=len(allowed) + 2),
        _instruction(_LOAD_WORD, _NUMBER_AT),
        *(_instruction(_JUMP_IF_EQUAL, number, if_true=skip) for number, skip in zip(allowed, to_allow, strict=True)),
        _instruction(_JUMP_IF_EQUAL, _IOCTL[machine], if_true=1),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_RETURN, _ERROR | errno.ENOTTY),
        _instruction(_RETURN, _ALLOW),
    ])  # fmt: skip


def _instruction(code: int, operand: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
