"""Payloads that wait for a signature, and transactions in flight.

A row walks WAITING → TAKEN → SIGNED → SETTLED. The transaction's row is authoritative: a job named in one is never
WAITING. Nothing here knows a key's secret or the chain: callers bring signed bytes, heights and verdicts.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from redis import Redis

from offchainvm.errors import Unavailable
from offchainvm.jobs.overview import YOCTO_A_UNIT
from offchainvm.jobs.record import fixed_text, parse_report
from offchainvm.jobs.rows import Row, RowOutcome, Transaction
from offchainvm.jobs.server import Server, key, milliseconds, new_token, plain, text
from offchainvm.logs import get_logger
from offchainvm.redis_calls import reaching_redis

__all__ = ["JournalAwaited", "Resolves", "Row", "RowOutcome", "Transaction"]

log = get_logger()


class JournalAwaited(Unavailable):
    """Redis was started anew, and a host that signs has not replayed its journal since: nothing is taken before."""

    code = "journal_awaited"


class Resolves:
    """The rows of ``near.md``; every change one script. All raise ``errors.Unavailable`` while Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._server = Server(redis)

    def take(self, count: int, *, lease_seconds: float, final_height: int, token: str | None = None) -> list[Row]:
        """Rows to sign, oldest deadline first, at most ``count``; clears the doorbell first.

        Rows that could not be executed before their deadline any more, by ``final_height``, are settled EXPIRED instead; where
        that was all that one call looks at, it rings, and live ones come with the next. A deadline that nobody knows begins now.
        After a failed batch fewer come at once; a row that an error blamed comes alone.

        Raises:
            JournalAwaited: see ``replayed``.
        """
        token = token or new_token()
        found = self._server.run("take", token, count, milliseconds(lease_seconds), final_height)
        if isinstance(found, str):
            raise JournalAwaited("journal", f"Redis was started anew: the journal of host {found} comes first", retry_after_seconds=1.0)
        return [_row(token, values) for values in found]

    def replayed(self, host: str, run_id: str) -> str:
        """Say that a host which signs is alive and has replayed its journal since the start ``run_id`` of Redis ('' = since none).

        Returns the id of the present start: while it is another, ``take`` gives nobody anything, for at most 20 s.
        """
        return str(self._server.run("replayed", host, run_id))

    def give_back(self, rows: Sequence[Row]) -> int:
        """Rows that were not signed are WAITING again, nothing counted; how many still were of their take."""
        return int(self._server.run("give_back", *_takes(rows))) if rows else 0

    def store(self, tx: Transaction, rows: Sequence[Row], *, token: str | None = None) -> bool:
        """Keep a transaction before its first byte is sent; ``rows`` in the order of its actions.

        False when any row is no longer TAKEN by its take: then nothing was kept, and nothing may be sent.
        """
        if tuple(row.data_id for row in rows) != tx.data_ids:
            raise ValueError("a transaction and its rows must name the same jobs in the same order")
        return bool(self._server.run("store", token or new_token(), *_signed(tx), *_takes(rows)))

    def in_flight(self, public_key: str | None = None) -> list[Transaction]:
        """Transactions that may still land, by key and nonce."""
        return [_transaction(values) for values in self._server.run("flights", public_key or "")]

    def still_in_flight(self, hashes: Sequence[str]) -> list[str]:
        """Those of ``hashes`` whose transaction may still land."""
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=False)
            for hash in hashes:
                pipe.exists(key("tx", hash))
            return [hash for hash, found in zip(hashes, pipe.execute(), strict=True) if found]

    def in_flight_count(self, public_key: str) -> int:
        """How much of a key's window is used: what is in flight, and whose nonce no block has used yet."""
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=True)
            in_flight, included = pipe.zcard(key("flight", public_key)).scard(key("aboard", public_key)).execute()
        return int(in_flight) - int(included)

    def mark_included(self, hash: str) -> bool:
        """A block has used its nonce: its slot is free, though it is in flight until it is final. True the first time."""
        return bool(self._server.run("included", hash))

    def attempted(self, hash: str) -> int:
        """Call it before each sending: the number of sendings begun, or 0 when it is not in flight any more (then send nothing)."""
        return int(self._server.run("attempted", hash))

    def settle(self, hash: str, outcomes: Sequence[RowOutcome], *, burnt_yocto: int = 0, token: str | None = None) -> bool:
        """End a transaction whose outcome is final, one outcome an action; False when it was not in flight any more.

        ``burnt_yocto``: the tokens it cost, for ``Overview.spent``.
        """
        pairs = [part for one in outcomes for part in ("" if one.verdict is None else one.verdict.value, plain(one.error or ""))]
        answer = int(self._server.run("settle", token or new_token(), hash, burnt_yocto // YOCTO_A_UNIT, *pairs))
        if answer < 0:
            raise ValueError(f"{len(outcomes)} outcomes for a transaction with another number of actions")
        return bool(answer)

    def dead(self, hash: str, attempts_seen: int, *, token: str | None = None) -> bool:
        """End a transaction that provably cannot land, its rows WAITING again.

        ``attempts_seen``: its attempts before the evidence was gathered; False when they moved since (or it is gone).
        """
        return bool(self._server.run("dead", token or new_token(), hash, attempts_seen))

    def restore(self, tx: Transaction, rows: Sequence[Row]) -> bool:
        """Put a journalled transaction back as in flight, whatever the records say; its payloads win over what nobody signed yet.

        True: it is in flight now (put back, or never lost): keep the journal's entry. False: it is over, the entry can go:
        all its jobs are settled, or Redis remembers that it ended, or another payload of one of them was signed since.
        """
        parts = [part for row in rows for part in _restored(row)]
        answer = self._server.run("restore", *_signed(tx), tx.attempts, *parts)
        if answer == "conflict":
            sentence = "A journalled transaction has another answer than one that was signed since, so it is never sent."
            log.error(sentence, action="refuse_restore", transaction=tx.hash, data_ids=tx.data_ids)
        return answer not in {"over", "conflict"}

    def hashes(self, data_id: str) -> list[str]:
        """Every transaction that ever carried this job's payload, oldest first: ask for all before calling a resume foreign."""
        with reaching_redis():
            value = self._redis.hget(key("job", data_id), "hashes")
        return [] if value is None else text(value).split()

    def accepted_at(self, data_ids: Sequence[str]) -> list[float]:
        """When these jobs were accepted, in seconds since 1970; without those whose record is gone."""
        with reaching_redis():
            pipe = self._redis.pipeline(transaction=False)
            for data_id in data_ids:
                pipe.hget(key("job", data_id), "accepted")
            return [int(value) / 1000 for value in pipe.execute() if value is not None]

    def answer_bell(self) -> None:
        """The doorbell was heard: who comes with a row from now on, or frees a window, rings again.

        ``take`` does so too, but whoever finds all windows full never takes.
        """
        with reaching_redis():
            self._redis.delete(key("bell"))

    def waiting_count(self) -> int:
        """Rows that nobody has taken."""
        with reaching_redis():
            return int(self._redis.zcard(key("waiting")))

    def tell_sent(self) -> None:
        """Transactions were just sent: the settler in ``await_sent`` looks now."""
        with reaching_redis():
            self._redis.pipeline(transaction=False).lpush(key("sent"), 1).ltrim(key("sent"), 0, 0).execute()

    def await_sent(self, seconds: float) -> None:
        """Return when something was sent, at the latest after ``seconds``. Who dies before telling is found by that."""
        with reaching_redis():
            self._redis.blpop([key("sent")], timeout=seconds)

    def ring(self) -> None:
        """Ring the doorbell, unless a ring is pending."""
        self._server.run("ring")


def _row(take: str, values: Sequence[str]) -> Row:
    data_id, arguments, deadline, tries, report = values
    return Row(
        data_id=data_id,
        arguments=base64.b64decode(arguments),
        deadline_height=int(deadline) if deadline else None,
        attempts=int(tries),
        take=take,
        report=report,
    )


def _transaction(values: Sequence[str]) -> Transaction:
    hash, public_key, nonce, height, signed, ids, attempts, stored = values
    return Transaction(
        hash=hash,
        public_key=public_key,
        nonce=int(nonce),
        block_height=int(height),
        signed=base64.b64decode(signed),
        data_ids=tuple(ids.split()),
        attempts=int(attempts),
        stored_at=int(stored) / 1000,
    )


def _signed(tx: Transaction) -> tuple[str, str, int, int, str]:
    return tx.hash, tx.public_key, tx.nonce, tx.block_height, base64.b64encode(tx.signed).decode("ascii")


def _takes(rows: Sequence[Row]) -> list[str]:
    return [part for row in rows for part in (row.data_id, row.take)]


def _restored(row: Row) -> tuple[str | int, ...]:
    """One row as ``restore.lua`` takes it, with a minimal record for a job that Redis forgot."""
    request_id = parse_report(row.report).request_id if row.report else None
    fixed = fixed_text(data_id=row.data_id, request_id=request_id or 0)
    deadline = "" if row.deadline_height is None else row.deadline_height
    return (
        row.data_id,
        base64.b64encode(row.arguments).decode("ascii"),
        deadline,
        row.report,
        fixed,
        "" if request_id is None else request_id,
    )
