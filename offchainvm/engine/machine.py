"""What a guest's run needs of an engine, whichever it is: one program in one store, its memory and its count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from offchainvm.engine.limits import Limits
from offchainvm.errors import ExecutionError, Status

HostFunction = Callable[[tuple[int, ...]], "int | None"]
"""Gets unsigned arguments; gives its one result, or None; raises to end the guest."""

TRAP_CODES = {
    "unreachable": "unreachable",
    "wasm `unreachable` instruction executed": "unreachable",
    "integer divide by zero": "integer_division_by_zero",
    "integer overflow": "integer_overflow",
    "invalid conversion to integer": "bad_conversion_to_integer",
    "out of bounds memory access": "memory_out_of_bounds",
    "uninitialized element": "indirect_call_to_null",
    "undefined element: out of bounds table access": "table_out_of_bounds",
    "out of bounds table access": "table_out_of_bounds",
    "indirect call type mismatch": "bad_signature",
    "call stack exhausted": "stack_overflow",
    "all fuel consumed by WebAssembly": "out_of_fuel",
}
"""What engines say of a trap, where they say it in words alone; the codes are those of ``wasmtime.TrapCode`` in lower case."""


class Trapped(Exception):
    """The guest trapped; ``code`` is a name of ``wasmtime.TrapCode`` in lower case, on every engine."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class EngineFailed(Exception):
    """The engine could not start the module, go on with it, or make its memory larger; the message is its own, and of no trap."""


class Counter(Protocol):
    """Counts one guest. ``left`` is never negative; ``overdrawn``: more was used than the limit."""

    @property
    def left(self) -> int: ...

    @property
    def overdrawn(self) -> bool: ...

    def charge(self, count: int) -> None:
        """Charge what a host function did.

        Raises:
            OutOfInstructions: it is more than what is left.
        """


class Machine(Protocol):
    """One guest in one engine.

    Every method that runs the guest raises ``Trapped`` or ``EngineFailed``, or what a host function raised.
    """

    @property
    def counter(self) -> Counter: ...

    @property
    def memory_bytes(self) -> int:
        """The present size of the guest's memory; 0 where it is not known, or there is none."""

    @property
    def refused_bytes(self) -> int | None:
        """What the memory would have had by growth that was refused; 0 where none was, or not after the last that was granted.

        None where nobody is told.
        """

    def read(self, pointer: int, size: int) -> bytes:
        """Read from the guest's memory; raises ``BadPointer`` outside its bounds, or where there is none."""

    def write(self, pointer: int, data: bytes) -> None:
        """Write to the guest's memory; as ``read``."""

    def grow(self, pages: int) -> None:
        """Make the memory larger; raises ``EngineFailed`` where its limit forbids it."""

    def start(self, functions: Mapping[str, HostFunction]) -> None:
        """Instantiate, with these functions of WASI; the module's start function runs."""

    def call(self, name: str, *arguments: int, results: int = 0) -> int | None:
        """Call an exported function of i32 arguments; gives its result where ``results`` is 1."""


@dataclass(frozen=True)
class Watch:
    """Whom a machine tells: ``on_slice`` after each slice of instructions, ``ended`` when something of ours ends the guest."""

    on_slice: Callable[[], None]
    ended: Callable[[BaseException], None]


class Backend(Protocol):
    """An engine's room: the modules ``wasmtime_engine`` and ``wasmer_engine``. Programs are its own objects."""

    def validate(self, untrusted_wasm: bytes, /) -> None:
        """Raises ``ExecutionError``: invalid_module or unsupported_feature."""

    def in_child(self, work: Callable[[], None], /) -> None:
        """Do a child's work, which then gives up its rights; where this engine's guests need a stack of their own, on that."""

    def prepare_compiler(self) -> None:
        """What the compiler has to do before its process gives up its rights."""

    def compile_module(self, untrusted_wasm: bytes, metering: str, /) -> bytes:
        """Native code of a checked module; raises ``ExecutionError``."""

    def load(self, path: str, metering: str, /) -> Any:
        """A program from a file of native code; raises ``StaleNativeCode``."""

    def load_ours(self, wasm: bytes, metering: str, /) -> Any:
        """A program from a module of ours, with no thread left behind in this process."""

    def machine(self, program: Any, limits: Limits, watch: Watch, metering: str, /) -> Machine:
        """A store of its own for one guest."""


class StaleNativeCode(Exception):
    """Native code that this engine on this processor cannot use: compile again."""


def invalid(untrusted_message: str) -> ExecutionError:
    """What an engine's validation found, as one of three statuses."""
    text = " ".join(untrusted_message.split())[:300]
    if _is_out_of_memory(text):
        return _out_of_memory(text)
    if any(words in text for words in ("not enabled", "proposal", "requires")):
        return ExecutionError(Status.UNSUPPORTED_FEATURE, f"The module uses a feature that is switched off: {text}")
    return ExecutionError(Status.INVALID_MODULE, f"The module is not valid WebAssembly: {text}")


def too_complex(untrusted_message: str) -> ExecutionError:
    """Why an engine's compiler gave a valid module up."""
    text = " ".join(untrusted_message.split())[:300]
    if _is_out_of_memory(text):
        return _out_of_memory(text)
    return ExecutionError(Status.MODULE_TOO_COMPLEX, f"The module could not be compiled: {text}")


def _is_out_of_memory(text: str) -> bool:
    return any(words in text for words in ("Cannot allocate memory", "os error 12"))


def _out_of_memory(text: str) -> ExecutionError:
    return ExecutionError(Status.COMPILE_RESOURCE_LIMIT, f"The compiler ran out of memory: {text}")
