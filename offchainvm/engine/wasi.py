"""WASI preview 1 for a guest that has no files, no network and no arguments.

Host functions of our own, in Python: no thread, no file, bounded by the limits of the execution, and charged one
instruction per byte moved, so that a count covers what the host did for a guest. They know memory and counter through
``GuestMemory`` and ``charge`` alone, and so serve any engine.
https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md
"""

from __future__ import annotations

import functools
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from offchainvm.engine.binary import FunctionType

WASI_MODULE = "wasi_snapshot_preview1"
SUCCESS, BADF, FAULT, INVAL, NOSYS, SPIPE = 0, 8, 21, 28, 52, 70
_I, _L = "i32", "i64"
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_CHARACTER_DEVICE = 2
_RIGHT_READ, _RIGHT_WRITE = 1 << 1, 1 << 6
_CLOCKS = {0: time.CLOCK_REALTIME, 1: time.CLOCK_MONOTONIC, 2: time.CLOCK_PROCESS_CPUTIME_ID, 3: time.CLOCK_THREAD_CPUTIME_ID}
_IOVECS_MAX = 1024
_RANDOM_SLICE_BYTES = 1 << 20


def _signature(params: str) -> FunctionType:
    return FunctionType(tuple(_I if letter == "i" else _L for letter in params), (_I,))


SIGNATURES: dict[str, FunctionType] = {
    name: _signature(params)
    for name, params in {
        "args_get": "ii", "args_sizes_get": "ii", "environ_get": "ii", "environ_sizes_get": "ii", "clock_res_get": "ii",
        "clock_time_get": "ili", "fd_advise": "illi", "fd_allocate": "ill", "fd_close": "i", "fd_datasync": "i", "fd_fdstat_get": "ii",
        "fd_fdstat_set_flags": "ii", "fd_fdstat_set_rights": "ill", "fd_filestat_get": "ii", "fd_filestat_set_size": "il",
        "fd_filestat_set_times": "illi", "fd_pread": "iiili", "fd_prestat_get": "ii", "fd_prestat_dir_name": "iii", "fd_pwrite": "iiili",
        "fd_read": "iiii", "fd_readdir": "iiili", "fd_renumber": "ii", "fd_seek": "ilii", "fd_sync": "i", "fd_tell": "ii",
        "fd_write": "iiii", "path_create_directory": "iii", "path_filestat_get": "iiiii", "path_filestat_set_times": "iiiilli",
        "path_link": "iiiiiii", "path_open": "iiiiillii", "path_readlink": "iiiiii", "path_remove_directory": "iii",
        "path_rename": "iiiiii", "path_symlink": "iiiii", "path_unlink_file": "iii", "poll_oneoff": "iiii", "proc_raise": "i",
        "random_get": "ii", "sched_yield": "", "sock_accept": "iii", "sock_recv": "iiiiii", "sock_send": "iiiii", "sock_shutdown": "ii",
    }.items()
}  # fmt: skip
SIGNATURES["proc_exit"] = FunctionType((_I,), ())


class HostEnding(Exception):
    """A host function, or the counter, ends the guest."""


class GuestExit(HostEnding):
    """The guest called ``proc_exit``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class OutputLimit(HostEnding):
    """The guest wrote more to stdout than its limit."""


class DeadlinePassed(HostEnding):
    """The guest's time was over inside a host function."""


class OutOfInstructions(HostEnding):
    """A host function had more to do than the guest's instructions pay for."""


class StackOverflow(HostEnding):
    """The guest's calls nest deeper than a metered module may go."""


class BadPointer(Exception):
    """A guest's pointer or length lies outside its memory."""


class GuestMemory(Protocol):
    """A guest's linear memory; both methods raise ``BadPointer`` outside its bounds."""

    def read(self, pointer: int, size: int) -> bytes: ...

    def write(self, pointer: int, data: bytes) -> None: ...


class Wasi:
    """State and host functions of one guest.

    ``stdout`` and ``stderr`` collect what the guest wrote; more than ``output_bytes`` ends the guest, more than
    ``stderr_bytes`` is dropped. Without ``output_bytes``, stdout is not the guest's answer and goes to stderr.
    ``deadline`` is on the clock of ``time.monotonic``.
    """

    def __init__(
        self,
        *,
        memory: GuestMemory,
        charge: Callable[[int], None],
        stdin: bytes,
        environment: Mapping[str, str],
        output_bytes: int | None,
        stderr_bytes: int,
        deadline: float,
    ) -> None:
        self._memory, self._charge, self._deadline = memory, charge, deadline
        self._stdin, self._stdin_position = stdin, 0
        self._environ = [f"{name}={value}".encode() + b"\0" for name, value in environment.items()]
        self._output_bytes, self._stderr_bytes = output_bytes, stderr_bytes
        self._open = {_STDIN, _STDOUT, _STDERR}
        self.stdout, self.stderr = bytearray(), bytearray()
        self.stdout_truncated = self.stderr_truncated = False

    def function(self, name: str) -> Callable[[tuple[int, ...]], int | None]:
        """The host function ``name``: takes unsigned arguments, gives a WASI errno, never anything for proc_exit."""
        work = getattr(self, f"_{name}", None)
        if work is None:
            return functools.partial(self._without_files, name)

        def call(arguments: tuple[int, ...]) -> int | None:
            try:
                return work(*arguments) or SUCCESS
            except BadPointer:
                return FAULT

        return call

    def _without_files(self, name: str, arguments: tuple[int, ...]) -> int:
        """Every other function works on files, of which there are none, or on a stream, which cannot do it."""
        if name == "proc_raise":
            return NOSYS
        if name == "path_symlink":
            return BADF
        if not name.startswith("fd_") or arguments[0] not in self._open:
            return BADF
        return SPIPE if name in ("fd_seek", "fd_tell", "fd_pread", "fd_pwrite") else INVAL

    def _write_u32(self, pointer: int, value: int) -> None:
        self._memory.write(pointer, struct.pack("<I", value))

    def _write_u64(self, pointer: int, value: int) -> None:
        self._memory.write(pointer, struct.pack("<Q", value))

    def _vectors(self, pointer: int, count: int) -> list[tuple[int, int]]:
        return list(struct.iter_unpack("<II", self._memory.read(pointer, 8 * count)))

    def _args_get(self, _argv: int, _buffer: int) -> None:
        return None

    def _args_sizes_get(self, count: int, size: int) -> None:
        self._write_u32(count, 0)
        self._write_u32(size, 0)

    def _environ_sizes_get(self, count: int, size: int) -> None:
        self._write_u32(count, len(self._environ))
        self._write_u32(size, sum(map(len, self._environ)))

    def _environ_get(self, pointers: int, buffer: int) -> None:
        self._charge(sum(map(len, self._environ)))
        for number, entry in enumerate(self._environ):
            self._write_u32(pointers + 4 * number, buffer)
            self._memory.write(buffer, entry)
            buffer += len(entry)

    def _clock_res_get(self, clock: int, result: int) -> int:
        if clock not in _CLOCKS:
            return INVAL
        self._write_u64(result, max(1, int(time.clock_getres(_CLOCKS[clock]) * 1e9)))
        return SUCCESS

    def _clock_time_get(self, clock: int, _precision: int, result: int) -> int:
        if clock not in _CLOCKS:
            return INVAL
        self._write_u64(result, time.clock_gettime_ns(_CLOCKS[clock]))
        return SUCCESS

    def _random_get(self, buffer: int, size: int) -> None:
        self._memory.read(buffer + max(0, size - 1), min(size, 1))
        for offset in range(0, size, _RANDOM_SLICE_BYTES):
            count = min(_RANDOM_SLICE_BYTES, size - offset)
            self._spend(count)
            self._memory.write(buffer + offset, os.urandom(count))

    def _spend(self, count: int) -> None:
        self._charge(count)
        if time.monotonic() > self._deadline:
            raise DeadlinePassed

    def _fd_write(self, fd: int, vectors: int, count: int, written: int) -> int:
        if fd not in self._open or fd == _STDIN:
            return BADF
        if count > _IOVECS_MAX:
            return INVAL
        total = 0
        for pointer, size in self._vectors(vectors, count):
            self._spend(size)
            self._memory.read(pointer + size, 0)
            self._collect(fd, pointer, size)
            total += size
        self._write_u32(written, total & 0xFFFFFFFF)
        return SUCCESS

    def _collect(self, fd: int, pointer: int, size: int) -> None:
        if fd == _STDOUT and self._output_bytes is not None:
            count = min(size, self._output_bytes - len(self.stdout))
            self.stdout += self._memory.read(pointer, count)
            if count < size:
                self.stdout_truncated = True
                raise OutputLimit
        else:
            count = min(size, self._stderr_bytes - len(self.stderr))
            self.stderr += self._memory.read(pointer, count)
            self.stderr_truncated = self.stderr_truncated or count < size

    def _fd_read(self, fd: int, vectors: int, count: int, result: int) -> int:
        if fd not in self._open or fd != _STDIN:
            return BADF
        if count > _IOVECS_MAX:
            return INVAL
        total = 0
        for pointer, size in self._vectors(vectors, count):
            data = self._stdin[self._stdin_position : self._stdin_position + size]
            self._spend(len(data))
            self._memory.write(pointer, data)
            self._stdin_position += len(data)
            total += len(data)
        self._write_u32(result, total)
        return SUCCESS

    def _fd_close(self, fd: int) -> int:
        if fd not in self._open:
            return BADF
        self._open.discard(fd)
        return SUCCESS

    def _fd_fdstat_get(self, fd: int, result: int) -> int:
        if fd not in self._open:
            return BADF
        rights = _RIGHT_READ if fd == _STDIN else _RIGHT_WRITE
        self._memory.write(result, struct.pack("<BxHxxxxQQ", _CHARACTER_DEVICE, 0, rights, 0))
        return SUCCESS

    def _fd_filestat_get(self, fd: int, result: int) -> int:
        if fd not in self._open:
            return BADF
        self._memory.write(result, struct.pack("<QQBxxxxxxxQQQQQ", 0, 0, _CHARACTER_DEVICE, 0, 0, 0, 0, 0))
        return SUCCESS

    def _fd_fdstat_set_flags(self, fd: int, _flags: int) -> int:
        return SUCCESS if fd in self._open else BADF

    def _fd_prestat_get(self, _fd: int, _result: int) -> int:
        return BADF

    def _fd_prestat_dir_name(self, _fd: int, _path: int, _size: int) -> int:
        return BADF

    def _sched_yield(self) -> None:
        return None

    def _proc_exit(self, code: int) -> None:
        raise GuestExit(code)

    def _poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Readiness of the streams at once, else the earliest clock, slept for until then or the deadline."""
        if not 0 < count <= _IOVECS_MAX:
            return INVAL
        untrusted = list(struct.iter_unpack("<QB7xIxxxxQQHxxxxxx", self._memory.read(subscriptions, 48 * count)))
        self._spend(48 * count)
        ready = [(user, kind, SUCCESS if fd in self._open else BADF) for user, kind, fd, *_ in untrusted if kind != 0]
        if not ready:
            waits = [_wait_seconds(clock, timeout, flags) for _, _, clock, timeout, _, flags in untrusted]
            self._sleep(min(waits))
            ready = [(item[0], 0, SUCCESS) for item, wait in zip(untrusted, waits, strict=True) if wait <= min(waits)]
        packed = b"".join(struct.pack("<QHBxxxxxQHxxxxxx", user, error, kind, 0, 0) for user, kind, error in ready)
        self._memory.write(events, packed)
        self._write_u32(result, len(ready))
        return SUCCESS

    def _sleep(self, seconds: float) -> None:
        left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(seconds, left)))
        if seconds >= left:
            raise DeadlinePassed


def _wait_seconds(clock: int, timeout_ns: int, flags: int) -> float:
    absolute = flags & 1
    now = time.clock_gettime_ns(_CLOCKS.get(clock, time.CLOCK_MONOTONIC)) if absolute else 0
    return max(0, timeout_ns - now) / 1e9
