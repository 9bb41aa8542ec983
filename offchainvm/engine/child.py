"""A one-shot child: stands by warm, takes one job, gives up its rights, does the job, writes one frame, and ends."""

from __future__ import annotations

import json
import math
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, NoReturn

from offchainvm.engine.confine import isolate, limit_resources
from offchainvm.engine.limits import MIB, Limits
from offchainvm.engine.machine import Backend, StaleNativeCode
from offchainvm.engine.protocol import CONTROL_BYTES_MAX, JOB_DESCRIPTORS_MAX, ProtocolError, encode, receive
from offchainvm.engine.system_calls import forbid_other_calls
from offchainvm.errors import ExecutionError, Status

STALE = "stale"
"""Told instead of a status: the native code is not of this engine on this processor."""
_SLACK_BYTES = 96 * MIB
_NO_JOB, _NO_INPUT, _FAILED = 2, 3, 4
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Warm:
    """What the zygote has loaded for its children: an engine, how it counts, and our own program in it."""

    backend: Backend
    metering: str
    program: Any

    def up(self) -> None:
        """Run our program."""
        from offchainvm.engine import guest  # noqa: PLC0415 - the zygote has loaded it

        guest.warm_up(self.backend, self.program, self.metering)


def child_main(jobs: socket.socket, *, zygote: int, report: Report, warm: Warm) -> NoReturn:
    """The whole life of a child; never returns, whatever happens."""
    try:
        isolate(parent=zygote)
        if not select.select([jobs], [], [], 0)[0]:
            # Touch, while nobody waits, the pages that every job touches: most of a fork's cost is to copy them.
            warm.up()
        message, descriptors, *_ = socket.recv_fds(jobs, CONTROL_BYTES_MAX, JOB_DESCRIPTORS_MAX)
        jobs.close()
        if not message:
            os._exit(_NO_JOB)
        warm.backend.in_child(lambda: _do(json.loads(message), descriptors, report, warm))
    finally:
        os._exit(_FAILED)


def _do(job: dict[str, Any], descriptors: list[int], report: Report, warm: Warm) -> NoReturn:
    try:
        if job["component"]:
            _components().prepare(job["kind"])
        elif job["kind"] == "compile":
            warm.backend.prepare_compiler()
        limit_resources(data_bytes=job["data_bytes"] + _SLACK_BYTES, cpu_seconds=math.ceil(job["kill_after_seconds"]) + 2)
        channel = socket.socket(fileno=descriptors[0])
        channel.sendall(_frame(channel, job, descriptors, report, warm))
        os._exit(0)
    except (ProtocolError, OSError):
        os._exit(_NO_INPUT)
    finally:
        os._exit(_FAILED)


def _frame(channel: socket.socket, job: dict[str, Any], descriptors: list[int], report: Report, warm: Warm) -> bytes:
    try:
        return _compile(channel, job, warm) if job["kind"] == "compile" else _run(channel, job, descriptors, report, warm)
    except ExecutionError as error:
        return encode({"status": error.status.value, "message": error.sentence})
    except (ProtocolError, OSError):
        raise
    except MemoryError:
        status = Status.COMPILE_RESOURCE_LIMIT if job["kind"] == "compile" else Status.INTERNAL_ERROR
        return encode({"status": status.value, "message": "The engine's process ran out of memory."})
    except Exception as error:
        return encode({"status": Status.INTERNAL_ERROR.value, "message": f"The engine's process failed ({type(error).__name__})."})


def _compile(channel: socket.socket, job: dict[str, Any], warm: Warm) -> bytes:
    from offchainvm.engine import module  # noqa: PLC0415 - the zygote has loaded it

    forbid_other_calls()
    _, (untrusted_wasm,) = receive(channel, max_bytes=job["module_bytes"])
    info = module.check_module(untrusted_wasm, validate=warm.backend.validate)
    if job["component"]:
        native = _components().compile_component(untrusted_wasm)
    else:
        native = warm.backend.compile_module(untrusted_wasm, warm.metering)
    return encode({"status": Status.OK.value, "module": asdict(info)}, native)


def _run(channel: socket.socket, job: dict[str, Any], descriptors: list[int], report: Report, warm: Warm) -> bytes:
    from offchainvm.engine import guest, module  # noqa: PLC0415 - the zygote has loaded them

    processor_ms = time.process_time() * 1000
    path = f"/proc/self/fd/{descriptors[1]}"
    try:
        program = _components().load_component(path) if job["component"] else warm.backend.load(path, warm.metering)
    except StaleNativeCode:
        program = None
    forbid_other_calls(but_for_components=job["component"])
    head, (untrusted_input,) = receive(channel, max_bytes=job["input_bytes"])
    if program is None:
        return encode({"status": STALE}, b"", b"")
    work = guest.Job(
        module=module.ModuleInfo.parse(head["module"]),
        entry=head["entry"],
        input=untrusted_input,
        environment=head["environment"],
        limits=Limits(**head["limits"]),
        metering=warm.metering,
    )
    if job["component"]:
        outcome = _components().run_component(program, work, job["started"], report)
    else:
        outcome = guest.Guest(warm.backend, program, work, job["started"], report).run()
    fields = dict(asdict(outcome), status=outcome.status.value, cpu_ms=time.process_time() * 1000 - processor_ms)
    return encode(fields, fields.pop("stdout"), fields.pop("stderr"))


def _components() -> ModuleType:
    from offchainvm.engine import wasmtime_component  # noqa: PLC0415 - few jobs need it, and wasmer has none

    return wasmtime_component
