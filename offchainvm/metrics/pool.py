"""What the processes of a worker's pool count, brought to its main process: that one has the port. A worker beside it joins.

Each pool process keeps what changed and sends it over a datagram socket at the end of a message: no file to clean up, and
what a process counted outlives it. It never waits: what the socket does not take now goes with the next message.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence

_AT_ONCE = 256
"""Changes in one datagram: some 20 kB."""
_MOST_KEPT = 20_000
_LONGEST_BYTES = 1 << 18

Apply = Callable[[str, float, Sequence[str]], None]


class _Ways:
    """The two ends of the socket, and what waits to be sent."""

    def __init__(self) -> None:
        self.sending: socket.socket | None = None
        self.receiver_pid = 0
        self.waiting = deque[tuple[str, float, Sequence[str]]](maxlen=_MOST_KEPT)


_ways = _Ways()


def receive(apply: Apply) -> None:
    """In the main process, before its pool starts: take what pool processes will send, in a thread."""
    receiving, _ways.sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    _ways.sending.setblocking(False)
    _ways.receiver_pid = os.getpid()
    threading.Thread(target=_take, args=(receiving, apply), name="metrics", daemon=True).start()


def descriptor() -> int:
    """The end of the socket that sends, for a worker that is started beside this one and is to ``join``."""
    assert _ways.sending is not None, "nothing is received here"  # noqa: S101
    return _ways.sending.fileno()


def join(descriptor: int) -> None:
    """In the main process of a worker beside another one: what is counted here is handed over to that one, as by its pool."""
    _ways.sending, _ways.receiver_pid = socket.socket(fileno=descriptor), 0


def hand_over(name: str, amount: float, values: Sequence[str]) -> bool:
    """In a pool process: keep a change for the main process. False elsewhere: the change is the caller's own."""
    if _ways.sending is None or os.getpid() == _ways.receiver_pid:
        return False
    _ways.waiting.append((name, amount, values))
    return True


def flush() -> None:
    """In a pool process: send what is kept, as far as the socket takes it."""
    while _ways.sending is not None and _ways.waiting:
        batch = [_ways.waiting.popleft() for _ in range(min(_AT_ONCE, len(_ways.waiting)))]
        try:
            _ways.sending.send(json.dumps(batch, separators=(",", ":")).encode())
        except OSError:
            _ways.waiting.extendleft(reversed(batch))
            return


def _take(receiving: socket.socket, apply: Apply) -> None:
    with receiving:
        while batch := receiving.recv(_LONGEST_BYTES):
            for name, amount, values in json.loads(batch):
                # One change that cannot be taken must not end the thread that takes all others.
                with contextlib.suppress(ValueError, TypeError):
                    apply(name, amount, values)
