"""Function bodies of the metering pass: one walk over the operators, charges inserted, everything else copied.

A straight run of operators that is entered at one place and left at one place is charged where it begins. The counter
lives in a local of its own and is written to the module's global before whatever may leave the function.

What is left of the stack is counted too, since an engine's own is as large as its compiler's frames: a function that
calls others takes its frame from the global that its caller wrote, and writes what is left before each call of its own.

Each loop gets another loop around it, whose head asks the host for more::

    (loop $more  (if (count < cost) (then  count = tick(count - cost) + cost))
      (loop $loop  (br_if $more (count < cost))  count = count - cost  ...))

Where only plain branches go back, each of them asks instead, which costs no branch more: ``(br_if $loop (count >= cost)) (br $more)``.
A call would take the registers from all that the loop holds in them; so it stands outside, and each branch that
crosses the outer loop goes one label further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from offchainvm.engine.binary import Reader, malformed, unsigned
from offchainvm.engine.meter_locals import ASIDE_MAX, Locals
from offchainvm.engine.meter_snippets import Names, Snippets
from offchainvm.engine.operators import BULK, COUNTED, FREE, WRITING

_OPERATOR = re.compile(
    rb"(" + COUNTED + rb")|(" + FREE + rb")|([\x02-\x04](?:[\x40\x6f-\x7f]|[\x80-\xff]{0,4}[\x00-\x3f]))|([\x05\x0b])"
    rb"|([\x0c\x0d\x10\x12\xd2](?:[\x80-\xff]*[\x00-\x7f]))|(\x0f|\x00)|(\x11|\x13)|(" + BULK + rb")|(\x0e|\x1c)"
    rb"|(" + WRITING + rb")", re.DOTALL
)  # fmt: skip
_COUNTED, _FREE, _BLOCK, _ELSE_OR_END, _INDEXED, _LEAVE, _INDIRECT, _BULK, _VECTOR, _WRITING = range(1, 11)
_BLOCK_OP, _LOOP, _IF, _END, _BR, _BR_IF, _BR_TABLE, _RETURN, _CALL, _RETURN_CALL = 2, 3, 4, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x12
_RETURN_CALL_INDIRECT, _REF_FUNC, _MEMORY_GROW, _TABLE_GROW = 0x13, 0xD2, b"\x40", b"\xfc\x0f"
_ENTRY, _RELOAD, _HEAD, _PLAIN = range(4)
_HEIGHT_MAX = 3
_END_BYTE = b"\x0b"
# What a frame may need: measured frames of compiled Rust are a half of it, frames made to be large less than eight times.
_FRAME_BYTES, _SLOT_BYTES, _CODE_BYTES_A_FRAME_BYTE = 64, 16, 4


@dataclass
class _Loop:
    """One loop of the guest's: where its outer loop stands, the locals that it writes, in order, and what goes back to it.

    ``height``: how many loops nest in it, itself included. ``jumps`` are the places and labels of its plain branches;
    ``choices``: other branches go back to it too.
    """

    operator: bytes
    outer: int
    written: dict[int, None] = field(default_factory=dict)
    height: int = 1
    jumps: list[tuple[int, int]] = field(default_factory=list)
    choices: bool = False


@dataclass
class _Frame:
    """``depth``: how many loops of the pass's own stand around it."""

    opcode: int
    reachable_before: bool
    depth: int = 0
    loop: _Loop | None = None
    branched_to: bool = False
    other_arm_ends: bool | None = None


@dataclass
class _Body:
    """One function on its way; ``loops`` are the open ones, ``heads`` all by the place of their first charge."""

    data: bytes
    copied: int
    names: Names
    code: Snippets
    parts: list[bytes] = field(default_factory=list)
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    frames: list[_Frame] = field(default_factory=list)
    loops: list[_Loop] = field(default_factory=list)
    heads: dict[int, _Loop] = field(default_factory=dict)
    cost: int = 1
    kind: int = _ENTRY
    place: int = -1
    reachable: bool = True
    calls: bool = False

    def insert(self, position: int, code: bytes) -> None:
        self.parts.append(self.data[self.copied : position])
        self.parts.append(code)
        self.copied = position

    def replace(self, start: int, end: int, code: bytes) -> None:
        self.insert(start, code)
        self.copied = end

    def open(self, position: int, kind: int) -> None:
        """A run begins; what it costs is known when it ends."""
        self.place, self.kind, self.cost = self.mark(position), kind, 0

    def mark(self, position: int) -> int:
        """A place for code that is known later."""
        self.insert(position, b"")
        return len(self.parts) - 1

    def close(self) -> None:
        if self.place >= 0:
            self.runs.append((self.place, self.kind, self.cost))
        self.place = -1

    def leave(self) -> None:
        self.close()
        self.reachable = False

    def fill(self) -> None:
        for place, kind, cost in self.runs:
            if kind == _ENTRY:
                self.parts[place] = self.code.entry(cost, calls=self.calls)
            else:
                self.parts[place] = self.code.charge(cost, load=kind == _RELOAD)
            if kind == _HEAD and cost:
                self._fill_loop(place, cost)

    def _fill_loop(self, place: int, cost: int) -> None:
        """A head that costs nothing is left to another head at once, and nothing is asked there."""
        loop = self.heads[place]
        self.parts[loop.outer] = loop.operator + self.code.more(cost, loop.written)
        if loop.choices:
            self.parts[place] = self.code.ask(cost) + self.parts[place]
            return
        for jump, label in loop.jumps:
            self.parts[jump] = self.code.jump(cost, label)


def meter_body(data: bytes, start: int, end: int, *, parameters: bytes, names: Names, results: int, asks: bool) -> bytes:
    """The metered body (locals included, its size not) of the function ``data[start:end]``, which is known to be valid.

    ``parameters`` are the kinds of its parameters, a byte each; ``results`` how many values a call in it may give, if more
    than one. ``asks``: look at the counter at its entry even where it calls nothing.
    """
    reader = Reader(data, start, end)
    found = Locals(parameters, reader)
    calls = data.count(b"\x10", reader.position, end) + data.count(b"\x11", reader.position, end) if results else 0
    frame_bytes = _FRAME_BYTES + _SLOT_BYTES * (found.count + results * (calls + 1)) + (end - start) // _CODE_BYTES_A_FRAME_BYTE
    body = _Body(data, reader.position, names, Snippets(names, found, frame_bytes, asks=asks))
    body.open(reader.position, _ENTRY)
    body.cost = 1
    body.frames.append(_Frame(_BLOCK_OP, True))
    _walk(body, reader)
    body.insert(end, b"")
    body.fill()
    return b"".join((found.declared(), *body.parts))


def _walk(body: _Body, reader: Reader) -> None:
    while body.frames:
        scan = _OPERATOR.scanner(body.data, reader.position, reader.end)  # type: ignore[attr-defined]
        for match in iter(scan.match, None):
            group = match.lastindex
            if group == _COUNTED:
                body.cost += 1
            elif group == _WRITING:
                body.cost += 1
                if body.loops:
                    _note_written(body.loops[-1], body.data, match)
            elif group != _FREE:
                reader.position = match.end()
                _STEPS[group](body, reader, match.start())
                if group in (_INDIRECT, _VECTOR) or not body.frames:
                    break
        else:
            raise malformed("an operator is unknown to the meter")


def _note_written(loop: _Loop, data: bytes, match: re.Match[bytes]) -> None:
    if len(loop.written) < ASIDE_MAX:
        loop.written[Reader(data, match.start() + 1, match.end()).leb()] = None


def _block(body: _Body, reader: Reader, at: int) -> None:
    opcode = body.data[at]
    body.frames.append(frame := _Frame(opcode, body.reachable, body.frames[-1].depth))
    if not body.reachable or opcode == _BLOCK_OP:
        return
    body.cost += opcode == _IF
    body.close()
    if opcode == _IF:
        body.open(reader.position, _PLAIN)
        return
    operator = body.data[at : reader.position]
    frame.loop, frame.depth = _Loop(operator, body.mark(at)), frame.depth + 1
    body.parts[frame.loop.outer] = operator
    body.loops.append(frame.loop)
    body.open(reader.position, _HEAD)
    body.heads[body.place] = frame.loop


def _end_loop(body: _Body, at: int) -> None:
    """What an inner loop writes, the outer one writes too; three outwards, or nests of loops would grow by far more than their size."""
    body.insert(at, _END_BYTE)
    inner = body.loops.pop()
    if not body.loops:
        return
    outer = body.loops[-1]
    outer.height = max(outer.height, inner.height + 1)
    if inner.height < _HEIGHT_MAX:
        outer.written.update(
            dict.fromkeys([index for index in inner.written if index not in outer.written][: ASIDE_MAX - len(outer.written)])
        )


def _else_or_end(body: _Body, reader: Reader, at: int) -> None:
    frame = body.frames[-1]
    if body.data[at] != _END:
        frame.other_arm_ends, before = body.reachable, frame.reachable_before
    else:
        body.frames.pop()
        if not body.frames:
            if body.reachable:
                body.insert(at, body.code.save)
            body.close()
            return
        if frame.loop:
            _end_loop(body, at)
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
    if frame.loop:
        frame.loop.choices = True
    frame.branched_to |= frame.opcode != _LOOP
    return depth == len(body.frames) - 1


def _moved_label(body: _Body, depth: int) -> int:
    """The same label, counted past the pass's own loops."""
    return depth + body.frames[-1].depth - body.frames[-1 - depth].depth


def _indexed(body: _Body, reader: Reader, at: int) -> None:
    opcode, index = body.data[at], Reader(body.data, at + 1, reader.end).leb()
    calls = opcode in (_CALL, _RETURN_CALL)
    body.cost += 1
    if body.reachable and opcode == _BR and (loop := body.frames[-1 - index].loop):
        _jump_back(body, reader, at, loop, _moved_label(body, index))
        return
    if body.reachable and calls:
        _before_call(body, at, tail=opcode == _RETURN_CALL)
    elif body.reachable and opcode != _REF_FUNC and _branch_to(body, index):
        body.insert(at, body.code.save)
    moved = body.names.moved(index) if calls or opcode == _REF_FUNC else _moved_label(body, index)
    if moved != index:
        body.replace(at, reader.position, bytes([opcode]) + unsigned(moved))
    if body.reachable and opcode != _REF_FUNC:
        _after(body, reader.position, goes_on=opcode in (_CALL, _BR_IF), calls=calls)


def _jump_back(body: _Body, reader: Reader, at: int, loop: _Loop, label: int) -> None:
    body.replace(at, reader.position, bytes([_BR]) + unsigned(label))
    loop.jumps.append((len(body.parts) - 1, label))
    body.leave()


def _before_call(body: _Body, at: int, *, tail: bool) -> None:
    """A tail call gives its own frame back first."""
    body.calls = True
    body.insert(at, body.code.before_tail_call if tail else body.code.before_call)


def _after(body: _Body, position: int, *, goes_on: bool, calls: bool) -> None:
    if not goes_on:
        body.leave()
        return
    body.close()
    body.open(position, _RELOAD if calls else _PLAIN)


def _leave(body: _Body, _: Reader, at: int) -> None:
    if body.reachable:
        body.insert(at, body.code.save)
        body.leave()


def _indirect(body: _Body, reader: Reader, at: int) -> None:
    reader.leb()
    reader.leb()
    body.cost += 1
    if body.reachable:
        tail = body.data[at] == _RETURN_CALL_INDIRECT
        _before_call(body, at, tail=tail)
        _after(body, reader.position, goes_on=not tail, calls=True)


def _vector(body: _Body, reader: Reader, at: int) -> None:
    """br_table and the typed select."""
    body.cost += 1
    if body.data[at] == _BR_TABLE:
        _br_table(body, reader, at)
    else:
        reader.skip(reader.leb())


def _br_table(body: _Body, reader: Reader, at: int) -> None:
    size = reader.leb()
    targets = [reader.leb() for _ in range(size + 1)]
    # Every target is noted, so no short cut.
    if body.reachable and True in [_branch_to(body, depth) for depth in set(targets)]:
        body.insert(at, body.code.save)
    if body.frames[-1].depth:
        moved = b"".join(unsigned(_moved_label(body, depth)) for depth in targets)
        body.replace(at, reader.position, bytes([_BR_TABLE]) + unsigned(size) + moved)
    if body.reachable:
        body.leave()


def _bulk(body: _Body, reader: Reader, at: int) -> None:
    """To an engine these are calls: the counter is written down before each, and read after it."""
    body.cost += 1
    if not body.reachable:
        return
    body.close()
    if body.data.startswith((_MEMORY_GROW, _TABLE_GROW), at):
        before, after = body.code.growth()
        body.insert(at, before)
        body.insert(reader.position, after)
        body.open(reader.position, _PLAIN)
    else:
        body.insert(at, body.code.bulk())
        body.open(reader.position, _RELOAD)


_STEPS = {
    _BLOCK: _block, _ELSE_OR_END: _else_or_end, _INDEXED: _indexed, _LEAVE: _leave, _INDIRECT: _indirect, _BULK: _bulk, _VECTOR: _vector,
}  # fmt: skip
