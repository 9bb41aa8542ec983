"""How long something usually takes, learned from when it was found: the next first look comes at about that time.

Looks cost calls of an RPC endpoint, and time that nobody looks costs throughput. Nothing here knows how fast the
chain is: it may make a block in 0.6 s, or answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.02, 3.0
"""A chain that stood still for a minute is not a slow chain."""
_AGAIN_SHARE, _AGAIN_LONGEST_SECONDS = 0.2, 0.5


@dataclass
class Pace:
    """One kind of wait."""

    first_seconds: float
    """From the beginning of a wait to the first look, as it is believed now."""
    boldness: float = 0.002
    """What a first look finds was there before it: the next one comes earlier by this share, and by as much more each time, until
    one comes too early. The bolder, the more looks, and the sooner what came is found."""
    _hits: int = 0
    _row: int = 0
    """Turns in a row whose first looks found everything."""
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

    def early(self, waited_seconds: float) -> None:
        """It is on its way, and takes longer than so."""
        self.first_seconds = max(self.first_seconds, min(_LONGEST_SECONDS, waited_seconds))

    def learn(self) -> None:
        """Take in what one turn found: one block, however many transactions it held."""
        if self._late:
            self._row, self.first_seconds = 0, min(_LONGEST_SECONDS, max(self._late))
        elif self._hits:
            self._row += 1
            self.first_seconds = max(_SHORTEST_SECONDS, (1 - self.boldness * self._row) * self.first_seconds)
        self._hits, self._late = 0, []


@dataclass
class Wait:
    """One wait, and the looks that it took so far; times are monotonic seconds."""

    pace: Pace
    since: float
    looks: int = 0
    pause_until: float = float("-inf")

    @property
    def due_at(self) -> float:
        """When to look (again)."""
        return max(self.since + self.pace.first_seconds, self.pause_until)

    def looked(self, now: float) -> None:
        """A look: without ``found`` after it, another one comes a while later."""
        self.looks += 1
        self.put_off(now + self.pace.again_seconds(now - self.since))

    def put_off(self, until: float) -> None:
        """No look before ``until``."""
        self.pause_until = max(self.pause_until, until)

    def found(self, now: float) -> None:
        """The last look found it."""
        self.pace.found(now - self.since, looks=self.looks)

    def early(self, now: float) -> None:
        """The last look found it on its way: what began later is not looked for any sooner than this."""
        self.pace.early(now - self.since)
