"""The height to believe, by all that were told: nodes behind one address are apart, and one of them may be wrong."""

from __future__ import annotations

APART_HEIGHTS = 10
"""So far apart are nodes that keep up with the chain."""
AT_ONCE_HEIGHTS, HEIGHTS_A_SECOND = 100, 20
"""A climb beyond these is told twice before it is believed."""
MISSED_SECONDS = 60.0


class Climb:
    """It never steps down, except when for a minute nothing bore out how high it is.

    A jump counts when the next answer is about as high: a chain that makes blocks faster than others is one look behind.
    """

    def __init__(self) -> None:
        self._height, self._borne_out_at = -1, float("-inf")
        self._doubted: int | None = None

    def judge(self, told: int, now: float) -> int:
        """The height to believe at ``now`` (monotonic seconds): ``told``, or the one before."""
        since, doubted = now - self._borne_out_at, self._doubted
        self._doubted = None
        if told <= self._height:
            believed = since > MISSED_SECONDS and not _bears_out(told, self._height)
        else:
            in_reach = told <= self._height + AT_ONCE_HEIGHTS + HEIGHTS_A_SECOND * since
            believed = in_reach or (doubted is not None and _bears_out(told, doubted))
            self._doubted = None if believed else told
        if believed:
            self._height = told
        if believed or _bears_out(told, self._height):
            self._borne_out_at = now
        return self._height


def _bears_out(told: int, height: int) -> bool:
    return told >= height - APART_HEIGHTS
