"""Function bodies of the metering pass: one walk over the operators, charges inserted, everything else copied.

A straight run of operators that is entered at one place and left at one place is charged where it begins. The counter
lives in a local of its own and is written to the module's global before whatever may leave the function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from offchainvm.engine.binary import Reader, malformed
from offchainvm.engine.operators import BULK, COUNTED, FREE

_OPERATOR = re.compile(
    rb"(" + COUNTED + rb")|(" + FREE + rb")|([\x02-\x04](?:[\x40\x6f-\x7f]|[\x80-\xff]{0,4}[\x00-\x3f]))|([\x05\x0b])"
    rb"|([\x0c\x0d\x10\x12\xd2](?:[\x80-\xff]*[\x00-\x7f]))|(\x0f|\x00)|(\x11|\x13)|(" + BULK + rb")|(\x0e|\x1c)", re.DOTALL
)  # fmt: skip
_COUNTED, _FREE, _BLOCK, _ELSE_OR_END, _INDEXED, _LEAVE, _INDIRECT, _BULK, _VECTOR = range(1, 10)
_BLOCK_OP, _LOOP, _IF, _END, _BR, _BR_IF, _BR_TABLE, _RETURN, _CALL, _RETURN_CALL = 2, 3, 4, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x12
_RETURN_CALL_INDIRECT, _REF_FUNC, _MEMORY_GROW, _TABLE_GROW = 0x13, 0xD2, b"\x40", b"\xfc\x0f"
_ENTRY, _RELOAD, _HEAD, _PLAIN = range(4)


def unsigned(value: int) -> bytes:
    """LEB128."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def signed(value: int) -> bytes:
    """Signed LEB128."""
    found = bytearray()
    while not -0x40 <= value < 0x40:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value & 0x7F)
    return bytes(found)


@dataclass(frozen=True)
class Names:
    """Indices of what the pass adds: the counter, and the host function that is called when it is below zero."""

    counter: int
    tick: int

    def moved(self, function: int) -> int:
        """The new index of an old function: the host function stands behind the imports, before all others."""
        return function + (function >= self.tick)


@dataclass
class _Frame:
    opcode: int
    reachable_before: bool
    branched_to: bool = False
    other_arm_ends: bool | None = None


@dataclass
class _Body:
    """One function on its way."""

    data: bytes
    copied: int
    names: Names
    first_local: int
    parts: list[bytes] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    frames: list[_Frame] = field(default_factory=list)
    cost: int = 1
    kind: int = _ENTRY
    place: int = -1
    reachable: bool = True
    repeats: bool = False
    bulk: bool = False

    def __post_init__(self) -> None:
        self.count = b"\x20" + unsigned(self.first_local)
        self.set_count, self.tee_count = b"\x21" + unsigned(self.first_local), b"\x22" + unsigned(self.first_local)
        self.load, self.save = b"\x23" + unsigned(self.names.counter), self.count + b"\x24" + unsigned(self.names.counter)
        # if counter < 0: counter = global = tick(counter)
        self.check = (
            self.tee_count + b"\x42\x00\x53\x04\x40" + self.count + b"\x10" + unsigned(self.names.tick) + self.tee_count
            + b"\x24" + unsigned(self.names.counter) + b"\x0b"
        )  # fmt: skip

    def insert(self, position: int, code: bytes) -> None:
        self.parts.append(self.data[self.copied : position])
        self.parts.append(code)
        self.copied = position

    def replace(self, start: int, end: int, code: bytes) -> None:
        self.insert(start, code)
        self.copied = end

    def open(self, position: int, kind: int) -> None:
        """A run begins; what it costs is known when it ends."""
        self.insert(position, b"")
        self.place, self.kind, self.cost = len(self.parts) - 1, kind, 0

    def close(self) -> None:
        if self.place >= 0:
            self.runs.append((self.place, self.kind, self.cost))
        self.place = -1

    def leave(self) -> None:
        self.close()
        self.reachable = False

    def fill(self) -> None:
        for place, kind, cost in self.runs:
            charge = b"\x42" + signed(cost) + b"\x7d"
            if kind in (_ENTRY, _RELOAD):
                check = self.check if kind == _ENTRY and self.repeats else self.set_count
                self.parts[place] = self.load + (charge if cost else b"") + check
            elif cost or kind == _HEAD:
                self.parts[place] = self.count + charge + (self.check if kind == _HEAD else self.set_count)


def meter_body(data: bytes, start: int, end: int, *, parameters: int, names: Names, check: bool = False) -> bytes:
    """The metered body (locals included, its size not) of the function ``data[start:end]``, which is known to be valid.

    ``check``: look at the counter at its entry even where nothing in it repeats.
    """
    reader = Reader(data, start, end)
    groups, total = reader.leb(), 0
    begin = reader.position
    for _ in range(groups):
        total += reader.leb()
        reader.skip(1)
    declared = data[begin : reader.position]
    body = _Body(data, reader.position, names, parameters + total, repeats=check)
    body.open(reader.position, _ENTRY)
    body.cost = 1
    body.frames.append(_Frame(_BLOCK_OP, True))
    _walk(body, reader)
    body.insert(end, b"")
    body.fill()
    added = (b"\x01\x7e\x02\x7f", 2) if body.bulk else (b"\x01\x7e", 1)
    return b"".join((unsigned(groups + added[1]), declared, added[0], *body.parts))


def _walk(body: _Body, reader: Reader) -> None:
    while body.frames:
        scan = _OPERATOR.scanner(body.data, reader.position, reader.end)  # type: ignore[attr-defined]
        for match in iter(scan.match, None):
            group = match.lastindex
            if group == _COUNTED:
                body.cost += 1
            elif group != _FREE:
                reader.position = match.end()
                _STEPS[group](body, reader, match.start())
                if group in (_INDIRECT, _VECTOR) or not body.frames:
                    break
        else:
            raise malformed("an operator is unknown to the meter")


def _block(body: _Body, reader: Reader, at: int) -> None:
    opcode = body.data[at]
    body.frames.append(_Frame(opcode, body.reachable))
    if not body.reachable or opcode == _BLOCK_OP:
        return
    body.cost += opcode == _IF
    body.close()
    body.repeats |= opcode == _LOOP
    body.open(reader.position, _HEAD if opcode == _LOOP else _PLAIN)


def _else_or_end(body: _Body, reader: Reader, at: int) -> None:
    frame = body.frames[-1]
    if body.data[at] != _END:
        frame.other_arm_ends, before = body.reachable, frame.reachable_before
    else:
        body.frames.pop()
        if not body.frames:
            if body.reachable:
                body.insert(at, body.save)
            body.close()
            return
        if frame.opcode != _IF and not frame.branched_to:
            return
        before = frame.branched_to or body.reachable
        if frame.opcode == _IF:
            before = before or (frame.reachable_before if frame.other_arm_ends is None else frame.other_arm_ends)
    body.close()
    body.reachable = before
    if before:
        body.open(reader.position, _PLAIN)


def _branch_to(body: _Body, depth: int) -> bool:
    """Notes the target; whether it is the function itself."""
    frame = body.frames[-1 - depth]
    frame.branched_to |= frame.opcode != _LOOP
    return depth == len(body.frames) - 1


def _indexed(body: _Body, reader: Reader, at: int) -> None:
    opcode, index = body.data[at], Reader(body.data, at + 1, reader.end).leb()
    calls = opcode in (_CALL, _RETURN_CALL)
    body.cost += 1
    if body.reachable and (calls or (opcode != _REF_FUNC and _branch_to(body, index))):
        body.insert(at, body.save)
    if calls or opcode == _REF_FUNC:
        body.replace(at, reader.position, bytes([opcode]) + unsigned(body.names.moved(index)))
    if body.reachable and opcode != _REF_FUNC:
        _after(body, reader.position, goes_on=opcode in (_CALL, _BR_IF), calls=calls)


def _after(body: _Body, position: int, *, goes_on: bool, calls: bool) -> None:
    body.repeats |= calls
    if not goes_on:
        body.leave()
        return
    body.close()
    body.open(position, _RELOAD if calls else _PLAIN)


def _leave(body: _Body, _: Reader, at: int) -> None:
    if body.reachable:
        body.insert(at, body.save)
        body.leave()


def _indirect(body: _Body, reader: Reader, at: int) -> None:
    reader.leb()
    reader.leb()
    body.cost += 1
    if body.reachable:
        body.insert(at, body.save)
        _after(body, reader.position, goes_on=body.data[at] != _RETURN_CALL_INDIRECT, calls=True)


def _vector(body: _Body, reader: Reader, at: int) -> None:
    """br_table and the typed select."""
    is_table, body.cost = body.data[at] == _BR_TABLE, body.cost + 1
    targets = {reader.leb() for _ in range(reader.leb() + is_table)}
    if is_table and body.reachable:
        # Every target is noted, so no short cut.
        if True in [_branch_to(body, depth) for depth in targets]:
            body.insert(at, body.save)
        body.leave()


def _bulk(body: _Body, reader: Reader, at: int) -> None:
    body.cost += 1
    if not body.reachable:
        return
    body.bulk = True
    size, answer = unsigned(body.first_local + 1), unsigned(body.first_local + 2)
    if not body.data.startswith((_MEMORY_GROW, _TABLE_GROW), at):
        charge = body.count + b"\x20" + size + b"\xad\x7d"
        body.insert(at, b"\x21" + size + charge + body.check + b"\x20" + size)
        return
    # Growth is paid for when it was granted: counter -= answer == -1 ? 0 : size
    body.insert(at, b"\x22" + size)
    charge = body.count + b"\x42\x00\x20" + size + b"\xad\x20" + answer + b"\x41\x7f\x46\x1b\x7d"
    body.insert(reader.position, b"\x22" + answer + charge + body.check)


_STEPS = {
    _BLOCK: _block, _ELSE_OR_END: _else_or_end, _INDEXED: _indexed, _LEAVE: _leave, _INDIRECT: _indirect, _BULK: _bulk, _VECTOR: _vector,
}  # fmt: skip
