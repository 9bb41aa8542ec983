"""The zygote as its supervisor holds it: started with an empty environment, asked for one child at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import offchainvm
from offchainvm.cancellation import Cancellation
from offchainvm.engine.identity import Engine
from offchainvm.engine.protocol import CONTROL_BYTES_MAX, Hangup, ProtocolError, encode, receive

_START_SECONDS = 60.0
_ANSWER_SECONDS = 5.0
"""Beyond a job's own limit: by then the zygote has killed the child and said so, or is lost."""
_STOP_SECONDS = 5.0
_MAIN = """
import json, sys
paths, control_fd, parent, die_with_thread, engine, metering = json.loads(sys.argv[1])
sys.path[:] = paths
from offchainvm.engine.zygote import main
main(control_fd, parent, die_with_thread=die_with_thread, engine=engine, metering=metering)
"""


class ZygoteLost(Exception):
    """The zygote died, or does not answer."""


@dataclass(frozen=True)
class Ending:
    """How a child ended: its frame (empty when it left none), and what the zygote saw.

    ``exit_code`` is negative for a signal; ``killed``: its time was over; ``cancelled``: somebody wished so; ``nonsense``: it sent no frame
    but something else, and was ended for that.
    ``known_*`` are the counts of its last slice.
    """

    head: dict[str, Any]
    blobs: list[bytes]
    exit_code: int
    wall_ms: float
    cpu_ms: float | None = None
    killed: bool = False
    cancelled: bool = False
    nonsense: bool = False
    known_instructions: int = 0
    known_memory_bytes: int = 0


class ZygoteProcess:
    """One zygote.

    Raises:
        ZygoteLost: it did not start; the message says why.
    """

    def __init__(self, engine: Engine) -> None:
        self._answer_due: float | None = None
        self._owner = os.getpid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _start(theirs.fileno(), engine)
        try:
            self._answer(_START_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ours(self) -> bool:
        """Whether this process started it: a forked copy of the owner must leave it to the owner."""
        return self._owner == os.getpid()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(
        self,
        job: dict[str, Any],
        head: dict[str, Any],
        body: bytes,
        *,
        descriptors: Sequence[int],
        max_bytes: int,
        cancellation: Cancellation | None = None,
    ) -> Ending:
        """One child: gets ``head`` and ``body``, gives one frame of at most ``max_bytes``.

        Raises:
            ZygoteLost: this zygote cannot be used any more.
        """
        cancellation = cancellation or Cancellation()
        self._settle()
        started = time.monotonic()
        self._answer_due = deadline = started + job["kill_after_seconds"] + _ANSWER_SECONDS
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._ask(job, [theirs.fileno(), *descriptors])
            # The zygote ends a child whose channel nobody listens to any more.
            try:
                with cancellation.stopping(lambda: _hang_up(ours)):
                    untrusted_frame = _exchange(ours, encode(head, body), max_bytes=max_bytes, deadline=deadline)
                # The child's end, some 2 ms of the kernel's work, is not waited for: the answer is read before the next job.
                return Ending(*untrusted_frame, exit_code=0, wall_ms=(time.monotonic() - started) * 1000)
            except (Hangup, OSError):
                nonsense = False
            except ProtocolError:
                nonsense = True
        seen = self._settle()
        return Ending(
            head={},
            blobs=[],
            exit_code=seen["exit"],
            killed=seen["killed"] and not cancellation.cancelled,
            cancelled=cancellation.cancelled,
            nonsense=nonsense,
            known_instructions=seen["instructions"],
            known_memory_bytes=seen["memory_bytes"],
            wall_ms=seen["wall_ms"],
            cpu_ms=seen["cpu_ms"],
        )

    def _settle(self) -> dict[str, Any]:
        """Wait until the last child is gone; what the zygote saw of it."""
        if self._answer_due is None:
            return {}
        deadline, self._answer_due = self._answer_due, None
        return self._answer(deadline - time.monotonic())

    def close(self) -> None:
        """End the zygote, and with it the child that it may have; waits until it is gone."""
        self._control.close()
        if not self.ours:
            self._process.returncode = 0  # so that subprocess does not wait for a child that is not ours
            return
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, job: dict[str, Any], descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(job).encode()], descriptors)
        except OSError as error:
            self._answer(0)  # its last words, if it had any
            raise ZygoteLost(f"it does not take jobs ({error.strerror})") from None

    def _answer(self, timeout_seconds: float) -> dict[str, Any]:
        self._control.settimeout(max(0.001, timeout_seconds))
        try:
            message = self._control.recv(CONTROL_BYTES_MAX)
        except OSError:
            raise ZygoteLost("it does not answer") from None
        if not message:
            raise ZygoteLost("it ended")
        answer: dict[str, Any] = json.loads(message)
        if "error" in answer:
            raise ZygoteLost(f"it ended by {answer['error']}")
        return answer


def _exchange(channel: socket.socket, frame: bytes, *, max_bytes: int, deadline: float) -> tuple[dict[str, Any], list[bytes]]:
    """Send the job and read the child's frame.

    Raises:
        Hangup, OSError: the child ended without one.
        ProtocolError: it sent something else.
    """
    channel.settimeout(max(0.001, deadline - time.monotonic()))
    # A child that ends early closes its socket: what it had to say may still be there.
    with contextlib.suppress(OSError):
        channel.sendall(frame)
    return receive(channel, max_bytes=max_bytes, deadline=deadline)


def _hang_up(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)


def _start(control_fd: int, engine: Engine) -> subprocess.Popen[bytes]:
    main_thread = threading.current_thread() is threading.main_thread()
    root = str(Path(offchainvm.__file__).parent.parent)
    paths = [root, *(path for path in engine.paths if path != root)]
    arguments = json.dumps([paths, control_fd, os.getpid(), main_thread, engine.name, engine.metering])
    # -I -S: nothing of the user's own start-up files; the empty environment: nothing of this process's secrets.
    return subprocess.Popen(
        [engine.python, "-I", "-S", "-X", "utf8", "-c", _MAIN, arguments],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(control_fd,),
        start_new_session=True,
    )
