"""One run of one guest, in a child that does nothing else: both ABIs, every ending as a status."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from offchainvm.engine.limits import WASM_PAGE_BYTES, Limits
from offchainvm.engine.machine import Backend, CannotStart, HostFunction, Trapped, Watch
from offchainvm.engine.meter import STACK_BYTES
from offchainvm.engine.wasi import BadPointer, DeadlinePassed, GuestExit, HostEnding, OutOfInstructions, OutputLimit, StackOverflow, Wasi
from offchainvm.errors import Status

# wasmtime writes the fuel down before `unreachable`, a call and a function's end; other traps lose what came after.
EXACT_TRAPS = ("unreachable", "out_of_fuel")
_RUST_ALLOCATION = re.compile(rb"memory allocation of (\d{1,20}) bytes failed")
_SENTENCES = {
    "unreachable": "The program stopped itself (it reached an `unreachable` instruction; in Rust, a panic)",
    "memory_out_of_bounds": "The program used an address outside its memory",
    "table_out_of_bounds": "The program used a table element that does not exist",
    "indirect_call_to_null": "The program called through an empty table element",
    "bad_signature": "The program called a function through a table with the wrong type",
    "integer_overflow": "An integer division or conversion of the program overflowed",
    "integer_division_by_zero": "The program divided an integer by zero",
    "bad_conversion_to_integer": "The program converted a number that is not one to an integer",
    "output_out_of_bounds": "`execute` returned a pointer or a length outside the program's memory",
}


@dataclass(frozen=True)
class Job:
    """What a guest is run with; ``wasi_imports`` are the names of the host functions that it imports."""

    entry: str
    initialize: bool
    wasi_imports: tuple[str, ...]
    memory_min_bytes: int
    input: bytes
    environment: Mapping[str, str]
    limits: Limits
    metering: str = "native"


@dataclass
class Outcome:
    """How it ended: the fields of ``ExecutionResult`` that the child knows."""

    status: Status = Status.OK
    message: str = ""
    exit_code: int | None = None
    trap: str | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    instructions_used: int = 0
    instructions_exact: bool = True
    peak_memory_bytes: int = 0
    wall_ms: float = 0.0


class _Answered(Exception):
    """The run is over, with this status."""

    def __init__(self, status: Status, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.fields = status, message, fields


@dataclass
class Guest:
    """A guest in its machine. ``report(instructions, memory_bytes)`` is told the counts after every slice."""

    backend: Backend
    program: Any
    job: Job
    started: float
    report: Callable[[int, int], None]
    _ended: BaseException | None = None
    _known_instructions: int = 0
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        limits = self.job.limits
        self._machine = self.backend.machine(self.program, limits, Watch(self._on_slice, self._note), self.job.metering)
        self._counter = self._machine.counter
        self._deadline = self.started + limits.wall_seconds
        self._wasi = Wasi(
            memory=self._machine, charge=self._counter.charge, stdin=self.job.input if self.job.entry == "_start" else b"",
            environment=self.job.environment, output_bytes=limits.output_bytes if self.job.entry == "_start" else None,
            stderr_bytes=limits.stderr_bytes, deadline=self._deadline,
        )  # fmt: skip

    def run(self) -> Outcome:
        """Run to the end, whatever it is."""
        outcome = self.outcome
        try:
            stdout = self._answer()
            if self._counter.overdrawn:
                raise self._out_of_fuel()
            outcome.stdout = stdout
        except _Answered as ending:
            found = self._out_of_fuel() if self._counter.overdrawn else ending
            outcome.status, outcome.message = found.status, found.message
            for name, value in found.fields.items():
                setattr(outcome, name, value)
        outcome.stderr, outcome.stderr_truncated = bytes(self._wasi.stderr), self._wasi.stderr_truncated
        if self.job.entry == "_start":
            outcome.stdout, outcome.stdout_truncated = bytes(self._wasi.stdout), self._wasi.stdout_truncated
        self._measure()
        return outcome

    def _answer(self) -> bytes:
        machine = self._machine
        try:
            machine.start({name: self._host_function(name) for name in self.job.wasi_imports})
            self._report_counts()
            if self.job.initialize:
                machine.call("_initialize")
            if self.job.entry == "_start":
                machine.call("_start")
                return b""
            self._place_input()
            pointer = machine.call("execute", 0, len(self.job.input), results=1)
            return self._output_at(pointer or 0)
        except Trapped as trap:
            raise self._ending_of(trap.code) from None
        except CannotStart as error:
            if self._ended is not None:
                raise self._ending_by_host(self._ended) from None
            text = " ".join(str(error).split())[:200]
            if "memory minimum size" in text or "memory limits" in text:
                raise _Answered(Status.MEMORY_LIMIT, f"The program needs more memory at its start than its limit: {text}.") from None
            raise _Answered(Status.LINK_ERROR, f"The module could not be started: {text}.") from None
        except HostEnding as ended:
            raise self._ending_by_host(ended) from None

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
            except CannotStart:
                raise _Answered(
                    Status.MEMORY_LIMIT, f"The input of {len(self.job.input)} bytes does not fit into the program's memory."
                ) from None
        self._machine.write(0, self.job.input)

    def _output_at(self, pointer: int) -> bytes:
        if pointer < 0:
            raise _Answered(Status.GUEST_EXIT, f"The program returned its error code {pointer}.", exit_code=pointer)
        try:
            (size,) = struct.unpack("<I", self._machine.read(pointer, 4))
            self._machine.read(pointer + 4 + size, 0)
        except BadPointer:
            raise _Answered(Status.TRAP, trap_sentence("output_out_of_bounds"), trap="output_out_of_bounds") from None
        limit = self.job.limits.output_bytes
        if size > limit:
            text = f"The output has {size} bytes; the limit is {limit}."
            raise _Answered(Status.OUTPUT_LIMIT, text, stdout=self._machine.read(pointer + 4, limit), stdout_truncated=True)
        return self._machine.read(pointer + 4, size)

    def _ending_of(self, code: str) -> _Answered:
        if self._ended is not None:
            return self._ending_by_host(self._ended)
        if code == "out_of_fuel":
            return self._out_of_fuel()
        exact = code in EXACT_TRAPS
        if code == "stack_overflow":
            return _Answered(Status.STACK_OVERFLOW, "The program's calls nest too deep for its stack.", instructions_exact=False)
        if code == "unreachable" and self._was_refused_memory():
            limit = self.job.limits.memory_bytes
            return _Answered(
                Status.MEMORY_LIMIT,
                f"The program needed more than its {limit} bytes of memory, and failed.",
                trap=code,
                instructions_exact=exact,
            )
        return _Answered(Status.TRAP, trap_sentence(code), trap=code, instructions_exact=exact)

    def _ending_by_host(self, ended: BaseException) -> _Answered:
        limits = self.job.limits
        if isinstance(ended, GuestExit):
            return self._exit(ended.code)
        if isinstance(ended, OutputLimit):
            return _Answered(Status.OUTPUT_LIMIT, f"The output has more than {limits.output_bytes} bytes, the limit.")
        if isinstance(ended, DeadlinePassed):
            return _Answered(Status.TIMEOUT, f"The program ran longer than {limits.wall_seconds:g} s, the limit.")
        if isinstance(ended, OutOfInstructions):
            return self._out_of_fuel()
        if isinstance(ended, StackOverflow):
            return _Answered(Status.STACK_OVERFLOW, f"The program's calls nest too deep: their frames need more than {STACK_BYTES} bytes.")
        return _Answered(Status.INTERNAL_ERROR, f"A host function failed ({type(ended).__name__}).")

    def _exit(self, code: int) -> _Answered:
        if code == 0 and self.job.entry == "_start":
            return _Answered(Status.OK, "", exit_code=0)
        if code and self._was_refused_memory():
            return _Answered(Status.MEMORY_LIMIT, "The program needed more memory than its limit, and gave up.", exit_code=code)
        return _Answered(Status.GUEST_EXIT, f"The program exited with code {code}.", exit_code=code)

    def _out_of_fuel(self) -> _Answered:
        used = self.job.limits.instructions
        return _Answered(Status.OUT_OF_FUEL, f"The program used all of its {used} instructions.", instructions_used=used)

    def _was_refused_memory(self) -> bool:
        """Whether growth was refused before the failure; derived, since engines tell nobody but the guest.

        Rust's standard library says it on stderr; else a memory that grew to three quarters of its limit and then
        failed is taken to have asked for more.
        """
        size, limit = self._machine.memory_bytes, self.job.limits.memory_bytes
        asked = rust_asked_for(self._wasi.stderr)
        nearly_full = size > self.job.memory_min_bytes and size * 4 >= limit * 3
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
        self.report(self._known_instructions, self._machine.memory_bytes or self.job.memory_min_bytes)

    def _measure(self) -> None:
        outcome = self.outcome
        if outcome.status is not Status.OUT_OF_FUEL:
            outcome.instructions_used = max(self._known_instructions, self.job.limits.instructions - self._counter.left)
        outcome.peak_memory_bytes = self._machine.memory_bytes or self.job.memory_min_bytes
        outcome.wall_ms = (time.monotonic() - self.started) * 1000


# Its `execute` writes the input to stderr through fd_write and answers with four bytes: the way of every job, once.
_WARM_UP = bytes.fromhex(
    "0061736d01000000010f0260047f7f7f7f017f60027f7f017f02230116776173695f736e617073686f745f70726576696577310866645f777269746500000302"
    "01010503010001071402066d656d6f72790200076578656375746500010a280126004110200036020041142001360200410241104101412010001a41c0004104"
    "36020041c0000b0011046e616d65010401000177040401000177"
)


def trap_sentence(code: str) -> str:
    """What a trap of this code means, for the program's author."""
    return _SENTENCES.get(code, f"The program trapped: {code}") + "."


def rust_asked_for(untrusted_stderr: bytes | bytearray) -> int:
    """How many bytes Rust's standard library says that it could not get; 0 where it says nothing."""
    said = _RUST_ALLOCATION.search(untrusted_stderr)
    return 0 if said is None else int(said[1])


def warm_up_program(backend: Backend, metering: str) -> Any:
    """Our module as a program of this engine; once a process, since that compiles it."""
    return backend.load_ours(_WARM_UP, metering)


def warm_up(backend: Backend, program: Any, metering: str) -> None:
    """Run our module once, so that this process, or its forked children, find every page and symbol in place."""
    limits = Limits(instructions=1000, memory_bytes=1 << 20, wall_seconds=10)
    job = Job("execute", False, ("fd_write",), 65_536, b"warm", {}, limits, metering)
    Guest(backend, program, job, time.monotonic(), lambda *_: None).run()
