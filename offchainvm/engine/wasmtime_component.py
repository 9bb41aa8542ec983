"""One run of a command component (``wasi:cli/run``) with wasmtime's own WASI: no folder, no network, no environment but ours.

wasmtime counts (native fuel), in slices, after each of which the deadline is looked at; what its host functions do is not charged, and
they look at no deadline: in one, the time limit is kept by force. They run on a thread pool of their own, which is started before this
process gives up its rights.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component

from offchainvm.engine.component import ENTRY, MEMORIES_MAX, TABLE_ELEMENTS_EACH, TABLES_MAX
from offchainvm.engine.confine import one_heap
from offchainvm.engine.fuel import Slices
from offchainvm.engine.guest import Job
from offchainvm.engine.limits import MIB, Limits
from offchainvm.engine.machine import TRAP_CODES, StaleNativeCode, invalid
from offchainvm.engine.module import ModuleInfo
from offchainvm.engine.outcome import Endings, Outcome, rust_asked_for
from offchainvm.engine.wasi import DeadlinePassed, OutputLimit
from offchainvm.engine.wasmtime_engine import make_engine
from offchainvm.errors import ExecutionError, Status

_INSTANCES_MAX = 100
_HOST_BYTES = 32 * MIB
"""What the host's own side of a run may touch beside the memories: native code, tables, streams. Less than its slack of data."""
_ASKS_FOR_STDOUT = """(component
  (import "wasi:io/streams@0.2.0" (instance $streams (export "output-stream" (type (sub resource)))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $outer)) (export "output-stream" (type $own (eq $outer)))
    (export "get-stdout" (func (result (own $own))))))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core module $m (import "" "get" (func $get (result i32))) (func (export "run") (result i32) (drop (call $get)) (i32.const 0)))
  (core instance $i (instantiate $m (with "" (instance (export "get" (func $get))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))"""


@functools.cache
def _engine() -> wasmtime.Engine:
    return make_engine("native", components=True)


def compile_component(untrusted_wasm: bytes) -> bytes:
    """Native code of a component whose core modules are within the limits; only ever in a child with limits.

    Raises:
        ExecutionError: invalid_module, unsupported_feature, or link_error where it is no command.
    """
    try:
        made = component.Component(_engine(), untrusted_wasm)
    except wasmtime.WasmtimeError as error:
        raise invalid(str(error)) from None
    if _run_interface(made) is None:
        raise ExecutionError(Status.LINK_ERROR, f"The component does not export {ENTRY}@0.2: only commands can be run.")
    return bytes(made.serialize())


def load_component(path: str) -> component.Component:
    """A component from a file of native code that this worker made itself.

    Raises:
        StaleNativeCode: it was made by another version, configuration or processor.
    """
    try:
        return component.Component.deserialize_file(_engine(), path)
    except wasmtime.WasmtimeError:
        raise StaleNativeCode from None


def prepare(kind: str) -> None:
    """Before a child gives up its rights; to run, wasmtime's WASI starts its threads, which it could not do later."""
    if kind != "run":
        return
    one_heap()
    ours = component.Component(_engine(), bytes(wasmtime.wat2wasm(_ASKS_FOR_STDOUT)))
    limits = Limits(instructions=10_000, memory_bytes=1 << 20, wall_seconds=10)
    _Command(ours, Job(ModuleInfo((ENTRY,)), ENTRY, b"", {}, limits), time.monotonic(), lambda *_: None).run()


def run_component(program: component.Component, job: Job, started: float, report: Callable[[int, int], None]) -> Outcome:
    """Run to the end, whatever it is; ``report`` is told instructions and bytes after each slice."""
    return _Command(program, job, started, report).run()


def _run_interface(program: component.Component) -> str | None:
    names = program.type.exports(_engine())
    return next((name for name in names if name.startswith(f"{ENTRY}@0.2.")), None)


class _Stream:
    """What a guest writes, up to a limit; ``closing``: beyond that, writing fails."""

    def __init__(self, limit: int, *, closing: bool) -> None:
        self.data, self.truncated = bytearray(), False
        self._limit, self._closing = limit, closing

    def __call__(self, written: bytes) -> int:
        taken = written[: self._limit - len(self.data)]
        self.data += taken
        self.truncated = self.truncated or len(taken) < len(written)
        return -errno.EPIPE if self._closing and self.truncated else len(written)


class _Command:
    """One command in its store.

    Its memory is taken to be what the process grew by, since a component shows none. Each of its memories may have the whole
    limit: what they touch in sum is looked at when the run is over, and meanwhile the kernel bounds what they have.
    """

    def __init__(self, program: component.Component, job: Job, started: float, report: Callable[[int, int], None]) -> None:
        self._program, self._limits, self._started, self._report = program, job.limits, started, report
        self._resident_before = _resident_bytes()
        self._stdout = _Stream(job.limits.output_bytes, closing=True)
        self._stderr = _Stream(job.limits.stderr_bytes, closing=False)
        self._endings = Endings(job.limits, answers_by_exit=True, was_refused=lambda: rust_asked_for(self._stderr.data) > 0)
        self._store = wasmtime.Store(_engine())
        self._store.set_fuel(job.limits.instructions)
        self._store.set_limits(
            memory_size=job.limits.memory_bytes, memories=MEMORIES_MAX,
            table_elements=TABLE_ELEMENTS_EACH, tables=TABLES_MAX, instances=_INSTANCES_MAX,
        )  # fmt: skip
        self._store.set_wasi(self._wasi(job))
        self._slices = Slices(self._store, self._on_slice)

    def run(self) -> Outcome:
        outcome = self._ending()
        if self._stdout.truncated:
            outcome = self._endings.by_host(OutputLimit())
        grown = _resident_bytes() - self._resident_before
        if grown > self._limits.memory_bytes + _HOST_BYTES:
            outcome = replace(self._endings.too_much_memory(grown), instructions_exact=outcome.instructions_exact)
        return replace(
            outcome,
            stdout=bytes(self._stdout.data),
            stdout_truncated=self._stdout.truncated,
            stderr=bytes(self._stderr.data),
            stderr_truncated=self._stderr.truncated,
            instructions_used=outcome.instructions_used if outcome.status is Status.OUT_OF_FUEL else self._instructions,
            peak_memory_bytes=self._grown,
        )

    def _wasi(self, job: Job) -> wasmtime.WasiConfig:
        wasi = wasmtime.WasiConfig()
        wasi.env = list(job.environment.items())
        stdin = ffi.wasm_byte_vec_t()
        ffi.wasm_byte_vec_new(ctypes.byref(stdin), len(job.input), (ctypes.c_ubyte * len(job.input)).from_buffer_copy(job.input))
        ffi.wasi_config_set_stdin_bytes(wasi.ptr(), ctypes.byref(stdin))
        wasi.stdout_custom, wasi.stderr_custom = self._stdout, self._stderr
        return wasi

    @property
    def _instructions(self) -> int:
        return self._limits.instructions - int(self._store.get_fuel())

    @property
    def _grown(self) -> int:
        return min(_resident_bytes() - self._resident_before, self._limits.memory_bytes)

    def _on_slice(self) -> None:
        self._report(self._instructions, self._grown)
        if time.monotonic() > self._started + self._limits.wall_seconds:
            raise DeadlinePassed

    def _ending(self) -> Outcome:
        started = False
        try:
            linker = component.Linker(_engine())
            linker.add_wasip2()
            instance = self._slices.instantiate_component(linker, self._program)
            started = True
            return self._endings.by_exit(1 if self._has_failed(instance) else 0)
        except wasmtime.ExitTrap as trap:
            return self._endings.by_exit(trap.code)
        except DeadlinePassed as ended:
            return self._endings.by_host(ended)
        except wasmtime.WasmtimeError as error:
            _, trapped, words = str(error).strip().rpartition("wasm trap: ")
            if trapped:
                return self._endings.by_trap(TRAP_CODES.get(words, words[:64]))
            return self._endings.by_engine(str(error), started=started)

    def _has_failed(self, instance: component.Instance) -> bool:
        interface = instance.get_export_index(self._store, _run_interface(self._program) or "")
        index = instance.get_export_index(self._store, "run", interface)
        function = instance.get_func(self._store, index) if index else None
        # ``run`` answers ``result`` without values.
        return function is None or getattr(self._slices.call_component(function), "tag", "ok") != "ok"


def _resident_bytes() -> int:
    """The most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
