"""One run of one guest, in a child that does nothing else: both ABIs, every ending as a status."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from offchainvm.engine.limits import WASM_PAGE_BYTES, Limits
from offchainvm.engine.machine import Backend, EngineFailed, HostFunction, Trapped, Watch
from offchainvm.engine.module import ModuleInfo
from offchainvm.engine.outcome import Ended, Endings, Outcome, rust_asked_for
from offchainvm.engine.wasi import BadPointer, DeadlinePassed, HostEnding, Wasi
from offchainvm.errors import Status


@dataclass(frozen=True)
class Job:
    """What a guest is run with; ``entry`` is one of its module's."""

    module: ModuleInfo
    entry: str
    input: bytes
    environment: Mapping[str, str]
    limits: Limits
    metering: str = "native"


@dataclass
class Guest:
    """A guest in its machine. ``report(instructions, memory_bytes)`` is told the counts after every slice."""

    backend: Backend
    program: Any
    job: Job
    started: float
    report: Callable[[int, int], None]
    _ended: BaseException | None = None
    _started: bool = False
    _known_instructions: int = 0

    def __post_init__(self) -> None:
        limits, answers_by_exit = self.job.limits, self.job.entry == "_start"
        self._machine = self.backend.machine(self.program, limits, Watch(self._on_slice, self._note), self.job.metering)
        self._counter = self._machine.counter
        self._deadline = self.started + limits.wall_seconds
        self._endings = Endings(limits, answers_by_exit=answers_by_exit, was_refused=self._was_refused)
        self._wasi = Wasi(
            memory=self._machine, charge=self._counter.charge, stdin=self.job.input if answers_by_exit else b"",
            environment=self.job.environment, output_bytes=limits.output_bytes if answers_by_exit else None,
            stderr_bytes=limits.stderr_bytes, deadline=self._deadline,
        )  # fmt: skip

    def run(self) -> Outcome:
        """Run to the end, whatever it is."""
        try:
            outcome = Outcome(stdout=self._answer())
        except Ended as ended:
            outcome = ended.outcome
        if self._counter.overdrawn:
            outcome = self._endings.out_of_fuel()
        if self.job.entry == "_start":
            outcome = replace(outcome, stdout=bytes(self._wasi.stdout), stdout_truncated=self._wasi.stdout_truncated)
        return replace(
            outcome,
            stderr=bytes(self._wasi.stderr),
            stderr_truncated=self._wasi.stderr_truncated,
            instructions_used=self._instructions_of(outcome),
            peak_memory_bytes=self._machine.memory_bytes or self.job.module.memory_min_bytes,
        )

    def _answer(self) -> bytes:
        try:
            self._machine.start({name: self._host_function(name) for name in self.job.module.wasi_imports})
            self._started = True
            self._report_counts()
            return self._called()
        except Trapped as trap:
            outcome = self._endings.by_host(self._ended) if self._ended else self._endings.by_trap(trap.code)
        except EngineFailed as error:
            outcome = self._endings.by_host(self._ended) if self._ended else self._endings.by_engine(str(error), started=self._started)
        except HostEnding as ended:
            outcome = self._endings.by_host(ended)
        raise Ended(outcome)

    def _called(self) -> bytes:
        machine = self._machine
        if self.job.module.initialize:
            machine.call("_initialize")
        if self.job.entry == "_start":
            machine.call("_start")
            return b""
        self._place_input()
        return self._output_at(machine.call("execute", 0, len(self.job.input), results=1) or 0)

    def _host_function(self, name: str) -> HostFunction:
        function = self._wasi.function(name)

        def call(arguments: tuple[int, ...]) -> int | None:
            self._check_deadline()
            return function(arguments)

        return call

    def _place_input(self) -> None:
        missing = len(self.job.input) - self._machine.memory_bytes
        if missing > 0:
            try:
                self._machine.grow(-(-missing // WASM_PAGE_BYTES))
            except EngineFailed:
                text = f"The input of {len(self.job.input)} bytes does not fit into the program's memory."
                raise Ended(Outcome(Status.MEMORY_LIMIT, text)) from None
        self._machine.write(0, self.job.input)

    def _output_at(self, pointer: int) -> bytes:
        if pointer < 0:
            raise Ended(self._endings.by_result(pointer))
        try:
            (size,) = struct.unpack("<I", self._machine.read(pointer, 4))
            self._machine.read(pointer + 4 + size, 0)
        except BadPointer:
            raise Ended(self._endings.by_trap("output_out_of_bounds")) from None
        limit = self.job.limits.output_bytes
        if size > limit:
            text = f"The output has {size} bytes; the limit is {limit}."
            part = self._machine.read(pointer + 4, limit)
            raise Ended(Outcome(Status.OUTPUT_LIMIT, text, stdout=part, stdout_truncated=True))
        return self._machine.read(pointer + 4, size)

    def _was_refused(self) -> bool:
        """Whether growth beyond the limit was refused.

        wasmtime's own meter does not tell. Then Rust's standard library may have said it on stderr; else a memory that grew to
        three quarters of its limit is taken to have asked for more.
        """
        limit, refused = self.job.limits.memory_bytes, self._machine.refused_bytes
        if refused is not None:
            return refused > limit
        size, asked = self._machine.memory_bytes, rust_asked_for(self._wasi.stderr)
        nearly_full = size > self.job.module.memory_min_bytes and size * 4 >= limit * 3
        return nearly_full or (asked > 0 and size + asked > limit)

    def _note(self, ended: BaseException) -> None:
        self._ended = ended

    def _on_slice(self) -> None:
        self._report_counts()
        self._check_deadline()

    def _check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise DeadlinePassed

    def _report_counts(self) -> None:
        self._known_instructions = self.job.limits.instructions - self._counter.left
        self.report(self._known_instructions, self._machine.memory_bytes or self.job.module.memory_min_bytes)

    def _instructions_of(self, outcome: Outcome) -> int:
        if outcome.status is Status.OUT_OF_FUEL:
            return outcome.instructions_used
        return max(self._known_instructions, self.job.limits.instructions - self._counter.left)


# Its `execute` writes the input to stderr through fd_write and answers with four bytes: the way of every job, once.
_WARM_UP = bytes.fromhex(
    "0061736d01000000010f0260047f7f7f7f017f60027f7f017f02230116776173695f736e617073686f745f70726576696577310866645f777269746500000302"
    "01010503010001071402066d656d6f72790200076578656375746500010a280126004110200036020041142001360200410241104101412010001a41c0004104"
    "36020041c0000b0011046e616d65010401000177040401000177"
)
_WARM_UP_MODULE = ModuleInfo(entries=("execute",), wasi_imports=("fd_write",), memory_min_bytes=WASM_PAGE_BYTES)


def warm_up_program(backend: Backend, metering: str) -> Any:
    """Our module as a program of this engine; once a process, since that compiles it."""
    return backend.load_ours(_WARM_UP, metering)


def warm_up(backend: Backend, program: Any, metering: str) -> None:
    """Run our module once, so that this process, or its forked children, find every page and symbol in place."""
    limits = Limits(instructions=1000, memory_bytes=1 << 20, wall_seconds=10)
    job = Job(_WARM_UP_MODULE, "execute", b"warm", {}, limits, metering)
    Guest(backend, program, job, time.monotonic(), lambda *_: None).run()
