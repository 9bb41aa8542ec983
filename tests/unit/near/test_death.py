"""Each clause of "provably dead", and each way in which it must not be concluded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from offchainvm.near.death import MEMORY_BLOCKS, Examination, Proof, examine
from offchainvm.near.outcome import TransactionState
from offchainvm.near.rpc import AccessKey, InvalidTransaction, RpcUnavailable, UnknownTransaction
from offchainvm.near.rpc_answers import invalid_reason
from offchainvm.near.transaction import BlockRef, SignedTransaction

SUSPECT = SignedTransaction(hash="H", public_key="ed25519:k", nonce=1_000_005, block_height=1000, signed=b"signed")
VALIDITY = 86_400
UNKNOWN = UnknownTransaction("?", cause="UNKNOWN_TRANSACTION")
FINAL = {"final_execution_status": "FINAL", "status": {"SuccessValue": ""}}


class Node:
    """One endpoint: its final height, the key as it stands there, and what it says of the transaction."""

    def __init__(self, says: Any, *, nonce: int | None, height: int = 1010, endpoint: str = "node#1") -> None:
        self.endpoint, self.height, self.order = endpoint, height, list[str]()
        self.key = None if nonce is None else AccessKey(nonce=nonce, block_height=height, full_access=True)
        self.says = says

    def pinned(self) -> Node:
        return self

    def access_key(self, account_id: str, public_key: str) -> AccessKey | None:
        assert (account_id, public_key) == ("operator.testnet", SUSPECT.public_key)
        self.order.append("key")
        return self.key

    def final_block(self) -> BlockRef:
        return BlockRef(self.height, "B")

    def tx(self, transaction: bytes, *, sender_id: str) -> Any:
        assert (transaction, sender_id) == (SUSPECT.signed, "operator.testnet")
        self.order.append("tx")
        return Mock(side_effect=[self.says])()


def look(node: Node, before: Examination | None = None) -> Examination:
    clue = None if before is None else before.clue
    return examine(node, SUSPECT, sender_id="operator.testnet", actions=1, validity_blocks=VALIDITY, clue=clue)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nonce", "height", "proof"),
    [
        (1_000_005, 1010, Proof.NONCE_PASSED),
        (2_000_000, 1010, Proof.NONCE_PASSED),
        (None, 1010, Proof.KEY_ABSENT),
        (7, 1000 + VALIDITY + 1, Proof.WINDOW_PASSED),
        (7, 1000 + MEMORY_BLOCKS + 1, Proof.FORGOTTEN),
        (2_000_000, 1000 + MEMORY_BLOCKS + 1, Proof.FORGOTTEN),
    ],
)
@pytest.mark.parametrize("says", [UNKNOWN, InvalidTransaction(invalid_reason("Expired"))])
def test_a_fact_and_two_times_unknown_at_one_endpoint_are_a_proof(nonce: int | None, height: int, proof: Proof, says: Any) -> None:
    node = Node(says, nonce=nonce, height=height)
    first = look(node)
    assert first.proof is None
    assert first.clue is not None
    assert look(node, first).proof is proof
    # The fact is read before the look-up: what lands in between must be seen.
    assert node.order == ["key", "tx"] * 2


@pytest.mark.parametrize(("nonce", "height"), [(1_000_004, 1010), (7, 1000 + VALIDITY)])
def test_unknown_without_a_fact_proves_nothing_however_often(nonce: int, height: int) -> None:
    node = Node(UNKNOWN, nonce=nonce, height=height)
    first = look(node)
    assert (first.proof, first.clue, look(node, first).proof) == (None, None, None)
    assert first.outcome.send_again


def test_second_half_from_another_endpoint_starts_anew() -> None:
    first = look(Node(UNKNOWN, nonce=2_000_000, endpoint="node#1"))
    second = look(Node(UNKNOWN, nonce=2_000_000, endpoint="node#2"), first)
    assert second.proof is None
    assert second.clue is not None
    assert second.clue.endpoint == "node#2"


def test_second_half_from_a_lower_height_starts_anew() -> None:
    first = look(Node(UNKNOWN, nonce=2_000_000, height=1010))
    assert look(Node(UNKNOWN, nonce=2_000_000, height=1009), first).proof is None


@pytest.mark.parametrize(
    "says", [FINAL, {"final_execution_status": "INCLUDED"}, {"final_execution_status": "NONE"}, RpcUnavailable("n", "503")]
)
def test_found_pending_or_unasked_is_not_dead(says: Any) -> None:
    first = look(Node(UNKNOWN, nonce=2_000_000))
    second = look(Node(says, nonce=2_000_000), first)
    assert (second.proof, second.clue) == (None, None)


def test_refused_for_good_needs_no_second_look() -> None:
    found = look(Node(InvalidTransaction(invalid_reason({"InvalidAccessKeyError": "RequiresFullAccess"})), nonce=7))
    assert found.proof is Proof.REFUSED_FOR_GOOD
    assert not found.outcome.send_again


def test_refusal_that_may_pass_is_no_proof() -> None:
    for reason in ("Expired", {"ShardCongested": {}}, {"NotEnoughBalance": {}}, "Unheard"):
        found = look(Node(InvalidTransaction(invalid_reason(reason)), nonce=7))
        assert (found.proof, found.clue, found.outcome.send_again) == (None, None, True)


def test_node_that_cannot_be_asked_for_the_key_says_nothing() -> None:
    node = Node(UNKNOWN, nonce=7)
    node.access_key = Mock(side_effect=RpcUnavailable("n", "HTTP 502"))  # type: ignore[method-assign]
    found = look(node)
    assert found.outcome.state is TransactionState.NO_STATEMENT
    assert (found.proof, found.clue) == (None, None)
    assert replace(found).outcome.send_again
