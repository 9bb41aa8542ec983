"""Reads the sections of a WebAssembly binary, and holds it to the static limits while it reads.

Only what the limits and the choice of an entry need is read; whether the module is valid is the engine's to say.
https://webassembly.github.io/spec/core/binary/modules.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from offchainvm.engine.limits import WASM_PAGE_BYTES, ModuleLimits, table_elements_each
from offchainvm.errors import ExecutionError, Status

MAGIC = b"\0asm"
CORE_VERSION = b"\x01\x00\x00\x00"
COMPONENT_VERSION = b"\x0d\x00\x01\x00"
KINDS = ("func", "table", "memory", "global")
VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x6F: "externref"}
ORDER = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)


@dataclass(frozen=True)
class FunctionType:
    """Parameters and results by name, e.g. ``("i32", "i32")``."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


@dataclass(frozen=True)
class Import:
    """One import; ``type`` is set for functions."""

    module: str
    name: str
    kind: str
    type: FunctionType | None = None


@dataclass
class Sections:
    """What was read.

    ``memories`` are (minimum, maximum) in pages, ``tables`` the minimum of each, ``bodies`` (start, end) of each function body, its locals
    included.
    """

    types: list[FunctionType] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    exports: dict[str, tuple[str, int]] = field(default_factory=dict)
    memories: list[tuple[int, int | None]] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)
    bodies: list[tuple[int, int]] = field(default_factory=list)
    imported_functions: list[int] = field(default_factory=list)

    def function_type(self, index: int) -> FunctionType:
        """Type of the function ``index``, imported ones first."""
        own = index - len(self.imported_functions)
        try:
            return self.types[self.functions[own] if own >= 0 else self.imported_functions[index]]
        except IndexError:
            raise malformed("a function or type index is out of range") from None


def malformed(sentence: str) -> ExecutionError:
    return ExecutionError(Status.INVALID_MODULE, f"The module is not valid WebAssembly: {sentence}.")


def too_complex(what: str, found: int, limit: int) -> ExecutionError:
    return ExecutionError(Status.MODULE_TOO_COMPLEX, f"The module has {found} {what}; the limit is {limit}.")


def at_most(what: str, found: int, limit: int) -> int:
    if found > limit:
        raise too_complex(what, found, limit)
    return found


@functools.lru_cache(1024)
def unsigned(value: int) -> bytes:
    """LEB128."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


@functools.lru_cache(1024)
def signed(value: int) -> bytes:
    """Signed LEB128."""
    found = bytearray()
    while not -0x40 <= value < 0x40:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value & 0x7F)
    return bytes(found)


class Reader:
    """A cursor over ``data[position:end]``; every overrun is ``invalid_module``."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self.data, self.position, self.end = data, position, end

    @property
    def done(self) -> bool:
        return self.position >= self.end

    def byte(self) -> int:
        if self.position >= self.end:
            raise malformed("it ends in the middle of a section")
        self.position += 1
        return self.data[self.position - 1]

    def leb(self, bits: int = 32) -> int:
        value = shift = 0
        while shift < bits:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise malformed("a number is longer than its type allows")

    def skip(self, count: int) -> None:
        if count > self.end - self.position:
            raise malformed("a length points past the end")
        self.position += count

    def take(self, count: int) -> bytes:
        self.skip(count)
        return self.data[self.position - count : self.position]

    def name(self) -> str:
        try:
            return self.take(self.leb()).decode()
        except UnicodeDecodeError:
            raise malformed("a name is not UTF-8") from None

    def limits(self) -> tuple[int, int | None]:
        """(minimum, maximum) of a memory or table; flags of proposals that are switched off are refused."""
        flags = self.byte()
        if flags > 1:
            raise ExecutionError(Status.UNSUPPORTED_FEATURE, "The module uses a shared, 64-bit or custom-page memory or table.")
        return self.leb(), self.leb() if flags else None


def read_sections(wasm: bytes, limits: ModuleLimits) -> Sections:
    """Walk the sections of ``wasm``.

    Raises:
        ExecutionError: invalid_module, unsupported_feature or module_too_complex.
    """
    if wasm[:4] != MAGIC:
        raise malformed("it does not begin with the magic number")
    if wasm[4:8] == COMPONENT_VERSION:
        raise ExecutionError(Status.UNSUPPORTED_FEATURE, "This is a component; only core modules can be run.")
    if wasm[4:8] != CORE_VERSION:
        raise malformed("its version is unknown")
    sections, reader, last = Sections(), Reader(wasm, 8, len(wasm)), -1
    while not reader.done:
        identity, size = reader.byte(), reader.leb()
        start = reader.position
        reader.skip(size)
        if identity == 0:
            continue
        if identity not in ORDER or ORDER.index(identity) <= last:
            raise malformed("its sections are unknown or out of order")
        last = ORDER.index(identity)
        read = _READERS.get(identity)
        if read is not None:
            read(Reader(wasm, start, start + size), sections, limits)
    if len(sections.bodies) != len(sections.functions):
        raise malformed("functions and their bodies differ in number")
    return sections


def _types(reader: Reader, sections: Sections, limits: ModuleLimits) -> None:
    for _ in range(at_most("types", reader.leb(), limits.types)):
        if reader.byte() != 0x60:
            raise ExecutionError(Status.UNSUPPORTED_FEATURE, "The module declares types of the GC proposal.")
        sections.types.append(FunctionType(_value_types(reader, limits), _value_types(reader, limits)))


def _value_types(reader: Reader, limits: ModuleLimits) -> tuple[str, ...]:
    found = reader.take(at_most("parameters or results of one function", reader.leb(), limits.values_per_type))
    if not all(byte in VALUE_TYPES for byte in found):
        raise ExecutionError(Status.UNSUPPORTED_FEATURE, "The module uses value types that are not supported.")
    return tuple(VALUE_TYPES[byte] for byte in found)


def _imports(reader: Reader, sections: Sections, limits: ModuleLimits) -> None:
    for _ in range(at_most("imports", reader.leb(), limits.imports)):
        module, name, kind = reader.name(), reader.name(), reader.byte()
        if kind >= len(KINDS):
            raise ExecutionError(
                Status.UNSUPPORTED_FEATURE, "The module imports something other than functions, tables, memories, globals."
            )
        function_type = None
        if kind == 0:
            sections.imported_functions.append(index := reader.leb())
            if index >= len(sections.types):
                raise malformed("an import's type is out of range")
            function_type = sections.types[index]
        elif kind == 3:
            reader.skip(2)
        else:
            reader.skip(1 if kind == 1 else 0)
            reader.limits()
        sections.imports.append(Import(module, name, KINDS[kind], function_type))


def _functions(reader: Reader, sections: Sections, limits: ModuleLimits) -> None:
    sections.functions = [reader.leb() for _ in range(at_most("functions", reader.leb(), limits.functions))]


def _tables(reader: Reader, sections: Sections, limits: ModuleLimits) -> None:
    for _ in range(at_most("tables", reader.leb(), limits.tables)):
        if reader.byte() not in VALUE_TYPES:
            raise ExecutionError(Status.UNSUPPORTED_FEATURE, "The module declares a table that is not supported.")
        sections.tables.append(reader.limits()[0])
    check_tables(sections.tables, limits)


def check_tables(minimums: list[int], limits: ModuleLimits) -> None:
    """Hold the tables that stand side by side to their number, and each to its share of the elements.

    Raises:
        ExecutionError: module_too_complex.
    """
    share = table_elements_each(at_most("tables", len(minimums), limits.tables), limits.table_elements)
    at_most("elements in one table", max(minimums, default=0), share)


def _memories(reader: Reader, sections: Sections, limits: ModuleLimits) -> None:
    if (count := reader.leb()) > 1:
        raise ExecutionError(Status.UNSUPPORTED_FEATURE, "The module declares more than one memory.")
    for _ in range(count):
        sections.memories.append(reader.limits())
        at_most("bytes of memory at start", sections.memories[0][0] * WASM_PAGE_BYTES, limits.memory_bytes)


def _exports(reader: Reader, sections: Sections, limits: ModuleLimits) -> None:
    for _ in range(at_most("exports", reader.leb(), limits.exports)):
        name, kind, index = reader.name(), reader.byte(), reader.leb()
        sections.exports[name] = (KINDS[kind] if kind < len(KINDS) else "tag", index)


def _code(reader: Reader, sections: Sections, limits: ModuleLimits) -> None:
    for _ in range(at_most("function bodies", reader.leb(), limits.functions)):
        size = at_most("bytes in one function", reader.leb(), limits.function_body_bytes)
        start = reader.position
        reader.skip(size)
        _locals(Reader(reader.data, start, start + size), limits)
        sections.bodies.append((start, start + size))


def _locals(reader: Reader, limits: ModuleLimits) -> None:
    total = 0
    for _ in range(reader.leb()):
        total = at_most("locals in one function", total + reader.leb(), limits.locals_per_function)
        reader.skip(1)


def _count(what: str, limit: Callable[[ModuleLimits], int]) -> Callable[[Reader, Sections, ModuleLimits], None]:
    def read(reader: Reader, _: Sections, limits: ModuleLimits) -> None:
        at_most(what, reader.leb(), limit(limits))

    return read


_READERS: dict[int, Callable[[Reader, Sections, ModuleLimits], None]] = {
    1: _types,
    2: _imports,
    3: _functions,
    4: _tables,
    5: _memories,
    6: _count("globals", lambda limits: limits.globals),
    7: _exports,
    9: _count("element segments", lambda limits: limits.element_segments),
    10: _code,
    11: _count("data segments", lambda limits: limits.data_segments),
}
