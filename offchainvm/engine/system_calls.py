"""The few system calls that a child still needs once it has its job; any other one ends it (seccomp).

Measured with strace over every test program, both engines and both ways of counting: memory, clocks, random numbers,
signals of its own, and one socket that is open already. No file, no process, no new descriptor.

https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)
# asm/unistd_64.h and asm-generic/unistd.h. `write` is for a last word to stderr, which is /dev/null; Python 3.10 sleeps by `select`;
# wasmer looks up the stack of the thread that trapped, with a look at its processors.
_NUMBERS = {
    "x86_64": {
        "write": 1, "close": 3, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
        "rt_sigreturn": 15, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44,
        "recvfrom": 45, "exit": 60, "gettimeofday": 96, "getrusage": 98, "sigaltstack": 131, "gettid": 186, "futex": 202,
        "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "pselect6": 270,
        "getrandom": 318, "membarrier": 324,
    },
    "aarch64": {
        "close": 57, "write": 64, "pselect6": 72, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101, "clock_gettime": 113,
        "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132,
        "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "getrusage": 165, "gettimeofday": 169, "getpid": 172,
        "gettid": 178, "sendto": 206, "recvfrom": 207, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226,
        "madvise": 233, "getrandom": 278, "membarrier": 283,
    },
}  # fmt: skip
# A component's host functions have threads, which may still be about to begin, and wake each other by descriptors that they have.
_FOR_COMPONENTS = {
    "x86_64": {"read": 0, "prctl": 157, "epoll_wait": 232, "set_robust_list": 273, "epoll_pwait": 281, "rseq": 334},
    "aarch64": {"epoll_pwait": 22, "read": 63, "set_robust_list": 99, "prctl": 167, "rseq": 293},
}
# The compiler asks whether stderr is a terminal (it is told no), and aborts where it finds no memory: a signal to itself alone.
_IOCTL, _TGKILL = {"x86_64": 16, "aarch64": 29}, {"x86_64": 234, "aarch64": 131}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, linux/audit.h

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # linux/seccomp.h
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_KILL_PROCESS, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data


_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, operand


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _fixed_parts(machine: str, numbers: dict[str, int]) -> tuple[bytes, bytes]:
    """What stands before and behind the one instruction that knows the process. A jump skips that many instructions."""
    allowed = sorted(numbers.values())
    head = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_AT),
        # By another architecture's numbers (int 0x80) a call means something else.
        (_JUMP_IF_EQUAL, 0, len(allowed) + 5, _ARCHITECTURES[machine]),
        (_LOAD_WORD, 0, 0, _NUMBER_AT),
        *((_JUMP_IF_EQUAL, len(allowed) + 5 - place, 0, number) for place, number in enumerate(allowed)),
        (_JUMP_IF_EQUAL, 4, 0, _IOCTL[machine]),
        (_JUMP_IF_EQUAL, 0, 2, _TGKILL[machine]),
        (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_AT),
    ]
    tail = [(_RETURN, 0, 0, _KILL_PROCESS), (_RETURN, 0, 0, _ERROR | errno.ENOTTY), (_RETURN, 0, 0, _ALLOW)]
    return _packed(head), _packed(tail)


def _packed(instructions: list[tuple[int, int, int, int]]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


_OFFERED = sys.platform == "linux" and platform.machine() in _NUMBERS
# Made when the zygote imports this, not in every job.
_HEAD, _TAIL = _fixed_parts(platform.machine(), _NUMBERS[platform.machine()]) if _OFFERED else (b"", b"")


def forbid_other_calls(*, but_for_components: bool = False) -> bool:
    """From now on this process, with all its threads, may make the calls of the table, and dies (SIGSYS) of any other one.

    Needs ``no_new_privs``. False where the system or its kernel does not offer it: nothing is forbidden then.
    """
    if not _OFFERED:
        return False
    head, machine = _HEAD, platform.machine()
    if but_for_components:
        head, _ = _fixed_parts(machine, {**_NUMBERS[machine], **_FOR_COMPONENTS[machine]})
    instructions = head + _INSTRUCTION.pack(_JUMP_IF_EQUAL, 2, 0, os.getpid()) + _TAIL
    program = _Program(len(instructions) // _INSTRUCTION.size, instructions)
    # seccomp(2), since prctl(2) binds the calling thread alone, and wasmer's compiler has others.
    return bool(_libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program)) == 0)
