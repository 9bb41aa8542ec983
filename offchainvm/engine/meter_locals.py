"""The locals of one metered function: the guest's own, those of the pass, and those that hold values while the host is asked.

A value that is needed after a call cannot stay in a register which calls destroy. A compiler then keeps it in memory from
its making to its last use, in hot loops too, although the call is hardly ever made. So what a loop writes is put
aside around that call as a value of another kind, which lives only there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from offchainvm.engine.binary import Reader, unsigned

ASIDE_MAX = 24
"""Values put aside by one loop: about as many as there are registers for them; the rest would be in memory anyway."""
_I32, _I64, _F32, _F64, _V128 = 0x7F, 0x7E, 0x7D, 0x7C, 0x7B
# By a value's kind: the kind that it is put aside as, and the operators there and back.
_ASIDE = {_I32: (_F32, b"\xbe", b"\xbc"), _I64: (_F64, b"\xbf", b"\xbd"), _F32: (_I32, b"\xbc", b"\xbe"), _F64: (_I64, b"\xbd", b"\xbf")}
_INTEGERS, _PRESERVED = (_I32, _I64), 4
_PLACES = (_I32, _I64, _F32, _F64)
_GET, _SET = b"\x20", b"\x21"
_LANES = (b"\xfd\x1d\x00", b"\xfd\x1d\x01")
_SPLAT, _REPLACE_LANE = b"\xfd\x12", b"\xfd\x1e\x01"


class Locals:
    """Reads the declarations at ``reader``; ``parameters`` are the kinds of the function's parameters, a byte each."""

    def __init__(self, parameters: bytes, reader: Reader) -> None:
        self._groups, start = reader.leb(), reader.position
        kinds = [(1, kind) for kind in parameters] + [(reader.leb(), reader.byte()) for _ in range(self._groups)]
        self._declared = reader.data[start : reader.position]
        self._kinds, self._ends = [kind for _, kind in kinds], list(accumulate(count for count, _ in kinds))
        self.count = self._ends[-1] if kinds else 0
        self._added = [_I64, _I32, _I32, _I64]
        self.counter, self.size, self.answer, self.stack = (unsigned(self.count + index) for index in range(4))
        self._places: dict[int, list[bytes]] = {kind: [] for kind in _PLACES}

    def declared(self) -> bytes:
        """The declarations, with all that the pass needs by now."""
        added = b"".join(b"\x01" + bytes([kind]) for kind in self._added)
        return unsigned(self._groups + len(self._added)) + self._declared + added

    def aside(self, written: Iterable[int]) -> tuple[bytes, bytes]:
        """Code that puts these locals aside, and code that takes them back; references stay where they are."""
        free = {kind: iter(places) for kind, places in self._places.items()}
        there, back = list[bytes](), list[bytes]()
        kinds = {index: self._kinds[bisect_right(self._ends, index)] for index in written}
        few = sum(kind in _INTEGERS for kind in kinds.values()) <= _PRESERVED
        for index, kind in kinds.items():
            if few and kind in _INTEGERS:
                continue
            get, put = _GET + unsigned(index), _SET + unsigned(index)
            if kind == _V128:
                low, high = self._place(_I64, free), self._place(_I64, free)
                there += (get, _LANES[0], _SET, low, get, _LANES[1], _SET, high)
                back += (_GET, low, _SPLAT, _GET, high, _REPLACE_LANE, put)
            elif kind in _ASIDE:
                other, to_other, from_other = _ASIDE[kind]
                place = self._place(other, free)
                there += (get, to_other, _SET, place)
                back += (_GET, place, from_other, put)
        return b"".join(there), b"".join(back)

    def _place(self, kind: int, free: dict[int, Iterator[bytes]]) -> bytes:
        """A local of this kind that is still free here, else a new one."""
        found = next(free[kind], None)
        if found is None:
            found = unsigned(self.count + len(self._added))
            self._added.append(kind)
            self._places[kind].append(found)
        return found
