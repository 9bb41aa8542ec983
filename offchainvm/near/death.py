"""When a transaction in flight is provably dead, so that its rows may be signed anew (near.md, "Provably dead").

That a node does not know a transaction proves nothing by itself. Proof takes two halves from one endpoint, in this order:
a fact after which it cannot land any more, then twice the statement that it has not landed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from offchainvm.near.outcome import TransactionOutcome, TransactionState, look_up
from offchainvm.near.rpc import AccessKey, Rpc, RpcRefused, RpcUnavailable
from offchainvm.near.rpc_answers import Refusal
from offchainvm.near.transaction import SignedTransaction

MEMORY_BLOCKS = 3 * 43_200
"""Heights for which a node surely remembers a transaction: it keeps five epochs, we count on three."""
_NOT_LANDED = frozenset({TransactionState.UNKNOWN, TransactionState.REFUSED, TransactionState.INVALID_IN_CHUNK})


class Proof(str, Enum):
    """Why a transaction can never be applied any more (closed set)."""

    NONCE_PASSED = "nonce_passed"
    """The key's final nonce is at or past its own."""
    KEY_ABSENT = "key_absent"
    """The account has no such key at a final block."""
    WINDOW_PASSED = "window_passed"
    """Its block is older than the chain's validity period."""
    REFUSED_FOR_GOOD = "refused_for_good"
    """A check of its bytes refused it for a reason that lies in the bytes."""
    FORGOTTEN = "forgotten"
    """Its window has passed so long ago that nodes may have forgotten it: it cannot land, whether it did is not known."""


@dataclass(frozen=True)
class Clue:
    """A first half-proof, to be confirmed by the next examination at the same endpoint."""

    proof: Proof
    endpoint: str
    height: int


@dataclass(frozen=True)
class Examination:
    """What one examination found: a proof, a clue for the next one, or neither."""

    outcome: TransactionOutcome
    proof: Proof | None = None
    clue: Clue | None = None


def examine(
    rpc: Rpc, transaction: SignedTransaction, *, sender_id: str, actions: int, validity_blocks: int, clue: Clue | None = None
) -> Examination:
    """Look whether a transaction is dead; two or three calls to one endpoint.

    Args:
        clue: of the examination before, at least a block ago; keep it between two calls, it is worthless after a send.
        validity_blocks: the chain's ``transaction_validity_period``.
    """
    node = rpc.pinned()
    try:
        found = _cannot_land(node, transaction, sender_id, validity_blocks)
    except (RpcUnavailable, RpcRefused) as error:
        return Examination(TransactionOutcome(TransactionState.NO_STATEMENT, text=error.sentence))
    # After the fact, never before it: what landed in between would be overlooked.
    outcome = look_up(node, transaction.signed, sender_id=sender_id, actions=actions)
    if outcome.reason is not None and outcome.reason.refusal is Refusal.FOR_GOOD:
        return Examination(outcome, proof=Proof.REFUSED_FOR_GOOD)
    if found is None or outcome.state not in _NOT_LANDED:
        return Examination(outcome)
    confirmed = clue is not None and clue.endpoint == found.endpoint and clue.height <= found.height
    return Examination(outcome, proof=found.proof) if confirmed else Examination(outcome, clue=found)


def _cannot_land(node: Rpc, transaction: SignedTransaction, sender_id: str, validity_blocks: int) -> Clue | None:
    """The first fact, as this node's final head has it, that keeps the transaction from landing from now on."""
    key = node.access_key(sender_id, transaction.public_key)
    height = node.final_block().height if key is None else key.block_height
    proof = _fact(key, height - transaction.block_height, transaction.nonce, validity_blocks)
    return None if proof is None else Clue(proof, node.endpoint, height)


def _fact(key: AccessKey | None, age_blocks: int, nonce: int, validity_blocks: int) -> Proof | None:
    if age_blocks > max(MEMORY_BLOCKS, validity_blocks):
        return Proof.FORGOTTEN
    if key is None:
        return Proof.KEY_ABSENT
    if key.nonce >= nonce:
        return Proof.NONCE_PASSED
    return Proof.WINDOW_PASSED if age_blocks > validity_blocks else None
