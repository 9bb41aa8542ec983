"""A one-shot child: stands by warm, takes one job, gives up its rights, does the job, writes one frame, and ends."""

from __future__ import annotations

import json
import math
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

from offchainvm.engine.confine import isolate, limit_resources
from offchainvm.engine.limits import MIB, Limits
from offchainvm.engine.protocol import CONTROL_BYTES_MAX, ProtocolError, encode, receive
from offchainvm.engine.system_calls import forbid_other_calls
from offchainvm.errors import ExecutionError, Status

STALE = "stale"
"""Told instead of a status: the native code is not of this engine on this processor."""
_SLACK_BYTES = 96 * MIB
_NO_JOB, _NO_INPUT, _FAILED = 2, 3, 4
Report = Callable[[int, int], None]


def child_main(jobs: socket.socket, *, zygote: int, report: Report, metering: str) -> NoReturn:
    """The whole life of a child; never returns, whatever happens."""
    try:
        isolate(parent=zygote)
        if not select.select([jobs], [], [], 0)[0]:
            _warm_up(metering)
        message, descriptors, *_ = socket.recv_fds(jobs, CONTROL_BYTES_MAX, 4)
        jobs.close()
        if not message:
            os._exit(_NO_JOB)
        job = json.loads(message)
        limit_resources(data_bytes=job["data_bytes"] + _SLACK_BYTES, cpu_seconds=math.ceil(job["wall_seconds"]) + 2)
        channel = socket.socket(fileno=descriptors[0])
        channel.sendall(_frame(channel, job, descriptors, report))
        os._exit(0)
    except (ProtocolError, OSError):
        os._exit(_NO_INPUT)
    finally:
        os._exit(_FAILED)


def _warm_up(metering: str) -> None:
    """Touch, while nobody waits, the pages that every job touches: most of a fork's cost is to copy them."""
    from offchainvm.engine import guest  # noqa: PLC0415 - the zygote has loaded it

    guest.warm_up(metering)


def _frame(channel: socket.socket, job: dict[str, Any], descriptors: list[int], report: Report) -> bytes:
    try:
        return _compile(channel, job) if job["kind"] == "compile" else _run(channel, job, descriptors, report)
    except ExecutionError as error:
        return encode({"status": error.status.value, "message": error.sentence})
    except (ProtocolError, OSError):
        raise
    except MemoryError:
        status = Status.COMPILE_RESOURCE_LIMIT if job["kind"] == "compile" else Status.INTERNAL_ERROR
        return encode({"status": status.value, "message": "The engine's process ran out of memory."})
    except Exception as error:
        return encode({"status": Status.INTERNAL_ERROR.value, "message": f"The engine's process failed ({type(error).__name__})."})


def _compile(channel: socket.socket, job: dict[str, Any]) -> bytes:
    from offchainvm.engine import module, wasmtime_engine  # noqa: PLC0415 - the zygote has loaded them

    forbid_other_calls()
    _, (untrusted_wasm,) = receive(channel, max_bytes=job["module_bytes"])
    info = module.check_module(untrusted_wasm)
    native = wasmtime_engine.compile_module(untrusted_wasm, metering=job["metering"])
    head = {
        "status": Status.OK.value,
        "entry": info.entry,
        "initialize": info.initialize,
        "memory_min_bytes": info.memory_min_bytes,
        "wasi_imports": sorted({item.name for item in info.imports}),
    }
    return encode(head, native)


def _run(channel: socket.socket, job: dict[str, Any], descriptors: list[int], report: Report) -> bytes:
    from offchainvm.engine import guest, wasmtime_engine  # noqa: PLC0415 - the zygote has loaded them

    processor_ms = time.process_time() * 1000
    try:
        module = wasmtime_engine.load(f"/proc/self/fd/{descriptors[1]}", metering=job["metering"])
    except wasmtime_engine.StaleNativeCode:
        module = None
    forbid_other_calls()
    head, (untrusted_input,) = receive(channel, max_bytes=job["input_bytes"])
    if module is None:
        return encode({"status": STALE}, b"", b"")
    work = guest.Job(
        entry=head["entry"],
        initialize=head["initialize"],
        wasi_imports=tuple(head["wasi_imports"]),
        memory_min_bytes=head["memory_min_bytes"],
        input=untrusted_input,
        environment=head["environment"],
        limits=Limits(**head["limits"]),
        metering=job["metering"],
    )
    outcome = guest.Guest(module, work, job["started"], report).run()
    fields = dict(vars(outcome), status=outcome.status.value, cpu_ms=time.process_time() * 1000 - processor_ms)
    return encode(fields, fields.pop("stdout"), fields.pop("stderr"))
