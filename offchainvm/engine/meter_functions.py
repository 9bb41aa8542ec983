"""The functions of a metered module and their types.

A metered function has two parameters more, what is left of the count and of the stack, and one result more, what is left of
the count then: engines keep these in registers, which a global in memory is several times as slow as. Every type has a
metered twin, and tables hold metered functions alone. The host keeps to the guest's types, so adapters stand between: one for
each function that the host may call, and one for each of the host's that the guest may call by a table.
"""

from __future__ import annotations

import functools

from offchainvm.engine.binary import VALUE_TYPES, FunctionType, Sections, signed, unsigned
from offchainvm.engine.meter_locals import Places
from offchainvm.engine.meter_snippets import CALL, CONST, END, GET, GET_GLOBAL, SET_GLOBAL, Snippets

# wasmtime starts a module in a function of its own, which calls the module's.
_START_COST = 2
_KINDS = {name: bytes([kind]) for kind, name in VALUE_TYPES.items()}
_FUNCTION, _NO_LOCALS, _NO_RESULT = b"\x60", b"\x00", b"\x40"
_COUNT = _STACK = _KINDS["i64"]


@functools.lru_cache(1024)
def kinds(names: tuple[str, ...]) -> bytes:
    """A byte for each of these value types."""
    return b"".join(_KINDS[name] for name in names)


class Types:
    """The guest's types, their twins in the same order, and what else the pass needs: ``added`` stand behind the guest's."""

    def __init__(self, guests: list[FunctionType]) -> None:
        self.guests, self._guests = guests, len(guests)
        self.added = [_entry(kinds(kind.params) + _COUNT + _STACK, kinds(kind.results) + _COUNT) for kind in guests]
        self.tick = self._add(_COUNT, _COUNT)
        self._blocks: dict[tuple[str, ...], bytes] = {}

    def metered(self, index: int) -> int:
        """The twin of a guest's type."""
        return index + self._guests

    def block(self, results: tuple[str, ...]) -> bytes:
        """The type of a block that gives these results."""
        if len(results) < 2:
            return kinds(results) or _NO_RESULT
        if results not in self._blocks:
            self._blocks[results] = signed(self._add(b"", kinds(results)))
        return self._blocks[results]

    def _add(self, parameters: bytes, results: bytes) -> int:
        self.added.append(_entry(parameters, results))
        return self._guests + len(self.added) - 1


def _entry(parameters: bytes, results: bytes) -> bytes:
    return b"".join((_FUNCTION, unsigned(len(parameters)), parameters, unsigned(len(results)), results))


class Functions:
    """Indices: the imports keep theirs, then come ``tick``, the guest's functions in their order, and adapters as they are asked for.

    ``counter`` is the global that holds the count while no metered function does, ``refused`` the one behind it. ``declared`` are the
    functions that bodies refer to, which a module has to declare. ``wide``: it has globals of 16 bytes.
    """

    def __init__(self, sections: Sections, *, counter: int, stack_bytes: int) -> None:
        self._sections, self.types, self._stack_bytes = sections, Types(sections.types), stack_bytes
        self.counter, self.refused, self.tick = counter, counter + 1, len(sections.imported_functions)
        self.wide = False
        self.declared: dict[int, None] = {}
        self._code: dict[Places, Snippets] = {}
        self._adapters: dict[tuple[int, bool], int] = {}
        self._adapter_types, self.adapter_bodies = list[int](), list[bytes]()
        self._load, self._save = GET_GLOBAL + unsigned(counter), SET_GLOBAL + unsigned(counter)

    def code(self, places: Places) -> Snippets:
        """What is inserted into a function with these places; many functions have the same."""
        if places not in self._code:
            self._code[places] = Snippets(places, counter=self.counter, refused=self.refused, tick=self.tick)
        return self._code[places]

    def type_of(self, function: int) -> FunctionType:
        return self._sections.function_type(function)

    def imported(self, function: int) -> bool:
        return function < self.tick

    def called(self, function: int) -> int:
        """For a call in a metered function."""
        return function + (function >= self.tick)

    def referred(self, function: int) -> int:
        """For a table, and whatever else may come into one."""
        if not self.imported(function):
            return self.called(function)
        kind = self._sections.imported_functions[function]
        parameters = len(self._sections.types[kind].params)
        code = (GET, unsigned(parameters), self._save, _arguments(parameters), CALL, unsigned(function), self._load)
        return self._adapter((function, False), self.types.metered(kind), b"".join(code))

    def named(self, function: int) -> int:
        """As ``referred``, for a body."""
        self.declared[found := self.referred(function)] = None
        return found

    def exported(self, function: int) -> int:
        """For the host."""
        return function if self.imported(function) else self._entrance(function, b"", starts=False)

    def started(self, function: int) -> int:
        """Nobody can be asked for the counter of a module whose start function failed: it has to tick first."""
        tick = CONST + signed(-_START_COST) + CALL + unsigned(self.tick) + self._save
        return function if self.imported(function) else self._entrance(function, tick, starts=True)

    def section(self) -> bytes:
        """The types of all functions but the imports."""
        every = [*map(self.types.metered, self._sections.functions), *self._adapter_types]
        return unsigned(len(every)) + b"".join(map(unsigned, every))

    def _entrance(self, function: int, first: bytes, *, starts: bool) -> int:
        kind = self._sections.functions[function - self.tick]
        arguments = _arguments(len(self._sections.types[kind].params))
        code = (first, arguments, self._load, CONST, signed(self._stack_bytes), CALL, unsigned(self.called(function)), self._save)
        return self._adapter((function, starts), kind, b"".join(code))

    def _adapter(self, key: tuple[int, bool], kind: int, code: bytes) -> int:
        if key not in self._adapters:
            self._adapters[key] = self.tick + 1 + len(self._sections.functions) + len(self._adapters)
            self._adapter_types.append(kind)
            self.adapter_bodies.append(_NO_LOCALS + code + END)
        return self._adapters[key]


def _arguments(count: int) -> bytes:
    return b"".join(GET + unsigned(index) for index in range(count))
