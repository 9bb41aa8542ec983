"""The code that the metering pass inserts into one function. What each piece does is written beside it, in short."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from offchainvm.engine.binary import signed, unsigned
from offchainvm.engine.meter_locals import Locals

STACK_OVERFLOW = -(1 << 63)
"""What ``tick`` gets where calls nest too deep."""
_SMALL_FRAME_BYTES = 16_384
_GET, _SET, _TEE, _GET_GLOBAL, _SET_GLOBAL, _CALL, _CONST = b"\x20", b"\x21", b"\x22", b"\x23", b"\x24", b"\x10", b"\x42"
_LESS, _NOT_LESS, _ADD, _SUBTRACT, _OR, _EXTEND, _EQUAL, _SELECT = b"\x53", b"\x59", b"\x7c", b"\x7d", b"\x84", b"\xad", b"\x46", b"\x1b"
_IF, _END, _UNREACHABLE, _BR, _BR_IF = b"\x04\x40", b"\x0b", b"\x00", b"\x0c", b"\x0d"
_IF_NEGATIVE = _CONST + b"\x00" + _LESS + _IF
_REFUSED = b"\x41\x7f"


@dataclass(frozen=True)
class Names:
    """Indices of what the pass adds: the counter, what is left of the stack, and the host function for a counter below zero."""

    counter: int
    stack: int
    tick: int

    def moved(self, function: int) -> int:
        """The new index of an old function: the host function stands behind the imports, before all others."""
        return function + (function >= self.tick)


class Snippets:
    """For a function with these locals, whose frame is taken to need ``frame_bytes``; ``asks``: at its entry in any case."""

    def __init__(self, names: Names, found: Locals, frame_bytes: int, *, asks: bool) -> None:
        self._locals, self._asks, self._small = found, asks, frame_bytes <= _SMALL_FRAME_BYTES
        self._count, self._set_count = _GET + found.counter, _SET + found.counter
        set_global, stack = _SET_GLOBAL + unsigned(names.counter), _GET + found.stack
        set_stack, frame = _SET_GLOBAL + unsigned(names.stack), _CONST + signed(frame_bytes)
        self._load, self.save = _GET_GLOBAL + unsigned(names.counter), self._count + set_global
        self._tick = _CALL + unsigned(names.tick)
        # count = global = what is on the stack of operands
        self._keep = _TEE + found.counter + set_global
        # if (count = what is there) < 0: count = global = tick(count)
        self._check = _TEE + found.counter + _IF_NEGATIVE + self._count + self._tick + self._keep + _END
        # count = what is there, stack = global - frame; if (count | stack) < 0: check, and if stack < 0: tick(STACK_OVERFLOW)
        self._enter = b"".join((
            self._set_count, _GET_GLOBAL, unsigned(names.stack), frame, _SUBTRACT, _TEE, found.stack, self._count, _OR,
            _IF_NEGATIVE, self._count, self._check,
            stack, _IF_NEGATIVE, self.save, _CONST, signed(STACK_OVERFLOW), self._tick, _UNREACHABLE, _END, _END,
        ))  # fmt: skip
        self.before_call, self.before_tail_call = self.save + stack + set_stack, self.save + stack + frame + _ADD + set_stack

    def entry(self, cost: int, *, calls: bool) -> bytes:
        """A small function that calls nothing is the end of every way down, and what it costs is looked at later."""
        small = self._small and not calls and not self._asks
        return self._load + _CONST + signed(cost) + _SUBTRACT + (self._set_count if small else self._enter)

    def charge(self, cost: int, *, load: bool) -> bytes:
        """Count a run of operators; ``load``: something else may have counted before it."""
        if not cost:
            return self._load + self._set_count if load else b""
        return (self._load if load else self._count) + _CONST + signed(cost) + _SUBTRACT + self._set_count

    def more(self, cost: int, written: Iterable[int]) -> bytes:
        """if count < cost: count = global = tick(count - cost) + cost"""
        amount = _CONST + signed(cost)
        aside, back = self._locals.aside(written)
        asked = self._count + amount + _SUBTRACT + self._tick + amount + _ADD + self._keep
        return self._count + amount + _LESS + _IF + aside + asked + back + _END

    def ask(self, cost: int) -> bytes:
        """At the head of a loop: if count < cost: br 1"""
        return self._count + _CONST + signed(cost) + _LESS + _BR_IF + b"\x01"

    def jump(self, cost: int, label: int) -> bytes:
        """Back to the head of a loop: if count >= cost: br label; br label + 1"""
        return self._count + _CONST + signed(cost) + _NOT_LESS + _BR_IF + unsigned(label) + _BR + unsigned(label + 1)

    def bulk(self) -> bytes:
        """The size is on the stack of operands, and stays there."""
        charge = self._count + _GET + self._locals.size + _EXTEND + _SUBTRACT
        return _SET + self._locals.size + charge + self._check + self.save + _GET + self._locals.size

    def growth(self) -> tuple[bytes, bytes]:
        """Before and after; what was granted is paid for: count -= answer == -1 ? 0 : size"""
        size, answer = _GET + self._locals.size, _GET + self._locals.answer
        paid = _CONST + b"\x00" + size + _EXTEND + answer + _REFUSED + _EQUAL + _SELECT
        return self.save + _TEE + self._locals.size, _TEE + self._locals.answer + self._load + paid + _SUBTRACT + self._check
