"""The process that children are forked from: warm, single-threaded, and itself never near a stranger's byte.

It has loaded the engine and has run one module of ours. One child stands by at all times, forked and warm too: it takes
one job, gives up its rights, reads what belongs to the job from a socket, writes one frame and ends. The zygote waits for
it, kills its whole group at the deadline, and tells the supervisor how it ended.
Nothing here may start a thread: a fork would copy locks that nobody holds.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import mmap
import os
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offchainvm.engine.child import Warm, child_main
from offchainvm.engine.confine import allow_stack
from offchainvm.engine.meter import NATIVE_STACK_BYTES
from offchainvm.engine.protocol import CONTROL_BYTES_MAX, JOB_DESCRIPTORS_MAX
from offchainvm.processes import die_with_parent

_PROGRESS = struct.Struct("=QQ")


def main(control_fd: int, parent: int, *, die_with_thread: bool, engine: str, metering: str) -> None:
    """Serve jobs until the supervisor closes the control socket, or dies.

    ``die_with_thread``: the kernel's death signal comes with the end of the thread that started this process, so it is
    asked for only when that is the supervisor's main thread.
    """
    if die_with_thread:
        die_with_parent(parent=parent)
    allow_stack(NATIVE_STACK_BYTES)
    control = socket.socket(fileno=control_fd)
    try:
        Zygote(control, engine, metering).serve()
    except Exception as error:
        # A child that stands by dies with this process. Nobody may be there any more to be told.
        with contextlib.suppress(OSError):
            control.send(json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}).encode())


@dataclass(frozen=True)
class _Child:
    """A child that stands by: takes one job from ``channel``; ``alive`` ends when it does."""

    pid: int
    channel: socket.socket
    alive: int

    def kill(self) -> None:
        """Kill it and its group; a process that is ending already keeps its exit status."""
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)

    def reap(self) -> tuple[int, float]:
        """Exit code and processor milliseconds, once it is gone."""
        self.channel.close()
        os.close(self.alive)
        _, status, usage = os.wait4(self.pid, 0)
        return os.waitstatus_to_exitcode(status), (usage.ru_utime + usage.ru_stime) * 1000


class Zygote:
    """The loop: one job at a time."""

    def __init__(self, control: socket.socket, engine: str, metering: str) -> None:
        self._control = control
        self._progress = mmap.mmap(-1, mmap.PAGESIZE)
        self._warm = _warm_up(engine, metering)

    def serve(self) -> None:
        self._control.send(json.dumps({"ready": True}).encode())
        while True:
            child = self._fork()
            message, descriptors, *_ = socket.recv_fds(self._control, CONTROL_BYTES_MAX, JOB_DESCRIPTORS_MAX)
            if not message:
                break
            answer = self._job(child, json.loads(message), descriptors)
            self._control.send(json.dumps(answer).encode())
        child.kill()
        child.reap()

    def _fork(self) -> _Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        alive, alive_write = os.pipe()
        zygote, child = os.getpid(), os.fork()
        if child == 0:
            os.close(alive)
            ours.close()
            self._control.close()
            child_main(theirs, zygote=zygote, report=self._report, warm=self._warm)
        os.close(alive_write)
        theirs.close()
        return _Child(child, ours, alive)

    def _report(self, instructions: int, memory_bytes: int) -> None:
        self._progress[: _PROGRESS.size] = _PROGRESS.pack(instructions, memory_bytes)

    def _job(self, child: _Child, job: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        self._report(0, 0)
        started = time.monotonic()
        # A child that died while it stood by is found out below, by its exit status.
        with contextlib.suppress(OSError):
            socket.send_fds(child.channel, [json.dumps({**job, "started": started}).encode()], descriptors)
        killed = self._wait(child, descriptors[0], started + job["kill_after_seconds"])
        for descriptor in descriptors:
            os.close(descriptor)
        exit_code, cpu_ms = child.reap()
        instructions, memory_bytes = _PROGRESS.unpack(self._progress[: _PROGRESS.size])
        return {
            "exit": exit_code,
            "killed": killed,
            "instructions": instructions,
            "memory_bytes": memory_bytes,
            "wall_ms": (time.monotonic() - started) * 1000,
            "cpu_ms": cpu_ms,
        }

    def _wait(self, child: _Child, channel: int, deadline: float) -> bool:
        """Until the child is gone, the deadline passed, or nobody listens to its channel; whether its time was over."""
        poll = select.poll()
        poll.register(child.alive, select.POLLIN)
        poll.register(channel, select.POLLRDHUP)
        events = poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000)))
        # Also when it is gone: what it may have left in its group goes with it.
        child.kill()
        return not events


def _warm_up(engine: str, metering: str) -> Warm:
    # Not at the top: an engine that cannot be loaded is told to the supervisor.
    from offchainvm.engine import backends, guest, module  # noqa: F401, PLC0415

    backend = backends.backend(engine)
    warm = Warm(backend, metering, guest.warm_up_program(backend, metering))
    warm.up()
    tasks = Path("/proc/self/task")
    if tasks.is_dir() and len(list(tasks.iterdir())) != 1:
        raise RuntimeError("the engine started a thread, so that forking is not safe")
    gc.collect()
    gc.freeze()
    gc.disable()
    return warm
