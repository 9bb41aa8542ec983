"""Frames between the supervisor, the zygote and its children: a JSON head, then bytes.

``!II`` (length of the head, length of the rest) · head · blobs one after the other, whose sizes are in the head.
What a child sends is a stranger's word: lengths are bounded before anything is read, fields are checked by their reader.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

_HEADER = struct.Struct("!II")
HEAD_BYTES_MAX = 4 << 20
CONTROL_BYTES_MAX = 16 * 1024
JOB_DESCRIPTORS_MAX = 4
"""A job's channel, and its native code; what is more would be dropped."""


class ProtocolError(Exception):
    """The other side did not say what it should."""


class Hangup(ProtocolError):
    """The other side went away before it had said everything."""


def encode(head: dict[str, Any], *blobs: bytes) -> bytes:
    """One frame."""
    text = json.dumps({**head, "sizes": [len(blob) for blob in blobs]}, separators=(",", ":")).encode()
    return b"".join((_HEADER.pack(len(text), sum(map(len, blobs))), text, *blobs))


def receive(channel: socket.socket, *, max_bytes: int, deadline: float | None = None) -> tuple[dict[str, Any], list[bytes]]:
    """One frame: its head and its blobs, ``max_bytes`` of them at most.

    Raises:
        ProtocolError: the frame is malformed, too long, or ends early (``Hangup``).
        TimeoutError: ``deadline`` (of ``time.monotonic``) passed.
    """

    def take(count: int) -> bytes:
        return _take(channel, count, deadline)

    return decode(take, max_bytes=max_bytes)


def decode(take: Callable[[int], bytes], *, max_bytes: int) -> tuple[dict[str, Any], list[bytes]]:
    """Read one frame from ``take``, which gives exactly as many bytes as asked for."""
    head_size, rest_size = _HEADER.unpack(take(_HEADER.size))
    if head_size > HEAD_BYTES_MAX or rest_size > max_bytes:
        raise ProtocolError(f"a frame of {head_size} + {rest_size} bytes is too long")
    try:
        head = json.loads(take(head_size))
        sizes = head.pop("sizes")
        if sum(sizes) != rest_size or any(not isinstance(size, int) or size < 0 for size in sizes):
            raise ProtocolError("the sizes in a frame do not fit")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"a frame's head is malformed: {type(error).__name__}") from None
    return head, [take(size) for size in sizes]


def _take(channel: socket.socket, count: int, deadline: float | None) -> bytes:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        if deadline is not None:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
        received = channel.recv_into(view[got:])
        if not received:
            raise Hangup("the other side closed the channel")
        got += received
    return bytes(data)
