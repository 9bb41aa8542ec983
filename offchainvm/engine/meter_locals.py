"""The locals of one metered function: the guest's own, those of the pass, and those that hold values while the host is asked.

A value that is needed after a call cannot stay in a register which calls destroy. A compiler then keeps it in memory from
its making to its last use, in hot loops too, although the call is hardly ever made. So what a loop writes is put
aside around that call as a value of another kind, which lives only there.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Collection, Iterator
from itertools import accumulate
from typing import NamedTuple

from offchainvm.engine.binary import Reader, unsigned

ASIDE_MAX = 24
"""Values put aside by one loop: about as many as there are registers for them; the rest would be in memory anyway."""
_I32, _I64, _F32, _F64, _V128 = 0x7F, 0x7E, 0x7D, 0x7C, 0x7B
# By a value's kind: the kind that it is put aside as, and the operators there and back.
_ASIDE = {_I32: (_F32, b"\xbe", b"\xbc"), _I64: (_F64, b"\xbf", b"\xbd"), _F32: (_I32, b"\xbc", b"\xbe"), _F64: (_I64, b"\xbd", b"\xbf")}
_INTEGERS, _PRESERVED = (_I32, _I64), 4
_PLACES = (_I32, _I64, _F32, _F64)
_GIVEN = 2
_ONE_OF = [b"\x01" + bytes([kind]) for kind in range(0x80)]
_GET, _SET = b"\x20", b"\x21"
_LANES = (b"\xfd\x1d\x00", b"\xfd\x1d\x01")
_SPLAT, _REPLACE_LANE = b"\xfd\x12", b"\xfd\x1e\x01"


class Places(NamedTuple):
    """Where a function's locals of the pass are, and what it was given."""

    given_count: bytes
    given_stack: bytes
    counter: bytes
    size: bytes
    answer: bytes
    stack: bytes


@functools.lru_cache(1024)
def _places(first_given: int, first_added: int) -> Places:
    return Places(*map(unsigned, (first_given, first_given + 1, *range(first_added, first_added + 4))))


class Locals:
    """Reads the declarations at ``reader``; ``parameters`` are the kinds of the function's parameters, a byte each.

    A metered function's two parameters more stand where its first two locals stood. Those move behind all others, and every
    access to them has to follow; what was given is copied where the function begins, and no index of the guest's means the copy.
    """

    def __init__(self, parameters: bytes, reader: Reader) -> None:
        declared, first = [(reader.leb(), reader.byte()) for _ in range(reader.leb())], len(parameters)
        groups = [*((1, kind) for kind in parameters), *declared]
        self._kinds, self._ends = [kind for _, kind in groups], list(accumulate(count for count, _ in groups))
        self.count = self._ends[-1] if groups else 0
        displaced = range(first, min(first + _GIVEN, self.count))
        self._declared, self._first_added = _without(len(displaced), declared), max(self.count, first + _GIVEN)
        self._added = [_I64, _I32, _I32, _I64, *map(self._kind, displaced)]
        self.places = _places(first, self._first_added)
        self.moved = {index: unsigned(place) for place, index in enumerate(displaced, self._first_added + 4)}
        self._places: dict[int, list[bytes]] = {kind: [] for kind in _PLACES}

    def declared(self) -> bytes:
        """The declarations, with all that the pass needs by now."""
        added = b"".join([_ONE_OF[kind] for kind in self._added])
        own = b"".join([unsigned(count) + bytes([kind]) for count, kind in self._declared])
        return unsigned(len(self._declared) + len(self._added)) + own + added

    def aside(self, written: Collection[int]) -> tuple[bytes, bytes]:
        """Code that puts these locals aside, and code that takes them back; references stay where they are."""
        if not written:
            return b"", b""
        free = {kind: iter(places) for kind, places in self._places.items()}
        there, back = list[bytes](), list[bytes]()
        kinds = {index: self._kind(index) for index in written}
        few = sum(kind in _INTEGERS for kind in kinds.values()) <= _PRESERVED
        for index, kind in kinds.items():
            if few and kind in _INTEGERS:
                continue
            place = self.moved.get(index) or unsigned(index)
            get, put = _GET + place, _SET + place
            if kind == _V128:
                low, high = self._place(_I64, free), self._place(_I64, free)
                there += (get, _LANES[0], _SET, low, get, _LANES[1], _SET, high)
                back += (_GET, low, _SPLAT, _GET, high, _REPLACE_LANE, put)
            elif kind in _ASIDE:
                other, to_other, from_other = _ASIDE[kind]
                held = self._place(other, free)
                there += (get, to_other, _SET, held)
                back += (_GET, held, from_other, put)
        return b"".join(there), b"".join(back)

    def _place(self, kind: int, free: dict[int, Iterator[bytes]]) -> bytes:
        """A local of this kind that is still free here, else a new one."""
        found = next(free[kind], None)
        if found is None:
            found = unsigned(self._first_added + len(self._added))
            self._added.append(kind)
            self._places[kind].append(found)
        return found

    def _kind(self, index: int) -> int:
        return self._kinds[bisect_right(self._ends, index)]


def _without(first: int, groups: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The groups without their ``first`` locals."""
    if not first:
        return groups
    kept = list[tuple[int, int]]()
    for count, kind in groups:
        taken = min(first, count)
        first -= taken
        kept.append((count - taken, kind))
    return kept
