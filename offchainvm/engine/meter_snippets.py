"""The code that the metering pass inserts into one function. What each piece does is written beside it, in short."""

from __future__ import annotations

from offchainvm.engine.binary import signed, unsigned
from offchainvm.engine.meter_locals import Places

STACK_OVERFLOW = -(1 << 63)
"""What ``tick`` gets where calls nest too deep."""
GET, SET, GET_GLOBAL, SET_GLOBAL, CALL, CONST, END = b"\x20", b"\x21", b"\x23", b"\x24", b"\x10", b"\x42", b"\x0b"
_TEE, _LESS, _NOT_LESS, _ADD, _SUBTRACT, _EXTEND, _EQUAL = b"\x22", b"\x53", b"\x59", b"\x7c", b"\x7d", b"\xad", b"\x46"
_IF, _ELSE, _UNREACHABLE, _BR, _BR_IF, _RETURN, _SELECT = b"\x04\x40", b"\x05", b"\x00", b"\x0c", b"\x0d", b"\x0f", b"\x1b"
_IF_NEGATIVE = CONST + b"\x00" + _LESS + _IF
_REFUSED, _MEMORY_SIZE = b"\x41\x7f", b"\x3f\x00"
# By the code's size too: what is looked at later is less than two thousand operators, and again in each call of a long row.
_SMALL_FRAME_BYTES = 512


class Snippets:
    """For all functions whose own locals stand at these places.

    ``counter`` is the global that holds the count while no function does, ``refused`` the one of the pages that the
    memory would have had by growth that was refused, 0 once some was granted after it, ``tick`` the host's function for a count below zero.
    """

    def __init__(self, places: Places, *, counter: int, refused: int, tick: int) -> None:
        self._size, self._answer, self._given_count = places.size, places.answer, GET + places.given_count
        self.count, self.set_count = GET + places.counter, SET + places.counter
        self.load, set_global = GET_GLOBAL + unsigned(counter), SET_GLOBAL + unsigned(counter)
        self.save, self._tick = self.count + set_global, CALL + unsigned(tick)
        # count = global = what is on the stack of operands
        self._keep = _TEE + places.counter + set_global
        # if (count = what is there) < 0: count = global = tick(count)
        self._check = _TEE + places.counter + _IF_NEGATIVE + self.count + self._tick + self._keep + END
        # check; if (stack = given - frame) < 0: global = count, tick(STACK_OVERFLOW)
        given_stack, overflow = GET + places.given_stack, CONST + signed(STACK_OVERFLOW) + self._tick + _UNREACHABLE
        self._enter = self._check + given_stack + CONST
        self._enter_framed = _SUBTRACT + _TEE + places.stack + _IF_NEGATIVE + self.save + overflow + END
        self.arguments, self.tail_arguments = self.count + GET + places.stack, self.count + given_stack
        self._set_refused = SET_GLOBAL + unsigned(refused)
        self.return_loaded = self.load + _RETURN

    def around(self, arguments: bytes) -> bytes:
        """``arguments`` below the index of an indirect call, which is on the stack of operands."""
        return SET + self._size + arguments + GET + self._size

    def entry(self, cost: int, frame_bytes: int, *, calls: bool) -> bytes:
        """A small function that calls nothing is the end of every way down, and what it costs is looked at later."""
        charged = self._given_count + CONST + signed(cost) + _SUBTRACT
        if frame_bytes <= _SMALL_FRAME_BYTES and not calls:
            return charged + self.set_count
        return charged + self._enter + signed(frame_bytes) + self._enter_framed

    def charge(self, cost: int, count: bytes) -> bytes:
        """Count a run of operators; ``count`` puts on the stack of operands what was left before, or nothing where it is there."""
        if not cost:
            return b"" if count == self.count else count + self.set_count
        return count + CONST + signed(cost) + _SUBTRACT + self.set_count

    def more(self, cost: int, aside: bytes, back: bytes) -> bytes:
        """if count < cost: count = global = tick(count - cost) + cost

        ``aside`` and ``back`` are code around the call.
        """
        amount = CONST + signed(cost)
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
        charge = self.count + GET + self._size + _EXTEND + _SUBTRACT
        return SET + self._size + charge + self._check + self.save + GET + self._size

    def growth(self, *, of_memory: bool) -> tuple[bytes, bytes]:
        """Before and after; what was granted is paid for: count -= answer == -1 ? 0 : size

        Of memory also: if (answer == -1) refused = memory.size + size; else if (size) refused = 0
        """
        size, was_refused = GET + self._size + _EXTEND, GET + self._answer + _REFUSED + _EQUAL
        note = _MEMORY_SIZE + _EXTEND + size + _ADD + self._set_refused
        clear = GET + self._size + _IF + CONST + b"\x00" + self._set_refused + END
        told = was_refused + _IF + note + _ELSE + clear + END if of_memory else b""
        paid = CONST + b"\x00" + size + was_refused + _SELECT
        return self.save + _TEE + self._size, _TEE + self._answer + told + self.load + paid + _SUBTRACT + self._check
