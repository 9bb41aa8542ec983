"""The count that a metered module keeps itself, whatever engine runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from offchainvm.engine.binary import FunctionType
from offchainvm.engine.machine import Watch
from offchainvm.engine.meter_snippets import STACK_OVERFLOW
from offchainvm.engine.wasi import OutOfInstructions, StackOverflow

SLICE_INSTRUCTIONS, FIRST_SLICE_INSTRUCTIONS = 2_000_000, 10_000
"""What a metered module runs between two looks at the deadline at most: a millisecond or so, and never near the grace of a kill, also where
each load waits for memory.

A trap loses what was counted in its slice: so a slice is no more than what was counted before it, but the first.
"""
TICK_TYPE = FunctionType(("i64",), ("i64",))


class SliceCounter(ABC):
    """What a metered module counts: it holds one slice, and asks for the next when that falls below zero.

    Before a call the module writes its count down, so host functions find it, and charge it, in the global.
    """

    def __init__(self, instructions: int, watch: Watch) -> None:
        self._limit, self._not_given, self._watch = instructions, instructions, watch
        self._last: int | None = None

    @abstractmethod
    def held(self) -> int:
        """What the module's global says; 0 while that is not known."""

    @abstractmethod
    def hold(self, count: int) -> None:
        """Write the module's global."""

    @abstractmethod
    def refused_pages(self) -> int:
        """What the module says of growth that was refused; 0 while that is not known."""

    @property
    def _exactly_left(self) -> int:
        return self._not_given + self.held() if self._last is None else self._last

    @property
    def left(self) -> int:
        return max(0, self._exactly_left)

    @property
    def overdrawn(self) -> bool:
        return self._exactly_left < 0

    def charge(self, count: int) -> None:
        """Charge what a host function did.

        Raises:
            OutOfInstructions: it is more than what is left.
        """
        held = self.held()
        if count > self._not_given + held:
            self._last = 0
            raise OutOfInstructions
        self.hold(held - count)

    def tick(self, held: int) -> int:
        """The module's import: what it holds fell below zero; gives the next slice, or ends the guest."""
        overflow = held == STACK_OVERFLOW
        # Until this returns, the count is here and not in the global; but for an overflow, which wrote it down.
        left = self._exactly_left if overflow else self._not_given + held
        self._last = left
        try:
            if overflow:
                raise StackOverflow
            if left < 0:
                raise OutOfInstructions
            self._watch.on_slice()
        except BaseException as ended:
            self._watch.ended(ended)
            raise
        self._last = None
        given = min(left, SLICE_INSTRUCTIONS, max(FIRST_SLICE_INSTRUCTIONS, self._limit - left))
        self._not_given = left - given
        return given
