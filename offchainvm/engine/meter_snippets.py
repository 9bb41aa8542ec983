"""The code that the metering pass inserts into one function. What each piece does is written beside it, in short."""

from __future__ import annotations

from collections.abc import Iterable

from offchainvm.engine.binary import signed, unsigned
from offchainvm.engine.meter_locals import Locals

STACK_OVERFLOW = -(1 << 63)
"""What ``tick`` gets where calls nest too deep."""
GET, SET, GET_GLOBAL, SET_GLOBAL, CALL, CONST, END = b"\x20", b"\x21", b"\x23", b"\x24", b"\x10", b"\x42", b"\x0b"
_TEE, _LESS, _NOT_LESS, _ADD, _SUBTRACT, _EXTEND, _EQUAL = b"\x22", b"\x53", b"\x59", b"\x7c", b"\x7d", b"\xad", b"\x46"
_IF, _UNREACHABLE, _BR, _BR_IF, _RETURN, _SELECT = b"\x04\x40", b"\x00", b"\x0c", b"\x0d", b"\x0f", b"\x1b"
_IF_NEGATIVE = CONST + b"\x00" + _LESS + _IF
_REFUSED, _MEMORY_SIZE = b"\x41\x7f", b"\x3f\x00"
# By the code's size too: what is looked at later is less than two thousand operators, and again in each call of a long row.
_SMALL_FRAME_BYTES = 512


class Snippets:
    """For a function with these locals, whose frame is taken to need ``frame_bytes``.

    ``counter`` is the global that holds the count while no function does, ``refused`` the one of the pages that the
    memory would have had by the growth that was refused last, ``tick`` the host's function for a count below zero.
    """

    def __init__(self, found: Locals, frame_bytes: int, *, counter: int, refused: int, tick: int) -> None:
        self._locals, self._small = found, frame_bytes <= _SMALL_FRAME_BYTES
        self.count, self.set_count = GET + found.counter, SET + found.counter
        self.load, set_global = GET_GLOBAL + unsigned(counter), SET_GLOBAL + unsigned(counter)
        stack, frame = GET + found.stack, CONST + signed(frame_bytes)
        self.save, self._tick = self.count + set_global, CALL + unsigned(tick)
        # count = global = what is on the stack of operands
        self._keep = _TEE + found.counter + set_global
        # if (count = what is there) < 0: count = global = tick(count)
        self._check = _TEE + found.counter + _IF_NEGATIVE + self.count + self._tick + self._keep + END
        # check; if (stack = given - frame) < 0: global = count, tick(STACK_OVERFLOW)
        self._enter = b"".join((
            self._check, GET, found.given_stack, frame, _SUBTRACT, _TEE, found.stack,
            _IF_NEGATIVE, self.save, CONST, signed(STACK_OVERFLOW), self._tick, _UNREACHABLE, END,
        ))  # fmt: skip
        self.arguments, self.tail_arguments = self.count + stack, self.count + stack + frame + _ADD
        self._set_refused = SET_GLOBAL + unsigned(refused)
        self.return_loaded = self.load + _RETURN

    def around(self, arguments: bytes) -> bytes:
        """``arguments`` below the index of an indirect call, which is on the stack of operands."""
        return SET + self._locals.size + arguments + GET + self._locals.size

    def entry(self, cost: int, *, calls: bool) -> bytes:
        """A small function that calls nothing is the end of every way down, and what it costs is looked at later."""
        charged = GET + self._locals.given_count + CONST + signed(cost) + _SUBTRACT
        return charged + (self.set_count if self._small and not calls else self._enter)

    def charge(self, cost: int, count: bytes) -> bytes:
        """Count a run of operators; ``count`` puts on the stack of operands what was left before, or nothing where it is there."""
        if not cost:
            return b"" if count == self.count else count + self.set_count
        return count + CONST + signed(cost) + _SUBTRACT + self.set_count

    def more(self, cost: int, written: Iterable[int]) -> bytes:
        """if count < cost: count = global = tick(count - cost) + cost"""
        amount = CONST + signed(cost)
        aside, back = self._locals.aside(written)
        asked = self.count + amount + _SUBTRACT + self._tick + amount + _ADD + self._keep
        return self.count + amount + _LESS + _IF + aside + asked + back + END

    def ask(self, cost: int) -> bytes:
        """At the head of a loop: if count < cost: br 1"""
        return self.count + CONST + signed(cost) + _LESS + _BR_IF + b"\x01"

    def jump(self, cost: int, label: int) -> bytes:
        """Back to the head of a loop: if count >= cost: br label; br label + 1"""
        return self.count + CONST + signed(cost) + _NOT_LESS + _BR_IF + unsigned(label) + _BR + unsigned(label + 1)

    def bulk(self) -> bytes:
        """The size is on the stack of operands, and stays there."""
        charge = self.count + GET + self._locals.size + _EXTEND + _SUBTRACT
        return SET + self._locals.size + charge + self._check + self.save + GET + self._locals.size

    def growth(self, *, of_memory: bool) -> tuple[bytes, bytes]:
        """Before and after; what was granted is paid for: count -= answer == -1 ? 0 : size

        Of memory also: if (answer == -1) refused = memory.size + size
        """
        size, was_refused = GET + self._locals.size + _EXTEND, GET + self._locals.answer + _REFUSED + _EQUAL
        told = was_refused + _IF + _MEMORY_SIZE + _EXTEND + size + _ADD + self._set_refused + END if of_memory else b""
        paid = CONST + b"\x00" + size + was_refused + _SELECT
        return self.save + _TEE + self._locals.size, _TEE + self._locals.answer + told + self.load + paid + _SUBTRACT + self._check
