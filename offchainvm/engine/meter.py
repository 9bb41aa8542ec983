"""The metering pass: makes a module count its own executed operators, by wasmtime's table of fuel.

Every operator costs 1, but nop, drop, block, loop, unreachable, return, else and end nothing; entering a function
costs 1; bulk operations cost 1 more for each byte or element, and growth for each page or element that was granted.
The pass adds a global, what is left, and one import: ``tick`` gets what is left when that falls below zero, which is
looked at where functions begin, in loops and at bulk operations, and answers what is left then, or ends the guest.
A second global tells of growth of the memory that was refused, since engines tell nobody but the guest.
The guest's functions hand what is left to each other, and what is left of the stack with it: when that falls below zero,
``tick`` gets ``STACK_OVERFLOW`` and ends the guest.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from offchainvm.engine.binary import CORE_VERSION, MAGIC, Reader, Sections, malformed, read_sections, unsigned
from offchainvm.engine.limits import ModuleLimits
from offchainvm.engine.meter_code import meter_body
from offchainvm.engine.meter_functions import Functions
from offchainvm.errors import ExecutionError, Status

METER_VERSION = 10
"""Part of the key of cached native code, and of every count: raise it with each change of the pass or its table."""
RESERVED = "offchainvm"
TICK, LEFT, REFUSED = "tick", f"{RESERVED}.left", f"{RESERVED}.refused"
STACK_BYTES = 4 << 20
"""What the frames of nested calls may need, by an estimate that is the same on every engine."""
NATIVE_STACK_BYTES = 8 * STACK_BYTES + (1 << 20)
"""An engine's own stack: what the frames that fit the estimate may really need, and one of a function that calls nothing."""
_TYPE, _IMPORT, _FUNCTION, _GLOBAL, _EXPORT, _START, _ELEMENT, _CODE = 1, 2, 3, 6, 7, 8, 9, 10
_ORDER = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11)
_V128 = 0x7B
_DECLARATIVE = b"\x03\x00"
_CONSTANT = re.compile(
    rb"(?:[\x23\x41\x42\xd0][\x80-\xff]*[\x00-\x7f]|\x43.{4}|\x44.{8}|\xfd\x0c.{16}|[\x6a-\x6c\x7c-\x7e])*", re.DOTALL
)  # fmt: skip


def check_reserved(sections: Sections) -> None:
    """Refuse a module that uses a name of the meter.

    Raises:
        ExecutionError: link_error.
    """
    for name in (*(item.module for item in sections.imports), *sections.exports):
        if name == RESERVED or name.startswith(f"{RESERVED}."):
            raise ExecutionError(Status.LINK_ERROR, f"The module uses the name {name[:64]!r}, which is reserved.")


def meter(valid_wasm: bytes, *, limits: ModuleLimits | None = None) -> bytes:
    """The metered form of a module that the engine found valid: an invalid one could reach the counter.

    Raises:
        ExecutionError: link_error for reserved names; what ``read_sections`` raises.
    """
    sections = read_sections(valid_wasm, limits or ModuleLimits())
    check_reserved(sections)
    found = _payloads(valid_wasm)
    globals = sum(item.kind == "global" for item in sections.imports) + _count(found.get(_GLOBAL))
    functions = Functions(sections, counter=globals, stack_bytes=STACK_BYTES)
    tick = _text(RESERVED) + _text(TICK) + b"\x00" + unsigned(functions.types.tick)
    made = {
        _IMPORT: _append(found.get(_IMPORT), tick),
        _GLOBAL: _append(_constants(found.get(_GLOBAL), functions, _global), *(b"\x7e\x01\x42\x00\x0b",) * 2),
        _EXPORT: _append(
            _exports(found.get(_EXPORT), functions),
            _text(LEFT) + b"\x03" + unsigned(functions.counter),
            _text(REFUSED) + b"\x03" + unsigned(functions.refused),
        ),
    }
    if _START in found:
        made[_START] = unsigned(functions.started(_count(found[_START])))
    if _ELEMENT in found:
        made[_ELEMENT] = _constants(found[_ELEMENT], functions, _element)
    bodies = _bodies(valid_wasm, sections, functions)
    if functions.declared:
        made[_ELEMENT] = _append(made.get(_ELEMENT), _DECLARATIVE + _vector([unsigned(index) for index in functions.declared]))
    made[_CODE] = _vector([unsigned(len(body)) + body for body in (*bodies, *functions.adapter_bodies)])
    made[_FUNCTION], made[_TYPE] = functions.section(), _append(found.get(_TYPE), *functions.types.added)
    every = {**found, **made}
    parts = [MAGIC, CORE_VERSION]
    for identity in _ORDER:
        if identity in every:
            parts += (bytes([identity]), unsigned(len(every[identity])), every[identity])
    return b"".join(parts)


def _payloads(wasm: bytes) -> dict[int, bytes]:
    """Sections by number; custom ones are left out."""
    reader, found = Reader(wasm, 8, len(wasm)), {}
    while not reader.done:
        identity = reader.byte()
        payload = reader.take(reader.leb())
        if identity:
            found[identity] = payload
    return found


def _bodies(wasm: bytes, sections: Sections, functions: Functions) -> list[bytes]:
    return [
        meter_body(wasm, begin, end, kind=sections.types[kind], functions=functions)
        for (begin, end), kind in zip(sections.bodies, sections.functions, strict=True)
    ]


def _text(name: str) -> bytes:
    return unsigned(len(name)) + name.encode()


def _count(payload: bytes | None) -> int:
    return Reader(payload, 0, len(payload)).leb() if payload else 0


def _vector(entries: list[bytes]) -> bytes:
    return unsigned(len(entries)) + b"".join(entries)


def _append(payload: bytes | None, *entries: bytes) -> bytes:
    reader = Reader(payload or b"\0", 0, len(payload or b"\0"))
    return unsigned(reader.leb() + len(entries)) + reader.data[reader.position :] + b"".join(entries)


def _exports(payload: bytes | None, functions: Functions) -> bytes:
    reader = Reader(payload or b"\0", 0, len(payload or b"\0"))
    parts = [unsigned(count := reader.leb())]
    for _ in range(count):
        start = reader.position
        reader.skip(reader.leb())
        kind = reader.byte()
        parts.append(reader.data[start : reader.position])
        index = reader.leb()
        parts.append(unsigned(functions.exported(index) if kind == 0 else index))
    return b"".join(parts)


class _Copy(Reader):
    """A reader that copies, but for the function indices."""

    def __init__(self, payload: bytes, functions: Functions) -> None:
        super().__init__(payload, 0, len(payload))
        self.functions, self.parts, self.copied = functions, list[bytes](), 0

    def function(self) -> None:
        before = self.position
        self.parts += (self.data[self.copied : before], unsigned(self.functions.referred(self.leb())))
        self.copied = self.position

    def constant(self) -> None:
        while True:
            match = _CONSTANT.match(self.data, self.position, self.end)
            self.position = match.end() if match else self.position
            if (opcode := self.byte()) == 0x0B:
                return
            if opcode != 0xD2:
                raise malformed("an operator of a constant is unknown to the meter")
            self.function()


def _constants(payload: bytes | None, functions: Functions, one: Callable[[_Copy], None]) -> bytes:
    copy = _Copy(payload or b"\0", functions)
    for _ in range(copy.leb()):
        one(copy)
    return b"".join((*copy.parts, copy.data[copy.copied :]))


def _global(copy: _Copy) -> None:
    copy.functions.wide |= copy.byte() == _V128
    copy.skip(1)
    copy.constant()


def _element(copy: _Copy) -> None:
    flags = copy.leb()
    passive, explicit, expressions = flags & 1, flags & 2, flags & 4
    if not passive:
        if explicit:
            copy.leb()
        copy.constant()
    if passive or explicit:
        copy.skip(1)
    for _ in range(copy.leb()):
        if expressions:
            copy.constant()
        else:
            copy.function()
