"""Payloads that wait for a signature, and transactions in flight.

A row walks WAITING → TAKEN → SIGNED → SETTLED. The transaction's row is authoritative: a job named in one is never
WAITING. Nothing here knows a key's secret or the chain: callers bring signed bytes, heights and verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis

from offchainvm.jobs.record import Verdict

DEFAULT_RETENTION_SECONDS = 72 * 3600


@dataclass(frozen=True)
class Row:
    """One payload, taken to be signed. ``arguments`` are the exact bytes, the same in every transaction."""

    data_id: str
    arguments: bytes
    deadline_height: int | None
    attempts: int
    """Transactions that carried it before."""
    take: str
    """Who took it: ``store`` refuses rows of a take that has run out."""
    report: str = ""
    """Its report, opaque here: in the journal it lets a lost record be reported all the same."""
    replaces: tuple[str, int] | None = None
    """Public key and nonce of the dead transaction that carried it last: a replacement uses both again where it can."""


@dataclass(frozen=True)
class Transaction:
    """A signed transaction that may land; ``data_ids`` in the order of its actions, ``attempts`` sendings begun."""

    hash: str
    public_key: str
    nonce: int
    block_height: int
    """Height of the block whose hash it names."""
    signed: bytes
    data_ids: tuple[str, ...]
    attempts: int = 0
    stored_at: float = 0.0


@dataclass(frozen=True)
class RowOutcome:
    """What became of one action. ``verdict`` None: WAITING again, and alone in its next transaction where ``error`` blames it."""

    verdict: Verdict | None
    error: str | None = None


class Resolves:
    """The rows of ``near.md``; every change one script."""

    def __init__(self, redis: Redis, *, retention_seconds: int = DEFAULT_RETENTION_SECONDS) -> None: ...

    def take(self, count: int, *, lease_seconds: float, final_height: int, token: str | None = None) -> list[Row]:
        """Rows to sign, oldest deadline first, at most ``count``; clears the doorbell first.

        Rows whose deadline ``final_height`` has reached are settled EXPIRED instead. After a failed batch fewer
        come at once; a row that an error blamed comes alone.
        """

    def give_back(self, rows: Sequence[Row]) -> None:
        """Rows that were not signed: WAITING again, nothing counted."""

    def store(self, tx: Transaction, rows: Sequence[Row], *, token: str | None = None) -> bool:
        """Keep a transaction before its first byte is sent; False when any row is no longer TAKEN by its take (then: send nothing)."""

    def in_flight(self, public_key: str | None = None) -> list[Transaction]:
        """Transactions that may still land, by key and nonce."""

    def in_flight_count(self, public_key: str) -> int: ...

    def attempted(self, hash: str) -> int:
        """Called before each sending; the number of sendings begun, 0 when the transaction is not in flight any more (send nothing)."""

    def settle(self, hash: str, outcomes: Sequence[RowOutcome], *, token: str | None = None) -> bool:
        """End a transaction whose outcome is final, one outcome an action; False when it was not in flight any more."""

    def dead(self, hash: str, attempts_seen: int, *, token: str | None = None) -> bool:
        """End a transaction that provably cannot land: rows WAITING again. False when ``attempts`` moved since the evidence."""

    def restore(self, tx: Transaction, rows: Sequence[Row]) -> bool:
        """Put a journalled transaction back as in flight, whatever the records say, unless its jobs are settled."""

    def hashes(self, data_id: str) -> list[str]:
        """Every transaction hash that ever carried this job's payload, oldest first."""

    def waiting_count(self) -> int: ...

    def ring(self) -> None:
        """Ring the doorbell, unless a ring is pending."""


def journal_body(tx: Transaction, rows: Sequence[Row]) -> bytes:
    """What the journal keeps of a stored transaction."""


def parse_journal_body(body: bytes) -> tuple[Transaction, list[Row]]:
    """The inverse of ``journal_body``."""
