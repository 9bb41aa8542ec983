"""What this host signed, on its own disk: a Redis that forgot its last second gets it back before anybody signs anew."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.rows import Row, Transaction, journal_body, parse_journal_body
from offchainvm.journal import Journal
from offchainvm.near.nonces import Nonces

KIND = "transaction"
LOOK_EVERY_SECONDS = 5.0


class SignedJournal:
    """The journal of transactions; made for one thread at a time."""

    def __init__(self, journal: Journal, resolves: Resolves) -> None:
        self._journal, self._resolves = journal, resolves
        self._replayed_since = ""
        self._looked_at = time.monotonic()
        self._over: set[str] = set()
        self.floors: dict[str, int] = {}
        """By public key, the highest nonce replayed that no later one may be at or under: ``raise_floors`` sees to that."""

    def keep(self, signed: Iterable[tuple[Transaction, Sequence[Row]]]) -> None:
        """Keep transactions and their rows on disk, with one sync, before the first byte is sent."""
        self._journal.extend((KIND, transaction.hash, journal_body(transaction, rows)) for transaction, rows in signed)

    def drop(self, hashes: Sequence[str]) -> None:
        """Forget transactions that were not stored, so that nobody sends them; but what a neighbour restored meanwhile is in flight."""
        self._journal.discard(set(hashes).difference(self._resolves.still_in_flight(hashes)))

    def replay(self) -> None:
        """Bring back what a Redis that was started anew may have forgotten, and tell the other hosts when it is done."""
        run_id = self._resolves.replayed(self._journal.home, self._replayed_since)
        if run_id == self._replayed_since:
            return
        for _kind, _key, body in self._journal.entries_of_others():
            self._restore(body)
        for _kind, key, body in self._journal.entries():
            if not self._restore(body):
                self._journal.discard([key])
        self._replayed_since = run_id
        self._resolves.replayed(self._journal.home, run_id)

    def raise_floors(self, nonces: Nonces) -> None:
        """Let no nonce be given that a replayed transaction has."""
        for public_key, nonce in list(self.floors.items()):
            nonces.raise_floor(public_key, nonce)
            del self.floors[public_key]

    def forget_settled(self) -> None:
        """Every few seconds, drop what was over at the last look already.

        Not what is over for the first time: a Redis that forgets its last second would forget that too.
        """
        if time.monotonic() - self._looked_at < LOOK_EVERY_SECONDS:
            return
        kept = {key for _kind, key, _body in self._journal.entries()}
        over = kept.difference(self._resolves.still_in_flight(sorted(kept)))
        self._journal.discard(over & self._over)
        self._over, self._looked_at = over, time.monotonic()

    def _restore(self, body: bytes) -> bool:
        transaction, rows = parse_journal_body(body)
        self.floors[transaction.public_key] = max(transaction.nonce, self.floors.get(transaction.public_key, 0))
        return self._resolves.restore(transaction, rows)
