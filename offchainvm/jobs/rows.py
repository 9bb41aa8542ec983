"""The values of resolving: rows, transactions, outcomes, and how the journal keeps them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from offchainvm.jobs.record import Verdict


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
    """Its report, opaque here: out of the journal it lets a job be reported whose record is lost."""


@dataclass(frozen=True)
class Transaction:
    """A signed transaction that may land; ``data_ids`` in the order of its actions."""

    hash: str
    public_key: str
    nonce: int
    block_height: int
    """Height of the block whose hash it names."""
    signed: bytes
    data_ids: tuple[str, ...]
    attempts: int = 0
    """Sendings begun."""
    stored_at: float = 0.0
    """Seconds since 1970 by Redis' clock."""


@dataclass(frozen=True)
class RowOutcome:
    """What became of one action. ``verdict`` None: WAITING again, and alone in its next transaction where ``error`` blames it."""

    verdict: Verdict | None
    error: str | None = None


def journal_body(tx: Transaction, rows: Sequence[Row]) -> bytes:
    """What the journal keeps of a transaction before it is sent: enough to settle its jobs without their records."""
    transaction = {**asdict(tx), "signed": _encode(tx.signed)}
    kept = [{**asdict(row), "arguments": _encode(row.arguments)} for row in rows]
    return json.dumps({"v": 1, "transaction": transaction, "rows": kept}, separators=(",", ":")).encode()


def parse_journal_body(body: bytes) -> tuple[Transaction, list[Row]]:
    """The transaction and rows that ``journal_body`` wrote; unknown fields are ignored."""
    values = json.loads(body)
    tx = _known(Transaction, values["transaction"])
    tx.update(signed=base64.b64decode(tx["signed"]), data_ids=tuple(tx["data_ids"]))
    return Transaction(**tx), [_parse_row(row) for row in values["rows"]]


def _parse_row(values: dict[str, Any]) -> Row:
    row = _known(Row, values)
    row.update(arguments=base64.b64decode(row["arguments"]))
    return Row(**row)


def _known(kind: type[Row] | type[Transaction], values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
