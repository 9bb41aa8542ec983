"""What a worker does while a container runs: it shows the log as it comes, and waits for the end, a deadline or silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import requests

from offchainvm.compiler import logtext
from offchainvm.logs import get_logger

if TYPE_CHECKING:
    from docker.models.containers import Container

log = get_logger()
FOLLOWED_LINES = 20_000
"""A flood is not followed any further: it would cost the worker as much as the build."""
OnLine = Callable[[str], None]


class Follower:
    """Follows a container's log in a thread, so that silence is seen and lines are shown as they come."""

    def __init__(self, container: Container, on_line: OnLine) -> None:
        self.last_output_at = time.monotonic()
        self.ended = False
        """Nobody follows any more, for whatever reason: what is printed now is not seen."""
        self.complete = False
        """The log was followed until the engine gave no more of it."""
        self._last_line = ""
        self._on_line = on_line
        self._stream = container.logs(stream=True, follow=True)
        self._thread = threading.Thread(target=self._work, name="build-log", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The engine ends the stream when the container ends; a stuck one is closed under the thread.
        self._thread.join(timeout=5)
        self._stream.close()
        # docker-py closes the socket alone: a response that was half read would complain of it when it is collected.
        with suppress(ValueError):
            self._stream._response.close()  # type: ignore[attr-defined]  # its stubs do not know it

    def saw(self, untrusted_end: bytes) -> bool:
        """Whether it was followed to this end of the log: when the engine rotates a log, who follows it may lose lines."""
        return self.complete and logtext.clean_text(untrusted_end, lines=1) == self._last_line

    def _work(self) -> None:
        try:
            self._follow()
        except Exception as error:
            # The stream was closed under us, the engine went away, or the listener failed: the build goes on.
            log.warning("The log of a build is not followed any more.", action="unfollow_build", error=repr(error))
        finally:
            self.ended = True

    def _follow(self) -> None:
        splitter, shown = logtext.LineSplitter(), 0
        for untrusted_chunk in self._stream:
            self.last_output_at = time.monotonic()
            for line in splitter.feed(untrusted_chunk):
                self._show(line)
                shown += 1
            if shown > FOLLOWED_LINES:
                return
        for line in splitter.finish():
            self._show(line)
        self.complete = True

    def _show(self, line: str) -> None:
        self._last_line = line
        self._on_line(line)


def wait(container: Container, deadline: float, idle_seconds: float, follower: Follower) -> str:
    """Wait for the end; what the worker has to end it for (``timeout``, ``no_output``), else an empty string."""
    silent = False
    while True:
        now = time.monotonic()
        if now >= deadline:
            return "timeout"
        # Twice in a row: who was frozen has yet to read what was printed meanwhile.
        was_silent, silent = silent, not follower.ended and now - follower.last_output_at > idle_seconds
        if silent and was_silent:
            return "no_output"
        try:
            container.wait(timeout=max(0.05, min(1.0, deadline - now)))
        except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError):
            # The client says "connection error" for a wait that timed out: the next call tells a dead engine from it.
            container.reload()
        else:
            return ""
