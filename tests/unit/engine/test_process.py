"""What a child sends besides a frame: the supervisor ends it at once, and says so."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from offchainvm.engine import process
from offchainvm.engine.identity import find_engine
from offchainvm.engine.process import Ending, ZygoteLost, ZygoteProcess

JOB = {"kind": "run", "kill_after_seconds": 20}
SEEN = {"exit": -9, "killed": False, "instructions": 7, "memory_bytes": 9, "wall_ms": 3.0, "cpu_ms": 2.0}


def _last_words(control: socket.socket) -> None:
    with control:
        control.send(b'{"ready":true}')
        control.send(b'{"error":"BlockingIOError: no more processes"}')


class _Gone:
    """A process that has ended."""

    def poll(self) -> int:
        return 0

    def wait(self, _timeout: float | None = None) -> int:
        return 0


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Ending]]:
    """The ending of a child that sends these bytes and then goes on until nobody listens to it."""
    threads = list[threading.Thread]()

    def serve(control: socket.socket, untrusted: bytes) -> None:
        with control:
            control.send(json.dumps({"ready": True}).encode())
            _, (channel, *_), *_ = socket.recv_fds(control, process.CONTROL_BYTES_MAX, 4)
            os.write(channel, untrusted)
            hung_up = select.poll()
            hung_up.register(channel, select.POLLRDHUP)
            assert hung_up.poll(20_000)
            os.close(channel)
            control.send(json.dumps(SEEN).encode())

    def answer(untrusted: bytes) -> Ending:
        def start(control_fd: int, _engine: Any) -> Any:
            control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(control_fd))
            threads.append(threading.Thread(target=serve, args=(control, untrusted)))
            threads[-1].start()
            return _Gone()

        monkeypatch.setattr(process, "_start", start)
        zygote = ZygoteProcess(find_engine("wasmtime"))
        try:
            return zygote.run(JOB, {}, b"", descriptors=(), max_bytes=10)
        finally:
            zygote.close()

    yield answer
    for thread in threads:
        thread.join()


def test_a_zygote_that_failed_between_two_jobs_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(control_fd: int, _engine: Any) -> Any:
        _last_words(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(control_fd)))
        return _Gone()

    monkeypatch.setattr(process, "_start", start)
    zygote = ZygoteProcess(find_engine("wasmtime"))
    with pytest.raises(ZygoteLost, match="it ended by BlockingIOError: no more processes"):
        zygote.run(JOB, {}, b"", descriptors=(), max_bytes=10)
    zygote.close()


@pytest.mark.parametrize("untrusted", [b"\xff" * 8, b"\0\0\0\2\0\0\0\0[]", b'\0\0\0\x0b\0\0\0\0{"sizes":5}', b"\0\0\0\2\0\0\0\x0b{}"])
def test_a_child_that_sends_no_frame_is_ended_at_once_and_its_time_was_not_over(answered, untrusted):
    found = answered(untrusted)
    assert (found.nonsense, found.killed, found.head, found.known_instructions) == (True, False, {}, 7)
