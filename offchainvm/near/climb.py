"""Whether a height can be true: a chain climbs no faster than it makes blocks."""

from __future__ import annotations

import time

SLACK_HEIGHTS = 100
"""Nodes behind one address may be so far apart; less than a request has until its deadline."""
HEIGHTS_A_SECOND = 20
"""More than any chain makes."""


class Climb:
    """The height to believe, by all that were told: one that is out of reach counts when the next one bears it out."""

    def __init__(self) -> None:
        self._height, self._at = -1, 0.0
        self._doubted: tuple[int, float] | None = None

    def judge(self, told: int) -> int:
        """The height to believe now: ``told``, or the one before, since nodes differ and one may be wrong."""
        now = time.monotonic()
        reached = self._height < 0 or _in_reach(told, self._height, now - self._at)
        if reached or (self._doubted is not None and _in_reach(told, self._doubted[0], now - self._doubted[1])):
            self._height, self._at, self._doubted = told, now, None
        elif abs(told - self._height) > SLACK_HEIGHTS:
            self._doubted = told, now
        return self._height


def _in_reach(height: int, before: int, elapsed_seconds: float) -> bool:
    return before <= height <= before + SLACK_HEIGHTS + HEIGHTS_A_SECOND * elapsed_seconds
