"""The process that is forked for every job: warm, single-threaded, and itself never near a stranger's byte.

It has loaded the engine and has run one module of ours; for each job it forks a child, which gives up its rights, reads
its job from a socket, writes one frame and ends. The zygote waits for the child, kills its whole group at the deadline,
and tells the supervisor how it ended. It takes part in nothing that starts a thread: a fork would copy locks that nobody holds.
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
from pathlib import Path
from typing import Any, NoReturn

from offchainvm.engine.confine import confine, die_with_parent
from offchainvm.engine.limits import MIB, Limits
from offchainvm.engine.protocol import CONTROL_BYTES_MAX, ProtocolError, encode, receive
from offchainvm.errors import ExecutionError, Status

KILL_GRACE_SECONDS = 0.2
"""After the limit by which a guest should have noticed, until its group is killed."""
STALE = "stale"
_SLACK_BYTES = 96 * MIB
_PROGRESS = struct.Struct("=QQ")


def main(control_fd: int, parent: int, *, die_with_thread: bool) -> None:
    """Serve jobs until the supervisor closes the control socket, or dies.

    ``die_with_thread``: the kernel's death signal comes with the end of the thread that started this process, so it is
    asked for only when that is the supervisor's main thread.
    """
    if die_with_thread:
        die_with_parent(parent)
    control = socket.socket(fileno=control_fd)
    try:
        zygote = Zygote(control)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}).encode())
        return
    zygote.serve()


class Zygote:
    """The loop: one job at a time."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._progress = mmap.mmap(-1, mmap.PAGESIZE)
        self._warm_up()

    def serve(self) -> None:
        from offchainvm.engine import wasmtime_engine  # noqa: PLC0415 - loaded by the warm-up, whose failure is told to the supervisor

        ready = {
            "engine": wasmtime_engine.NAME,
            "engine_version": wasmtime_engine.version(),
            "meter_version": wasmtime_engine.meter_version(),
        }
        self._control.send(json.dumps({**ready, "configuration": wasmtime_engine.CONFIGURATION}).encode())
        while True:
            message, descriptors, *_ = socket.recv_fds(self._control, CONTROL_BYTES_MAX, 4)
            if not message:
                return
            answer = self._job(json.loads(message), descriptors)
            self._control.send(json.dumps(answer).encode())

    def _warm_up(self) -> None:
        from offchainvm.engine import guest  # noqa: PLC0415 - see serve

        guest.warm_up()
        tasks = Path("/proc/self/task")
        if tasks.is_dir() and len(list(tasks.iterdir())) != 1:
            raise RuntimeError("the engine started a thread: forking is not safe")
        gc.collect()
        gc.freeze()
        gc.disable()

    def _job(self, job: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        self._progress[: _PROGRESS.size] = _PROGRESS.pack(0, 0)
        alive_read, alive_write = os.pipe()
        started, zygote = time.monotonic(), os.getpid()
        child = os.fork()
        if child == 0:
            os.close(alive_read)
            self._control.close()
            _child(job, descriptors, zygote, started, self._progress)
        os.close(alive_write)
        for descriptor in descriptors:
            os.close(descriptor)
        killed = self._wait(alive_read, child, started + job["wall_seconds"] + KILL_GRACE_SECONDS)
        os.close(alive_read)
        _, status, usage = os.wait4(child, 0)
        instructions, memory_bytes = _PROGRESS.unpack(self._progress[: _PROGRESS.size])
        return {
            "exit": os.waitstatus_to_exitcode(status),
            "killed": killed,
            "instructions": instructions,
            "memory_bytes": memory_bytes,
            "wall_ms": (time.monotonic() - started) * 1000,
            "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000,
        }

    def _wait(self, alive: int, child: int, deadline: float) -> bool:
        """Until the child is gone, the deadline passed, or the supervisor went away; whether the child had to be killed."""
        poll = select.poll()
        poll.register(alive, select.POLLIN)
        poll.register(self._control, select.POLLHUP | select.POLLRDHUP)
        events = poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000)))
        gone = any(descriptor == alive for descriptor, _ in events)
        # Also when it is gone: what it may have left in its group goes with it. A process that is ending keeps its status.
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(child, signal.SIGKILL)
        return not gone


def _child(job: dict[str, Any], descriptors: list[int], zygote: int, started: float, progress: mmap.mmap) -> NoReturn:
    try:
        confine(parent=zygote, data_bytes=job["data_bytes"] + _SLACK_BYTES, cpu_seconds=math.ceil(job["wall_seconds"]) + 2)
        channel = socket.socket(fileno=descriptors[0])
        work = _compile if job["kind"] == "compile" else _run
        try:
            frame = work(channel, job, descriptors, started, progress)
        except ExecutionError as error:
            frame = encode({"status": error.status.value, "message": error.sentence})
        except (ProtocolError, OSError):
            os._exit(3)
        except MemoryError:
            frame = encode({"status": Status.INTERNAL_ERROR.value, "message": "The engine's process ran out of memory."})
        except Exception as error:
            frame = encode({"status": Status.INTERNAL_ERROR.value, "message": f"The engine's process failed ({type(error).__name__})."})
        channel.sendall(frame)
        os._exit(0)
    finally:
        os._exit(4)


def _compile(channel: socket.socket, job: dict[str, Any], _descriptors: list[int], _started: float, _progress: mmap.mmap) -> bytes:
    from offchainvm.engine import module, wasmtime_engine  # noqa: PLC0415 - see Zygote.serve

    _, (untrusted_wasm,) = receive(channel, max_bytes=job["module_bytes"])
    info = module.check_module(untrusted_wasm)
    native = wasmtime_engine.compile_module(untrusted_wasm)
    head = {
        "status": Status.OK.value,
        "entry": info.entry,
        "initialize": info.initialize,
        "memory_min_bytes": info.memory_min_bytes,
        "wasi_imports": sorted({item.name for item in info.imports}),
    }
    return encode(head, native)


def _run(channel: socket.socket, job: dict[str, Any], descriptors: list[int], started: float, progress: mmap.mmap) -> bytes:
    from offchainvm.engine import guest, wasmtime_engine  # noqa: PLC0415 - see Zygote.serve

    head, (untrusted_input,) = receive(channel, max_bytes=job["input_bytes"])

    def report(instructions: int, memory_bytes: int) -> None:
        progress[: _PROGRESS.size] = _PROGRESS.pack(instructions, memory_bytes)

    try:
        module = wasmtime_engine.load(f"/proc/self/fd/{descriptors[1]}")
    except wasmtime_engine.StaleNativeCode:
        return encode({"status": STALE}, b"", b"")
    work = guest.Job(
        entry=head["entry"],
        initialize=head["initialize"],
        wasi_imports=tuple(head["wasi_imports"]),
        input=untrusted_input,
        environment=head["environment"],
        limits=Limits(**head["limits"]),
    )
    outcome = guest.Guest(module, work, started, report).run()
    fields = dict(vars(outcome), status=outcome.status.value)
    return encode(fields, fields.pop("stdout"), fields.pop("stderr"))
