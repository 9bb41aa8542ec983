"""Two passes for the host's sake.

``bounded`` is for every engine: no table grows beyond its share, and the memory is exported, since one that the host cannot see
could not be measured. ``hosted`` is for an engine that limits nothing: the memory becomes an import, so that each run makes it
with a maximum of its own; and the start function becomes an export, since such an engine's host functions cannot ask for a
counter while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from offchainvm.engine.binary import CORE_VERSION, MAGIC, ORDER, Reader, unsigned
from offchainvm.engine.limits import WASM_MEMORY_BYTES_MAX, WASM_PAGE_BYTES, table_elements_each
from offchainvm.engine.meter import RESERVED

MEMORY, START = "memory", f"{RESERVED}.start"
_IMPORT, _TABLE, _MEMORY, _EXPORT, _START = 2, 4, 5, 7, 8
_PAGES_MAX = WASM_MEMORY_BYTES_MAX // WASM_PAGE_BYTES
_MEMORY_KIND, _FUNCTION_KIND = b"\x02", b"\x00"


def bounded(valid_wasm: bytes) -> bytes:
    """The module with its tables held to their share, and its memory exported, where it keeps it to itself, by a name that is free."""
    found = _sections(valid_wasm)
    if _TABLE in found:
        found[_TABLE] = _tables(found[_TABLE])
    exports = found.get(_EXPORT, b"\0")
    named = dict(_exports(exports))
    if _first(found.get(_MEMORY, b"\0")) and _MEMORY_KIND not in named.values():
        free = MEMORY
        while free.encode() in named:
            free += "_"
        found[_EXPORT] = _with(exports, _name(free) + _MEMORY_KIND + unsigned(0))
    return _module(found)


def hosted(metered_wasm: bytes) -> bytes:
    """The hosted form of a module that the meter made: it imports the meter's ``tick``, and so has a section of imports."""
    found = _sections(metered_wasm)
    if _MEMORY in found and (memory := _first(found.pop(_MEMORY))):
        found[_IMPORT] = _with(found[_IMPORT], _name(RESERVED) + _name(MEMORY) + _MEMORY_KIND + memory)
    if _START in found:
        found[_EXPORT] = _with(found[_EXPORT], _name(START) + _FUNCTION_KIND + found.pop(_START))
    return _module(found)


def memory_pages(declared: tuple[int, int | None], limit_bytes: int) -> tuple[int, int]:
    """(first, most) pages of the memory that the host makes for a module that declared (minimum, maximum)."""
    minimum, maximum = declared
    return minimum, min(_PAGES_MAX if maximum is None else maximum, limit_bytes // WASM_PAGE_BYTES)


def _sections(wasm: bytes) -> dict[int, bytes]:
    reader, found = Reader(wasm, len(MAGIC + CORE_VERSION), len(wasm)), dict[int, bytes]()
    while not reader.done:
        identity = reader.byte()
        found[identity] = reader.take(reader.leb())
    return found


def _module(found: dict[int, bytes]) -> bytes:
    """Without custom sections."""
    parts = (bytes([identity]) + unsigned(len(found[identity])) + found[identity] for identity in ORDER if identity in found)
    return MAGIC + CORE_VERSION + b"".join(parts)


def _exports(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    reader = _reader(payload)
    for _ in range(reader.leb()):
        yield reader.take(reader.leb()), reader.take(1)
        reader.leb()


def _first(payload: bytes) -> bytes:
    """The one memory of a section of at most one."""
    reader = _reader(payload)
    return payload[reader.position :] if reader.leb() and reader.position else b""


def _tables(payload: bytes) -> bytes:
    reader = _reader(payload)
    parts = [unsigned(count := reader.leb())]
    share = table_elements_each(count)
    for _ in range(count):
        kind = reader.take(1)
        minimum, maximum = reader.limits()
        most = share if maximum is None else min(maximum, share)
        parts += (kind, b"\x01", unsigned(minimum), unsigned(most))
    return b"".join(parts)


def _with(payload: bytes, entry: bytes) -> bytes:
    reader = _reader(payload)
    count = reader.leb()
    return unsigned(count + 1) + payload[reader.position :] + entry


def _reader(payload: bytes) -> Reader:
    return Reader(payload, 0, len(payload))


def _name(text: str) -> bytes:
    return unsigned(len(text)) + text.encode()
