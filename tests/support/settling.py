"""Doubles of what the settler leans on, and a settler over them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

from offchainvm.bridge.evidence import Examiner
from offchainvm.bridge.settler import Settler
from offchainvm.bridge.verdicts import Verdicts
from offchainvm.jobs.resolves import RowOutcome, Transaction
from offchainvm.near.rpc import AccessKey, RpcUnavailable, UnknownTransaction
from offchainvm.near.transaction import BlockRef

KEY, OPERATOR = "ed25519:operator", "operator.near"
FINAL = {"final_execution_status": "FINAL"}


def succeeded() -> dict[str, Any]:
    return {**FINAL, "status": {"SuccessValue": ""}}


def failed(text: str, index: int | None = 0) -> dict[str, Any]:
    return {**FINAL, "status": {"Failure": {"ActionError": {"index": index, "kind": {"FunctionCallError": {"ExecutionError": text}}}}}}


def invalid_in_chunk() -> dict[str, Any]:
    return {**FINAL, "status": {"Failure": {"InvalidTxError": {"InvalidNonce": {"tx_nonce": 5, "ak_nonce": 77}}}}}


def pending() -> dict[str, Any]:
    return {"final_execution_status": "INCLUDED", "status": {"Started": None}}


@dataclass
class FakeRpc:
    """Answers by hash; what it does not know it calls unknown."""

    endpoint: str = "http://node#1"
    answers: dict[str, Any] = field(default_factory=dict)
    check: Any = None
    """What a check of the bytes says; None: unknown, so valid."""
    key: AccessKey | None = field(default_factory=lambda: AccessKey(nonce=1, block_height=100, full_access=False))
    head: int = 100
    sent: list[bytes] = field(default_factory=list)
    away: bool = False
    config_error: Exception | None = None
    """What the provider says instead of the chain's limits."""
    other: FakeRpc | None = None
    """Another endpoint of the same client."""
    calls: list[str] = field(default_factory=list)
    """Names of the looks, in order."""

    def pinned(self) -> FakeRpc:
        return self

    def elsewhere(self) -> FakeRpc:
        return self.other or self

    def tx(self, transaction: str | bytes, *, sender_id: str) -> dict[str, Any]:
        self.calls.append("tx")
        if self.away:
            raise RpcUnavailable(self.endpoint, "unreachable")
        answer = self.check if isinstance(transaction, bytes) else self.answers.get(transaction)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise UnknownTransaction("unknown", cause="UNKNOWN_TRANSACTION")
        return cast("dict[str, Any]", answer)

    def send_tx(self, signed: bytes) -> None:
        if self.away:
            raise RpcUnavailable(self.endpoint, "unreachable")
        self.sent.append(signed)

    def access_key(self, account_id: str, public_key: str) -> AccessKey | None:
        return self.key

    def key_nonces(self, account_id: str, public_keys: set[str]) -> dict[str, int]:
        self.calls.append("key_nonces")
        if self.away:
            raise RpcUnavailable(self.endpoint, "unreachable")
        return {} if self.key is None else dict.fromkeys(public_keys, self.key.nonce)

    def final_block(self) -> BlockRef:
        return BlockRef(self.head, "hash")

    def protocol_config(self) -> Any:
        self.calls.append("protocol_config")
        if self.config_error is not None:
            raise self.config_error
        return SimpleNamespace(transaction_validity_blocks=1000)


@dataclass
class FakeResolves:
    """Transactions in flight, and what was done with them."""

    flights: dict[str, Transaction] = field(default_factory=dict)
    settled: dict[str, list[RowOutcome]] = field(default_factory=dict)
    job_age_seconds: float = 30.0
    dead_hashes: list[str] = field(default_factory=list)
    earlier: dict[str, list[str]] = field(default_factory=dict)
    included_hashes: list[str] = field(default_factory=list)
    rings: int = 0
    waiting: int = 0

    def add(self, hash: str = "h1", nonce: int = 5, attempts: int = 1, jobs: tuple[str, ...] = ("job",)) -> Transaction:
        self.flights[hash] = Transaction(hash, KEY, nonce, 50, hash.encode(), jobs, attempts, stored_at=time.time() - 2)
        return self.flights[hash]

    def in_flight(self, public_key: str = "") -> list[Transaction]:
        found = (flight for flight in self.flights.values() if public_key in {"", flight.public_key})
        return sorted(found, key=lambda flight: flight.nonce)

    def attempted(self, hash: str) -> int:
        if hash not in self.flights:
            return 0
        self.flights[hash] = replace(self.flights[hash], attempts=self.flights[hash].attempts + 1)
        return self.flights[hash].attempts

    def settle(self, hash: str, outcomes: list[RowOutcome], *, burnt_yocto: int = 0) -> bool:
        self.settled[hash] = outcomes
        return self.flights.pop(hash, None) is not None

    def accepted_at(self, data_ids: Sequence[str]) -> list[float]:
        return [time.time() - self.job_age_seconds] * len(data_ids)

    def dead(self, hash: str, attempts_seen: int) -> bool:
        if self.flights[hash].attempts != attempts_seen:
            return False
        self.dead_hashes.append(hash)
        return self.flights.pop(hash) is not None

    def mark_included(self, hash: str) -> bool:
        self.included_hashes.append(hash)
        return True

    def hashes(self, data_id: str) -> list[str]:
        return self.earlier.get(data_id, [])

    def waiting_count(self) -> int:
        return self.waiting

    def ring(self) -> None:
        self.rings += 1


@dataclass
class FakeNonces:
    holds: dict[str, str] = field(default_factory=dict)
    floors: list[int] = field(default_factory=list)

    def hold(self, public_key: str, reason: str) -> bool:
        return self.holds.setdefault(public_key, reason) is reason

    def disable(self, public_key: str, why: str) -> bool:
        before = self.holds.get(public_key, "")
        self.holds[public_key] = f"refused: {why}"
        return not before.startswith("refused: ")

    def unhold(self, public_key: str, kind: str) -> bool:
        return self.holds.get(public_key, "").startswith(kind) and self.holds.pop(public_key, None) is not None

    def held(self) -> dict[str, str]:
        return dict(self.holds)

    def raise_floor(self, public_key: str, nonce: int) -> None:
        self.floors.append(nonce)


class World:
    """A settler over doubles, and a clock that the test moves."""

    def __init__(self) -> None:
        self.rpc, self.resolves, self.nonces, self.now = FakeRpc(), FakeResolves(), FakeNonces(), 1000.0
        self.deadline_height, self.told = 200, 0
        store = SimpleNamespace(get=lambda _data_id: SimpleNamespace(deadline_height=self.deadline_height))
        rpc, resolves = cast("Any", self.rpc), cast("Any", self.resolves)
        verdicts = Verdicts(rpc=rpc, resolves=resolves, store=cast("Any", store), operator_id=OPERATOR)
        self.settler = Settler(
            resolves=resolves,
            rpc=rpc,
            verdicts=verdicts,
            examiner=Examiner(rpc, operator_id=OPERATOR),
            nonces=lambda: cast("Any", self.nonces),
            operator_id=OPERATOR,
            on_settled=self._tell,
        )

    def _tell(self) -> None:
        self.told += 1

    def turn(self, seconds: float = 4.0) -> None:
        """Let time pass, then look: by default long enough for everything to be due."""
        self.now += seconds
        self.settler.turn()
