"""The double answers from its table; frames come back as they were sent, or not at all."""

from __future__ import annotations

import hashlib
import socket
import struct
import time

import pytest

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.double import FakeExecutor
from offchainvm.engine.limits import MIB
from offchainvm.engine.process import Ending
from offchainvm.engine.protocol import ProtocolError, encode, receive
from offchainvm.engine.reply import result_of
from offchainvm.errors import ExecutionError, Status

LIMITS = Limits(instructions=1000, memory_bytes=MIB, wall_seconds=1, output_bytes=10, stderr_bytes=5)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_double_answers_by_module_and_keeps_the_requests(tmp_path):
    module = tmp_path / "m.wasm"
    module.write_bytes(b"code")
    sha256, request = hashlib.sha256(b"code").hexdigest(), ExecutionRequest(b"in", LIMITS)
    with FakeExecutor({sha256: lambda asked: asked.input + b"!"}, default=ExecutionResult(Status.TRAP, LIMITS, "trapped")) as fake:
        assert fake.execute(module, request).stdout == b"in!"
        module.write_bytes(b"other")
        result = fake.execute(module, request)
        with pytest.raises(ExecutionError, match="trap: trapped"):
            result.raise_for_status()
    assert [asked for _, asked in fake.requests] == [request, request]
    assert fake.closed


def test_a_frame_comes_back(pair):
    ours, theirs = pair
    theirs.sendall(encode({"a": [1, "ß"]}, b"one", b"", b"\0"))
    assert receive(ours, max_bytes=10) == ({"a": [1, "ß"]}, [b"one", b"", b"\0"])


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\0",
        encode({}, bytes(11)),
        struct.pack("!II", 2**31, 0),
        struct.pack("!II", 2, 0) + b"[]",
        struct.pack("!II", 2, 0) + b"{}",
        struct.pack("!II", 4, 0) + b"null",
        struct.pack("!II", 12, 0) + b'{"sizes":[5]',
        struct.pack("!II", 15, 1) + b'{"sizes":[2,-1]}',
        encode({}, b"abc")[:-1],
    ],
)
def test_a_frame_that_is_not_one_is_refused(pair, sent):
    ours, theirs = pair
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(ProtocolError):
        receive(ours, max_bytes=10)


def test_a_silent_channel_ends_at_the_deadline(pair):
    with pytest.raises(TimeoutError):
        receive(pair[0], max_bytes=10, deadline=time.monotonic() + 0.01)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"status": "fine"},
        {"status": "ok", "instructions_used": "many"},
        {"status": "ok", "instructions_used": True},
        {"status": "ok", "peak_memory_bytes": 1.5},
        {"status": "ok", "exit_code": 2**40},
        {"status": "ok", "wall_ms": "long"},
        {"status": ["ok"]},
    ],
)
def test_nonsense_from_a_child_is_an_engine_crash(head):
    ending = Ending(head=head, blobs=[], exit_code=0, wall_ms=5.0, known_instructions=7)
    result = result_of(ending, LIMITS)
    assert (result.status, result.instructions_used, result.instructions_exact) == (Status.ENGINE_CRASH, 7, False)


def test_a_child_cannot_claim_more_than_its_limits():
    head = {"status": "ok", "instructions_used": 10**18, "peak_memory_bytes": -5, "wall_ms": 1e9, "cpu_ms": 1e9, "message": "x" * 10_000}
    result = result_of(Ending(head=head, blobs=[b"x" * 99, b"y" * 99], exit_code=0, wall_ms=5.0), LIMITS)
    assert (result.instructions_used, result.peak_memory_bytes, result.wall_ms, result.cpu_ms) == (1000, 0, 5.0, 5.0)
    assert (len(result.stdout), len(result.stderr), len(result.message)) == (10, 5, 500)


def test_a_killed_child_is_a_timeout_with_its_last_count():
    ending = Ending(head={}, blobs=[], exit_code=-9, wall_ms=1200.0, killed=True, known_instructions=77, known_memory_bytes=65536)
    result = result_of(ending, LIMITS)
    assert (result.status, result.instructions_used, result.peak_memory_bytes) == (Status.TIMEOUT, 77, 65536)
