"""How long something usually takes, learned from when it was found: the next first look comes at about that time.

Looks cost calls of an RPC endpoint, and time that nobody looks costs throughput. Nothing here knows how fast the
chain is: it may make a block in 0.6 s, or answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.02, 3.0
"""A chain that stood still for a minute is not a slow chain."""
_EARLIER = 0.97
"""What a first look finds was there before it: the next one comes a little earlier, until one comes too early."""
_AGAIN_SHARE, _AGAIN_LONGEST_SECONDS = 0.25, 1.0


@dataclass
class Pace:
    """One kind of wait."""

    first_seconds: float
    """From the beginning of a wait to the first look, as it is believed now."""
    _hits: int = 0
    _late: list[float] = field(default_factory=list)

    def again_seconds(self, waited_seconds: float) -> float:
        """The pause after a look that found nothing, ``waited_seconds`` after the wait began."""
        return min(_AGAIN_LONGEST_SECONDS, max(_SHORTEST_SECONDS, _AGAIN_SHARE * waited_seconds))

    def found(self, waited_seconds: float, *, looks: int) -> None:
        """It came: found by so many looks, the last ``waited_seconds`` after the wait began."""
        if looks > 1:
            self._late.append(waited_seconds)
        else:
            self._hits += 1

    def learn(self) -> None:
        """Take in what one turn found: one block, however many transactions it held."""
        if self._late:
            self.first_seconds = min(_LONGEST_SECONDS, max(self._late))
        elif self._hits:
            self.first_seconds = max(_SHORTEST_SECONDS, _EARLIER * self.first_seconds)
        self._hits, self._late = 0, []
