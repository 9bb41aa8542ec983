"""Function bodies of the metering pass: one walk over the operators, charges inserted, everything else copied.

A straight run of operators that is entered at one place and left at one place is charged where it begins. The count
lives in a local of its own: the caller hands it over as a parameter and gets it back as the last result, and it is written to
the module's global before what leaves the guest's functions: the host's functions, bulk operations, ``unreachable``.

What is left of the stack is counted too, since an engine's own is as large as its compiler's frames: a function that
calls others takes its frame from what its caller gave, and gives what is left to each call of its own.

The whole body is a block, which takes over the label of the function, so that branches to it meet the count where they arrive.

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

from offchainvm.engine.binary import FunctionType, Reader, malformed, unsigned
from offchainvm.engine.meter_functions import Functions, kinds
from offchainvm.engine.meter_locals import ASIDE_MAX, Locals
from offchainvm.engine.meter_snippets import END, Snippets
from offchainvm.engine.operators import BULK, COUNTED, FREE, LOCAL

_OPERATOR = re.compile(
    rb"(" + COUNTED + rb")|(" + FREE + rb")|([\x02-\x04](?:[\x40\x6f-\x7f]|[\x80-\xff]{0,4}[\x00-\x3f]))|([\x05\x0b])"
    rb"|([\x0c\x0d](?:[\x80-\xff]*[\x00-\x7f]))|([\x10\x12\xd2](?:[\x80-\xff]*[\x00-\x7f]))|(\x0f|\x00)|(\x11|\x13)|(" + BULK
    + rb")|(\x0e|\x1c)|(" + LOCAL + rb")", re.DOTALL
)  # fmt: skip
_COUNTED, _FREE, _BLOCK, _ELSE_OR_END, _BRANCH, _FUNCTION, _LEAVE, _INDIRECT, _BULK, _VECTOR, _LOCAL = range(1, 12)
_BLOCK_OP, _LOOP, _IF, _END, _BR, _BR_IF, _BR_TABLE, _RETURN, _CALL, _RETURN_CALL = 2, 3, 4, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x12
_RETURN_CALL_INDIRECT, _GET_LOCAL, _REF_FUNC, _MEMORY_GROW, _TABLE_GROW = 0x13, 0x20, 0xD2, b"\x40", b"\xfc\x0f"
_HEIGHT_MAX = 3
# What a frame may need: measured frames of compiled Rust are a half of it, frames made to be large less than eight times. Three
# bytes of code put a value on the stack of operands, and a call may take hundreds from it; arguments are in registers at first.
_FRAME_BYTES, _SLOT_BYTES, _CODE_BYTES_A_FRAME_BYTE, _REGISTER_ARGUMENTS = 64, 16, 2, 6


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

    def note_written(self, local: int) -> None:
        if len(self.written) < ASIDE_MAX:
            self.written[local] = None


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
    """One function on its way; ``loops`` are the open ones, ``heads`` all by the place of their first charge.

    ``runs`` have a place, code for the count before them, and a cost; the first is the function's own. ``place`` is below zero
    while none is open. ``passed`` is how many arguments one of its calls passes at most, ``given_back`` how many results calls
    that have several give in all, and the function itself.
    """

    data: bytes
    copied: int
    functions: Functions
    locals: Locals
    code: Snippets
    parts: list[bytes] = field(default_factory=list)
    runs: list[tuple[int, bytes, int]] = field(default_factory=list)
    frames: list[_Frame] = field(default_factory=list)
    loops: list[_Loop] = field(default_factory=list)
    heads: dict[int, _Loop] = field(default_factory=dict)
    cost: int = 0
    count: bytes = b""
    place: int = -1
    reachable: bool = True
    calls: bool = False
    passed: int = 0
    given_back: int = 0

    def insert(self, position: int, code: bytes) -> None:
        self.parts += (self.data[self.copied : position], code)
        self.copied = position

    def replace(self, start: int, end: int, code: bytes) -> None:
        self.insert(start, code)
        self.copied = end

    def open(self, position: int, count: bytes) -> None:
        """A run begins; what it costs is known when it ends. ``count`` is code for the count before it."""
        self.place, self.count, self.cost = self.mark(position), count, 0

    def mark(self, position: int) -> int:
        """A place for code that is known later."""
        self.insert(position, b"")
        return len(self.parts) - 1

    def close(self) -> None:
        if self.place >= 0:
            self.runs.append((self.place, self.count, self.cost))
        self.place = -1

    def leave(self) -> None:
        self.close()
        self.reachable = False

    def called(self, kind: FunctionType) -> None:
        """It calls a function of this type."""
        self.calls, self.passed = True, max(self.passed, len(kind.params))
        self.give_back(kind)

    def give_back(self, kind: FunctionType) -> None:
        if len(kind.results) > 1:
            self.given_back += len(kind.results)

    def fill(self, frame_bytes: int) -> None:
        (first, _, first_cost), *others = self.runs
        self.parts[first] = self.code.entry(first_cost, frame_bytes, calls=self.calls)
        for place, count, cost in others:
            self.parts[place] = self.code.charge(cost, count)
            if cost and place in self.heads:
                self._fill_loop(place, cost)

    def _fill_loop(self, place: int, cost: int) -> None:
        """A head that costs nothing is left to another head at once, and nothing is asked there."""
        loop = self.heads[place]
        self.parts[loop.outer] = loop.operator + self.code.more(cost, *self.locals.aside(loop.written))
        if loop.choices:
            self.parts[place] = self.code.ask(cost) + self.parts[place]
            return
        for jump, label in loop.jumps:
            self.parts[jump] = self.code.jump(cost, label)


def meter_body(data: bytes, start: int, end: int, *, kind: FunctionType, functions: Functions) -> bytes:
    """The metered body (locals included, its size not) of the function ``data[start:end]``, which is known to be valid."""
    reader = Reader(data, start, end)
    found = Locals(kinds(kind.params), reader)
    body = _Body(data, reader.position, functions, found, functions.code(found.places))
    body.give_back(kind)
    body.open(reader.position, b"")
    body.cost = 1
    body.insert(reader.position, bytes([_BLOCK_OP]) + functions.types.block(kind.results))
    body.frames.append(_Frame(_BLOCK_OP, True))
    _walk(body, reader, found.moved)
    body.insert(end, b"")
    slots = found.count + max(0, body.passed - _REGISTER_ARGUMENTS) + body.given_back
    body.fill(_FRAME_BYTES + _SLOT_BYTES * slots + (end - start) // (1 if functions.wide else _CODE_BYTES_A_FRAME_BYTE))
    return b"".join((found.declared(), *body.parts))


def _walk(body: _Body, reader: Reader, moved: dict[int, bytes]) -> None:
    data, loops = body.data, body.loops
    while body.frames:
        scan = _OPERATOR.scanner(data, reader.position, reader.end)  # type: ignore[attr-defined]
        for match in iter(scan.match, None):
            group = match.lastindex
            if group == _COUNTED:
                body.cost += 1
            elif group == _LOCAL:
                body.cost += 1
                at, end = match.span()
                index = data[at + 1] if end - at == 2 else Reader(data, at + 1, end).leb()
                if index in moved:
                    body.replace(at + 1, end, moved[index])
                if loops and data[at] != _GET_LOCAL:
                    loops[-1].note_written(index)
            elif group != _FREE:
                reader.position = match.end()
                _STEPS[group](body, reader, match.start())
                if group in (_INDIRECT, _VECTOR) or not body.frames:
                    break
        else:
            raise malformed("an operator is unknown to the meter")


def _block(body: _Body, reader: Reader, at: int) -> None:
    opcode = body.data[at]
    body.frames.append(frame := _Frame(opcode, body.reachable, body.frames[-1].depth))
    if not body.reachable or opcode == _BLOCK_OP:
        return
    body.cost += opcode == _IF
    body.close()
    if opcode == _IF:
        body.open(reader.position, body.code.count)
        return
    operator = body.data[at : reader.position]
    frame.loop, frame.depth = _Loop(operator, body.mark(at)), frame.depth + 1
    body.parts[frame.loop.outer] = operator
    body.loops.append(frame.loop)
    body.open(reader.position, body.code.count)
    body.heads[body.place] = frame.loop


def _end_loop(body: _Body, at: int) -> None:
    """What an inner loop writes, the outer one writes too; three outwards, or nests of loops would grow by far more than their size."""
    body.insert(at, END)
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
            body.insert(at, END + body.code.count)
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
        body.open(reader.position, body.code.count)


def _branch_to(body: _Body, depth: int) -> None:
    frame = body.frames[-1 - depth]
    if frame.loop:
        frame.loop.choices = True
    frame.branched_to |= frame.opcode != _LOOP


def _moved_label(body: _Body, depth: int) -> int:
    """The same label, counted past the pass's own loops."""
    return depth + body.frames[-1].depth - body.frames[-1 - depth].depth


def _branch(body: _Body, reader: Reader, at: int) -> None:
    opcode, index = body.data[at], Reader(body.data, at + 1, reader.end).leb()
    body.cost += 1
    label = _moved_label(body, index)
    if body.reachable and opcode == _BR and (loop := body.frames[-1 - index].loop):
        _jump_back(body, reader, at, loop, label)
        return
    if label != index:
        body.replace(at, reader.position, bytes([opcode]) + unsigned(label))
    if not body.reachable:
        return
    _branch_to(body, index)
    if opcode == _BR:
        body.leave()
    else:
        body.close()
        body.open(reader.position, body.code.count)


def _jump_back(body: _Body, reader: Reader, at: int, loop: _Loop, label: int) -> None:
    body.replace(at, reader.position, bytes([_BR]) + unsigned(label))
    loop.jumps.append((len(body.parts) - 1, label))
    body.leave()


def _function(body: _Body, reader: Reader, at: int) -> None:
    """Calls, and references."""
    opcode, index = body.data[at], Reader(body.data, at + 1, reader.end).leb()
    body.cost += 1
    if opcode == _REF_FUNC:
        body.replace(at, reader.position, bytes([opcode]) + unsigned(body.functions.named(index)))
    elif body.functions.imported(index):
        _host_call(body, reader, at, bytes([_CALL]) + unsigned(index))
    else:
        body.called(body.functions.type_of(index))
        arguments = body.code.tail_arguments if opcode == _RETURN_CALL else body.code.arguments
        _call(body, reader, at, arguments + bytes([opcode]) + unsigned(body.functions.called(index)))


def _host_call(body: _Body, reader: Reader, at: int, call: bytes) -> None:
    body.calls = True
    if body.data[at] == _RETURN_CALL:
        body.replace(at, reader.position, body.code.save + call + body.code.return_loaded)
        body.leave()
        return
    body.insert(at, body.code.save)
    if body.reachable:
        body.close()
        body.open(reader.position, body.code.load)


def _call(body: _Body, reader: Reader, at: int, code: bytes) -> None:
    """What nobody reaches has to be valid too."""
    body.replace(at, reader.position, code)
    if body.data[at] in (_RETURN_CALL, _RETURN_CALL_INDIRECT):
        body.leave()
    elif body.reachable:
        body.close()
        body.open(reader.position, b"")
    else:
        body.insert(reader.position, body.code.set_count)


def _leave(body: _Body, _: Reader, at: int) -> None:
    returns = body.data[at] == _RETURN
    if returns or body.reachable:
        body.insert(at, body.code.count if returns else body.code.save)
    body.leave()


def _indirect(body: _Body, reader: Reader, at: int) -> None:
    opcode, kind, start = body.data[at], reader.leb(), reader.position
    reader.leb()
    table = body.data[start : reader.position]
    body.cost += 1
    body.called(body.functions.types.guests[kind])
    arguments = body.code.tail_arguments if opcode == _RETURN_CALL_INDIRECT else body.code.arguments
    call = bytes([opcode]) + unsigned(body.functions.types.metered(kind)) + table
    _call(body, reader, at, body.code.around(arguments) + call)


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
    if body.reachable:
        for depth in set(targets):
            _branch_to(body, depth)
    if body.frames[-1].depth:
        moved = b"".join(unsigned(_moved_label(body, depth)) for depth in targets)
        body.replace(at, reader.position, bytes([_BR_TABLE]) + unsigned(size) + moved)
    body.leave()


def _bulk(body: _Body, reader: Reader, at: int) -> None:
    """To an engine these are calls: the counter is written down before each, and read after it."""
    body.cost += 1
    if not body.reachable:
        return
    body.close()
    if body.data.startswith((_MEMORY_GROW, _TABLE_GROW), at):
        before, after = body.code.growth(of_memory=body.data.startswith(_MEMORY_GROW, at))
        body.insert(at, before)
        body.insert(reader.position, after)
        body.open(reader.position, body.code.count)
    else:
        body.insert(at, body.code.bulk())
        body.open(reader.position, body.code.load)


_STEPS = {
    _BLOCK: _block, _ELSE_OR_END: _else_or_end, _BRANCH: _branch, _FUNCTION: _function, _LEAVE: _leave,
    _INDIRECT: _indirect, _BULK: _bulk, _VECTOR: _vector,
}  # fmt: skip
