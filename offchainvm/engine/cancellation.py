"""The wish to end one execution, said from another thread: before it began, in its middle, or too late to matter."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Cancellation:
    """Belongs to one execution, so that it can never end another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._stop: Callable[[], object] | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End the execution, now or as soon as it begins; returns at once, and may be said twice."""
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
