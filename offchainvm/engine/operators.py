"""How deep the blocks of a function nest: the one thing about operators that the static limits need.

Reading operators one by one in Python would take longer than compiling them, so a regular expression of the
operators' shapes does it at the speed of C, and functions that cannot be deep are not read at all.
"""

from __future__ import annotations

import re

from offchainvm.engine.binary import Reader, at_most, malformed
from offchainvm.errors import ExecutionError

_LEB = rb"[\x80-\xff]*[\x00-\x7f]"
_MEMARG = _LEB + _LEB
_SIMD = (
    rb"\xfd(?:[\x00-\x0b]" + _MEMARG + rb"|[\x0c\x0d].{16}|[\x15-\x22].|[\x54-\x5b]" + _MEMARG + rb".|[\x5c\x5d]" + _MEMARG
    + rb"|[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\xff][\x01-\x07])"
)  # fmt: skip
_BULK = rb"\xfc(?:[\x00-\x07]|[\x08\x0a\x0c\x0e]" + _LEB + _LEB + rb"|[\x09\x0b\x0d\x0f-\x11]" + _LEB + rb")"
_PLAIN = (
    rb"[\x00\x01\x05\x0f\x1a\x1b\x45-\xc4\xd1]|[\x0c\x0d\x10\x12\x20-\x26\x3f-\x42\xd0\xd2]" + _LEB
    + rb"|[\x28-\x3e]" + _MEMARG + rb"|[\x11\x13]" + _LEB + _LEB + rb"|\x43.{4}|\x44.{8}|" + _BULK + rb"|" + _SIMD
)  # fmt: skip
# At most 500 operators a match bounds the memory that the matcher needs for one step.
_RUN = re.compile(rb"(?:" + _PLAIN + rb"){0,500}", re.DOTALL)
# For the meter: what costs 1, what costs 1 and means a local, what costs nothing, and what is charged by its size too.
_NO_SIZE = rb"\xfc(?:[\x00-\x07]|[\x09\x0d\x10]" + _LEB + rb")"
COUNTED = (
    rb"[\x1b\x45-\xc4\xd1]|[\x23-\x26\x3f\x41\x42\xd0]" + _LEB + rb"|[\x28-\x3e]" + _MEMARG
    + rb"|\x43.{4}|\x44.{8}|" + _NO_SIZE + rb"|" + _SIMD
)  # fmt: skip
LOCAL = rb"[\x20-\x22]" + _LEB
FREE = rb"[\x01\x1a]"
BULK = rb"\x40" + _LEB + rb"|\xfc(?:[\x08\x0a\x0c\x0e]" + _LEB + _LEB + rb"|[\x0b\x0f\x11]" + _LEB + rb")"
_BLOCKS, _END, _BR_TABLE, _SELECT_TYPED = (0x02, 0x03, 0x04), 0x0B, 0x0E, 0x1C


def check_nesting(wasm: bytes, start: int, end: int, *, limit: int) -> None:
    """Refuse the function body ``wasm[start:end]`` (locals included) when its blocks nest deeper than ``limit``.

    Raises:
        ExecutionError: module_too_complex, or invalid_module for an operator of a proposal that is switched off.
    """
    if sum(wasm.count(opcode, start, end) for opcode in _BLOCKS) > limit:
        _walk(_code(wasm, start, end), limit, _RUN)


def has_operator(valid_wasm: bytes, start: int, end: int, operator: bytes) -> bool:
    """Whether the function body has this plain operator, and not its bytes alone."""
    if valid_wasm.find(operator, start, end) < 0:
        return False
    others = rb"(?:(?!" + re.escape(operator) + rb")(?:" + _PLAIN + rb")){0,500}"
    try:
        _walk(_code(valid_wasm, start, end), end - start, re.compile(others, re.DOTALL))
    except ExecutionError:
        return True
    return False


def _code(wasm: bytes, start: int, end: int) -> Reader:
    reader = Reader(wasm, start, end)
    for _ in range(reader.leb()):
        reader.leb()
        reader.skip(1)
    return reader


def _walk(reader: Reader, limit: int, run: re.Pattern[bytes]) -> None:
    depth = 1
    while depth:
        before = reader.position
        reader.position = _end_of_run(reader, run)
        if reader.position != before:
            continue
        opcode = reader.byte()
        if opcode in _BLOCKS:
            reader.leb(35)
            depth = at_most("nested blocks in one function", depth + 1, limit + 1)
        elif opcode == _END:
            depth -= 1
        elif opcode in (_BR_TABLE, _SELECT_TYPED):
            for _ in range(reader.leb() + (opcode == _BR_TABLE)):
                reader.leb()
        else:
            raise malformed(f"operator 0x{opcode:02x} is unknown")


def _end_of_run(reader: Reader, run: re.Pattern[bytes]) -> int:
    match = run.match(reader.data, reader.position, reader.end)
    return match.end() if match else reader.position
