"""Frames come back as they were sent, or not at all; what a child says in one is believed within its limits alone."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from offchainvm.engine.base import Limits
from offchainvm.engine.limits import MIB
from offchainvm.engine.process import Ending
from offchainvm.engine.protocol import ProtocolError, encode, receive
from offchainvm.engine.reply import result_of
from offchainvm.errors import Status

LIMITS = Limits(instructions=1000, memory_bytes=MIB, wall_seconds=1, output_bytes=10, stderr_bytes=5)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


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
    "changes",
    [
        {"status": "fine"},
        {"status": None},
        {"status": ["ok"]},
        {"instructions_used": "many"},
        {"instructions_used": True},
        {"peak_memory_bytes": 1.5},
        {"exit_code": 2**40},
        {"exit_code": True},
        {"cpu_ms": "long"},
        {"message": ["a"] * 9},
        {"trap": 5},
    ],
)
def test_nonsense_from_a_child_is_an_engine_crash(changes):
    ending = Ending(head={"status": "ok", **changes}, blobs=[b"", b""], exit_code=0, wall_ms=5.0, known_instructions=7)
    result = result_of(ending, LIMITS)
    assert (result.status, result.instructions_used, result.instructions_exact) == (Status.ENGINE_CRASH, 7, False)


@pytest.mark.parametrize("ended", [{"head": {}}, {"head": {"status": "ok"}}, {"head": {}, "nonsense": True}])
def test_an_answer_that_is_not_there_is_an_engine_crash(ended):
    assert result_of(Ending(**ended, blobs=[], exit_code=0, wall_ms=5.0), LIMITS).status is Status.ENGINE_CRASH


@pytest.mark.parametrize("milliseconds", [1e9, 10**400, float("inf"), float("nan"), -1e9])
def test_a_child_cannot_claim_more_than_its_limits(milliseconds):
    head = {
        "status": "ok", "instructions_used": 10**18, "peak_memory_bytes": -5, "wall_ms": milliseconds, "cpu_ms": milliseconds,
        "message": "x" * 10_000, "trap": "\ud800",
    }  # fmt: skip
    result = result_of(Ending(head=head, blobs=[b"x" * 99, b"y" * 99], exit_code=0, wall_ms=5.0), LIMITS)
    assert (result.instructions_used, result.peak_memory_bytes, result.wall_ms, result.trap) == (1000, 0, 5.0, "?")
    assert 0 <= result.cpu_ms <= 5.0
    assert (len(result.stdout), len(result.stderr), len(result.message)) == (10, 5, 500)


def test_a_killed_child_is_a_timeout_with_its_last_count():
    ending = Ending(head={}, blobs=[], exit_code=-9, wall_ms=1200.0, killed=True, known_instructions=77, known_memory_bytes=65536)
    result = result_of(ending, LIMITS)
    assert (result.status, result.instructions_used, result.peak_memory_bytes) == (Status.TIMEOUT, 77, 65536)
