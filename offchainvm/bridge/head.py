"""The newest final height, kept fresh beside the work: nobody waits for the chain to learn it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from offchainvm.bridge.link import Link, turns
from offchainvm.near.climb import Climb

_EVERY_SECONDS = 2.0
_STALE_SECONDS = 12.0
"""A deadline that is counted from an old height would come too early."""


class Head:
    """The final height of the last seconds, or None while the chain cannot be asked."""

    def __init__(self, fetch: Callable[[], int]) -> None:
        self._fetch = fetch
        self._height, self._at = 0, float("-inf")
        self._climb = Climb()
        self._link = Link("NEAR RPC")

    def height(self) -> int | None:
        return self._height if time.monotonic() - self._at <= _STALE_SECONDS else None

    def run(self, stop: threading.Event) -> None:
        """Ask every few seconds until ``stop``."""
        turns(stop, self._link, self.look)

    def look(self) -> float:
        """Ask once."""
        began = time.monotonic()
        self._height, self._at = self._climb.judge(self._fetch(), began), began
        return _EVERY_SECONDS
