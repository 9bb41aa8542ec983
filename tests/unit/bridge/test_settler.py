"""What the settler does with each thing that a node can say of a transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from offchainvm.bridge import settler as settler_module
from offchainvm.bridge.evidence import Coroner
from offchainvm.bridge.settler import Settler
from offchainvm.bridge.verdicts import Verdicts
from offchainvm.jobs.record import Verdict
from offchainvm.jobs.resolves import RowOutcome, Transaction
from offchainvm.near.rpc import AccessKey, InvalidTransaction, RpcRefused, RpcUnavailable, UnknownTransaction
from offchainvm.near.rpc_answers import invalid_reason
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

    def pinned(self) -> FakeRpc:
        return self

    def tx(self, transaction: str | bytes, *, sender_id: str) -> dict[str, Any]:
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

    def final_block(self) -> BlockRef:
        return BlockRef(self.head, "hash")

    def protocol_config(self) -> Any:
        return SimpleNamespace(transaction_validity_blocks=1000)


@dataclass
class FakeResolves:
    """Transactions in flight, and what was done with them."""

    flights: dict[str, Transaction] = field(default_factory=dict)
    settled: dict[str, list[RowOutcome]] = field(default_factory=dict)
    dead_hashes: list[str] = field(default_factory=list)
    earlier: dict[str, list[str]] = field(default_factory=dict)
    aboard_hashes: list[str] = field(default_factory=list)
    rings: int = 0

    def add(self, hash: str = "h1", nonce: int = 5, attempts: int = 1, jobs: tuple[str, ...] = ("job",)) -> Transaction:
        self.flights[hash] = Transaction(hash, KEY, nonce, 50, hash.encode(), jobs, attempts)
        return self.flights[hash]

    def in_flight(self) -> list[Transaction]:
        return sorted(self.flights.values(), key=lambda flight: flight.nonce)

    def attempted(self, hash: str) -> int:
        if hash not in self.flights:
            return 0
        self.flights[hash] = replace(self.flights[hash], attempts=self.flights[hash].attempts + 1)
        return self.flights[hash].attempts

    def settle(self, hash: str, outcomes: list[RowOutcome]) -> bool:
        self.settled[hash] = outcomes
        return self.flights.pop(hash, None) is not None

    def dead(self, hash: str, attempts_seen: int) -> bool:
        if self.flights[hash].attempts != attempts_seen:
            return False
        self.dead_hashes.append(hash)
        return self.flights.pop(hash) is not None

    def aboard(self, hash: str) -> bool:
        self.aboard_hashes.append(hash)
        return True

    def hashes(self, data_id: str) -> list[str]:
        return self.earlier.get(data_id, [])

    def ring(self) -> None:
        self.rings += 1


@dataclass
class FakeNonces:
    holds: dict[str, str] = field(default_factory=dict)
    floors: list[int] = field(default_factory=list)

    def hold(self, public_key: str, reason: str) -> bool:
        return self.holds.setdefault(public_key, reason) is reason

    def condemn(self, public_key: str, why: str) -> bool:
        before = self.holds.get(public_key, "")
        self.holds[public_key] = f"refused: {why}"
        return not before.startswith("refused: ")

    def unhold(self, public_key: str) -> bool:
        return self.holds.pop(public_key, None) is not None

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
        verdicts = Verdicts(rpc=rpc, resolves=resolves, store=cast("Any", store), operator_id=OPERATOR, head=lambda: self.rpc.head)
        self.settler = Settler(
            resolves=resolves,
            rpc=rpc,
            verdicts=verdicts,
            coroner=Coroner(rpc, operator_id=OPERATOR),
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


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(settler_module.time, "monotonic", lambda: world.now)
    return world


def test_a_success_settles_and_tells(world: World) -> None:
    world.resolves.add()
    world.turn()
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    assert world.resolves.settled == {"h1": [RowOutcome(Verdict.ACCEPTED)]}
    assert world.told == 1


def test_the_first_look_waits_for_about_one_inclusion_time(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = succeeded()
    world.turn(0)
    world.turn(0.1)
    assert world.resolves.settled == {}
    world.turn(0.6)
    assert "h1" in world.resolves.settled


def test_pending_is_looked_at_again_and_never_sent(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = pending()
    for _ in range(5):
        world.turn()
    assert (world.rpc.sent, world.resolves.settled) == ([], {})


def test_a_transaction_that_a_block_holds_frees_its_slot_once_and_is_watched_on(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = pending()
    for _ in range(3):
        world.turn()
    assert (world.resolves.aboard_hashes, list(world.resolves.flights)) == (["h1"], ["h1"])
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    assert list(world.resolves.settled) == ["h1"]


def test_a_node_that_does_not_track_the_shard_gets_the_same_bytes_again(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = {"final_execution_status": "NONE"}
    world.turn(0)
    world.turn()
    assert world.rpc.sent == [b"h1"]
    assert world.resolves.dead_hashes == []


def test_unknown_gets_the_same_bytes_every_few_seconds_lowest_nonce_first(world: World) -> None:
    world.resolves.add("high", nonce=9)
    world.resolves.add("low", nonce=5)
    world.turn(0)
    world.turn(1.0)
    assert world.rpc.sent == []
    world.turn(1.5)
    world.turn(0.5)
    assert world.rpc.sent == [b"low", b"high"]
    world.turn(3.0)
    assert world.rpc.sent == [b"low", b"high"] * 2
    assert world.resolves.flights["low"].attempts == 3


def test_what_was_stored_and_never_sent_is_sent_soon(world: World) -> None:
    world.resolves.add(attempts=0)
    world.turn(0)
    world.turn(0.7)
    assert world.rpc.sent == [b"h1"]


def test_a_transaction_that_is_not_in_flight_any_more_is_not_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.resolves.add()
    world.turn(0)
    monkeypatch.setattr(world.resolves, "attempted", lambda _hash: 0)
    world.turn()
    assert world.rpc.sent == []


def _kill_by_nonce(world: World) -> None:
    world.rpc.key = AccessKey(nonce=5, block_height=100, full_access=False)


def _kill_by_absence(world: World) -> None:
    world.rpc.key = None


def _kill_by_age(world: World) -> None:
    world.rpc.key = AccessKey(nonce=1, block_height=50 + 1001, full_access=False)


def _kill_by_refusal(world: World) -> None:
    world.rpc.check = InvalidTransaction(invalid_reason("InvalidSignature"))


@pytest.mark.parametrize("kill", [_kill_by_nonce, _kill_by_absence, _kill_by_age, _kill_by_refusal])
def test_dead_only_after_two_looks_with_nothing_sent_in_between(world: World, kill: Callable[[World], None]) -> None:
    world.resolves.add()
    world.turn(0)
    kill(world)
    world.turn()
    assert world.resolves.dead_hashes == []
    world.turn(0.5)
    assert world.resolves.dead_hashes == ["h1"]
    assert world.rpc.sent == []


@pytest.mark.parametrize(("kill", "blamed"), [(_kill_by_refusal, "InvalidSignature"), (_kill_by_absence, "the key is gone")])
def test_a_key_whose_transactions_the_chain_refuses_signs_nothing_more_and_that_is_told_once(
    world: World, kill: Callable[[World], None], blamed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(settler_module.log, "error", lambda sentence, **_: told.append(sentence))
    kill(world)
    for name in ("h1", "h2"):
        world.resolves.add(name)
        for _ in range(3):
            world.turn()
    assert world.resolves.dead_hashes == ["h1", "h2"]
    assert blamed in world.nonces.holds[KEY]
    assert len(told) == 1
    assert "restart the resolve worker" in told[0]


@pytest.mark.parametrize("kill", [_kill_by_nonce, _kill_by_age])
def test_a_key_is_not_blamed_for_a_transaction_that_came_too_late(world: World, kill: Callable[[World], None]) -> None:
    world.resolves.add()
    kill(world)
    for _ in range(3):
        world.turn()
    assert (world.resolves.dead_hashes, world.nonces.holds) == (["h1"], {})


@pytest.mark.parametrize("reason", ["Expired", "ShardStuck", {"InvalidNonce": {"ak_nonce": 9, "tx_nonce": 5}}, "SomethingNew"])
def test_other_refusals_prove_nothing(world: World, reason: Any) -> None:
    world.resolves.add()
    world.rpc.check = InvalidTransaction(invalid_reason(reason))
    for _ in range(4):
        world.turn()
    assert world.resolves.dead_hashes == []
    assert world.rpc.sent


def test_a_key_that_a_lagging_node_does_not_know_yet_proves_nothing(world: World) -> None:
    world.resolves.add()
    world.rpc.key, world.rpc.head = None, 50
    for _ in range(4):
        world.turn()
    assert world.resolves.dead_hashes == []


def test_two_endpoints_do_not_confirm_each_other(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    _kill_by_nonce(world)
    for number in range(4):
        world.rpc.endpoint = f"http://node#{number}"
        world.turn()
    assert world.resolves.dead_hashes == []


def test_a_node_that_stepped_back_does_not_confirm(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    for height in (100, 99, 98):
        world.rpc.key = AccessKey(nonce=5, block_height=height, full_access=False)
        world.turn()
    assert world.resolves.dead_hashes == []


def test_stale_evidence_does_not_bury(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    _kill_by_nonce(world)
    world.turn()
    world.resolves.attempted("h1")
    world.turn(0.5)
    assert world.resolves.dead_hashes == []


def test_what_is_found_after_the_nonce_passed_was_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.resolves.add()
    world.turn(0)
    _kill_by_nonce(world)
    world.turn()
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    assert world.resolves.dead_hashes == []
    assert world.resolves.settled["h1"] == [RowOutcome(Verdict.ACCEPTED)]


def test_one_found_invalid_in_a_chunk_is_as_if_unseen_and_raises_the_floor(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = invalid_in_chunk()
    world.turn(0)
    world.turn()
    assert world.rpc.sent == [b"h1"]
    assert world.nonces.floors == [77]
    _kill_by_nonce(world)
    world.turn()
    world.turn()
    assert world.resolves.dead_hashes == ["h1"]


def test_a_chain_that_is_away_changes_nothing_and_comes_back(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    world.rpc.away = True
    for _ in range(3):
        world.turn()
    assert (world.rpc.sent, world.resolves.dead_hashes, world.resolves.settled) == ([], [], {})
    world.rpc.away = False
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    world.turn()
    assert "h1" in world.resolves.settled


@pytest.mark.parametrize("earlier", [RpcRefused("what?", cause="PARSE_ERROR"), RuntimeError("what nobody thought of")])
def test_one_that_cannot_be_judged_keeps_no_other_from_its_turn(world: World, earlier: Exception) -> None:
    world.resolves.add("h1", nonce=5)
    world.resolves.add("h2", nonce=6, jobs=("other",))
    world.resolves.earlier["job"] = ["h0"]
    world.rpc.answers.update(h0=earlier, h1=failed("Unable to resume execution promise"), h2=succeeded())
    world.turn()
    world.turn()
    assert list(world.resolves.settled) == ["h2"]
    world.rpc.answers["h0"] = succeeded()
    world.turn(6)
    assert world.resolves.settled["h1"] == [RowOutcome(Verdict.ACCEPTED)]


def test_an_answer_that_cannot_be_read_is_no_statement(world: World) -> None:
    world.resolves.add("h1", nonce=5)
    world.resolves.add("h2", nonce=6)
    world.rpc.answers.update(h1=RuntimeError("what nobody thought of"), h2=succeeded())
    world.turn()
    world.turn()
    assert (list(world.resolves.settled), world.resolves.dead_hashes) == (["h2"], [])


def test_a_failed_batch_blames_one_row(world: World) -> None:
    world.resolves.add(jobs=("a", "b", "c"))
    world.rpc.answers["h1"] = failed("Smart contract panicked: Only operator can call this", index=1)
    world.turn(0)
    world.turn()
    first, blamed, last = world.resolves.settled["h1"]
    assert first == last == RowOutcome(None)
    assert blamed.verdict is Verdict.REFUSED
    assert (blamed.error or "").startswith("only_operator: ")


UNABLE = failed("Smart contract panicked: Unable to resume execution promise")


def test_a_row_that_failed_for_an_unknown_reason_beside_others_is_judged_when_it_went_alone(world: World) -> None:
    world.resolves.add("h1", jobs=("a", "b"))
    world.rpc.answers["h1"] = failed("Something new", index=1)
    world.turn(0)
    world.turn()
    assert [(row.verdict, row.error) for row in world.resolves.settled["h1"]] == [(None, None), (None, "contract_error: Something new")]
    world.resolves.add("h2", jobs=("b",))
    world.rpc.answers["h2"] = failed("Something new")
    world.turn()
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h2"]] == [Verdict.REFUSED]


@pytest.mark.parametrize(
    ("earlier", "head", "verdict"),
    [
        (None, 150, Verdict.RESOLVED_ELSEWHERE),
        (None, 201, Verdict.EXPIRED),
        (succeeded(), 150, Verdict.ACCEPTED),
        (UNABLE, 150, Verdict.RESOLVED_ELSEWHERE),
    ],
)
def test_unable_to_resume_is_ours_late_or_foreign(world: World, earlier: Any, head: int, verdict: Verdict) -> None:
    world.resolves.add()
    world.resolves.earlier["job"] = ["h0", "h1"]
    world.rpc.answers.update({"h1": UNABLE, **({"h0": earlier} if earlier else {})})
    world.rpc.head = head
    world.turn(0)
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h1"]] == [verdict]


def test_unable_to_resume_waits_for_an_earlier_transaction_of_ours(world: World) -> None:
    world.resolves.add()
    world.resolves.earlier["job"] = ["h0", "h1"]
    world.rpc.answers.update({"h1": UNABLE, "h0": pending()})
    world.turn(0)
    world.turn()
    assert world.resolves.settled == {}
    world.rpc.answers["h0"] = succeeded()
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h1"]] == [Verdict.ACCEPTED]


def test_a_key_is_held_while_its_lowest_is_unseen_and_freed_with_an_empty_window(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    for _ in range(4):
        world.turn()
    assert list(world.nonces.holds) == [KEY]
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    world.turn()
    assert world.nonces.holds == {}
    assert world.resolves.rings == 1


def test_a_hold_of_another_reason_is_left_alone(world: World) -> None:
    world.nonces.holds[KEY] = "an operator said so"
    world.turn()
    assert list(world.nonces.holds) == [KEY]
