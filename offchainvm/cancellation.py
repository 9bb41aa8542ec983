"""The wish to end one execution or build, said from another thread: before it began, in its middle, or too late to matter."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_Work = TypeVar("_Work")


class Cancellation:
    """Belongs to one piece of work, so that it can never end another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._stop: Callable[[], object] | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End the work, now or as soon as it begins; returns at once, and may be said twice."""
        with self._lock:
            self._cancelled = True
            if self._stop is not None:
                self._stop()

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """For whoever works: have ``stop`` called by ``cancel`` while the block runs, at once when that was said before."""
        with self._lock:
            self._stop = stop
            if self._cancelled:
                stop()
        try:
            yield
        finally:
            with self._lock:
                self._stop = None


class InHand(Generic[_Work]):
    """Which piece of work a thread has in hand, for whoever wants to end that and no other."""

    def __init__(self) -> None:
        self._now: tuple[_Work, Cancellation] | None = None

    def begin(self, work: _Work) -> Cancellation:
        """``work`` is in hand from now on; what was before it is over."""
        cancellation = Cancellation()
        self._now = work, cancellation
        return cancellation

    def cancel(self, work: _Work) -> None:
        """End ``work``, should it be in hand still."""
        now = self._now
        if now is not None and now[0] is work:
            now[1].cancel()
