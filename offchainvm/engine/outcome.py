"""How a run ends: each ending a status and a sentence for the program's author, the same for modules and components."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from offchainvm.engine.limits import Limits
from offchainvm.engine.meter import STACK_BYTES
from offchainvm.engine.wasi import DeadlinePassed, GuestExit, OutOfInstructions, OutputLimit, StackOverflow
from offchainvm.errors import Status

_EXACT_TRAP = "unreachable"
"""wasmtime writes the fuel down before it, a call and a function's end; other traps lose what came after."""
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
class Outcome:
    """How a guest ended, and what it used, as the process that ran it knows.

    ``stdout`` is the output (of either ABI). ``message`` is one sentence about a failure; ``trap`` its sub-code when ``status`` is TRAP.
    ``instructions_used`` never exceeds the limit, and equals it when the status is OUT_OF_FUEL;
    ``instructions_exact`` is False where the engine was stopped between two counts: then it is the last known count.
    """

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


class Ended(Exception):
    """The run is over; ``outcome`` says how."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


@dataclass(frozen=True)
class Endings:
    """The ways in which a run within these limits ends.

    ``answers_by_exit``: the exit code 0 is a success. ``was_refused``: whether growth beyond the memory limit was refused, by
    which a failure is taken to have come.
    """

    limits: Limits
    answers_by_exit: bool
    was_refused: Callable[[], bool]

    def by_trap(self, code: str) -> Outcome:
        """``code`` as of ``Trapped``."""
        if code == "out_of_fuel":
            return self.out_of_fuel()
        if code == "stack_overflow":
            return Outcome(Status.STACK_OVERFLOW, "The program's calls nest too deep for its stack.", instructions_exact=False)
        exact = code in (_EXACT_TRAP, "output_out_of_bounds")
        status, message = self._failure(Status.TRAP, _SENTENCES.get(code, f"The program trapped: {code}") + ".")
        return Outcome(status, message, trap=code, instructions_exact=exact)

    def by_exit(self, code: int) -> Outcome:
        if code == 0 and self.answers_by_exit:
            return Outcome(exit_code=0)
        message = f"The program exited with code {code}."
        status, message = self._failure(Status.GUEST_EXIT, message) if code else (Status.GUEST_EXIT, message)
        return Outcome(status, message, exit_code=code)

    def by_result(self, code: int) -> Outcome:
        """``execute`` gave a negative number."""
        status, message = self._failure(Status.GUEST_EXIT, f"The program returned its error code {code}.")
        return Outcome(status, message, exit_code=code)

    def by_host(self, ended: BaseException) -> Outcome:
        """A host function, or the counter, raised this."""
        limits = self.limits
        if isinstance(ended, GuestExit):
            return self.by_exit(ended.code)
        if isinstance(ended, OutputLimit):
            return Outcome(Status.OUTPUT_LIMIT, f"The output has more than {limits.output_bytes} bytes, the limit.")
        if isinstance(ended, DeadlinePassed):
            return Outcome(Status.TIMEOUT, f"The program ran longer than {limits.wall_seconds:g} s, the limit.")
        if isinstance(ended, OutOfInstructions):
            return self.out_of_fuel()
        if isinstance(ended, StackOverflow):
            return Outcome(Status.STACK_OVERFLOW, f"The program's calls nest too deep: their frames need more than {STACK_BYTES} bytes.")
        return Outcome(Status.INTERNAL_ERROR, f"A host function failed ({type(ended).__name__}).")

    def by_engine(self, untrusted_text: str, *, started: bool) -> Outcome:
        """The engine said this, and no trap."""
        text = " ".join(untrusted_text.split())[:200]
        if started:
            return Outcome(Status.ENGINE_CRASH, f"The engine gave up: {text}.", instructions_exact=False)
        if any(words in text for words in ("memory minimum size", "memory limits", "os error 12")):
            return Outcome(Status.MEMORY_LIMIT, f"The program needs more memory at its start than its limit: {text}.")
        return Outcome(Status.LINK_ERROR, f"The module could not be started: {text}.")

    def too_much_memory(self, grown: int) -> Outcome:
        """What it has in all was known only at its end."""
        return Outcome(Status.MEMORY_LIMIT, f"The program's memories took {grown} bytes together; the limit is {self.limits.memory_bytes}.")

    def out_of_fuel(self) -> Outcome:
        used = self.limits.instructions
        return Outcome(Status.OUT_OF_FUEL, f"The program used all of its {used} instructions.", instructions_used=used)

    def _failure(self, status: Status, sentence: str) -> tuple[Status, str]:
        if not self.was_refused():
            return status, sentence
        limit = self.limits.memory_bytes
        return Status.MEMORY_LIMIT, f"The program asked for more than its {limit} bytes of memory, and failed. {sentence}"


def rust_asked_for(untrusted_stderr: bytes | bytearray) -> int:
    """How many bytes Rust's standard library says that it could not get; 0 where it says nothing."""
    said = _RUST_ALLOCATION.search(untrusted_stderr)
    return 0 if said is None else int(said[1])
