"""When a transaction that no node knows is provably dead (near.md, "Exactly once").

UNKNOWN_TRANSACTION alone proves nothing. One of these does, seen at one endpoint before the hash is unknown there, twice:
the key's final nonce has passed ours; the key is gone at a final block; the validity window has passed; the bytes are
refused for good; or its key's allowance is used up, with nothing in flight that could bring some of it back.

So its nonce need not be used again by what replaces it: where the nonce is used the chain would refuse that, and where it
is not, these bytes cannot land beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from offchainvm.jobs.resolves import Transaction
from offchainvm.logs import get_logger
from offchainvm.near.limits import ChainLimits
from offchainvm.near.outcome import TransactionOutcome, TransactionState, look_up
from offchainvm.near.rpc import AccessKey, Rpc
from offchainvm.near.rpc_answers import Refusal

log = get_logger()

ABSENT = frozenset({TransactionState.UNKNOWN, TransactionState.INVALID_IN_CHUNK})
"""Not applied, as far as the node knows. (One found invalid in a chunk changed nothing and used no nonce: as if unseen.)"""


@dataclass(frozen=True)
class Evidence:
    """Why a transaction cannot land any more, and what that holds for."""

    reason: str
    endpoint: str
    height: int
    """Final height at which the reason was seen."""
    attempts: int
    """Sendings begun before the evidence was gathered: with one more it is stale."""
    blames_key: bool = False
    """Whatever this key signs next would end the same way, until the operator has done something."""

    def confirms(self, earlier: Evidence | None) -> bool:
        """Whether this is the second look at the same endpoint, no lower than the first, and nothing was sent in between."""
        if earlier is None or (earlier.endpoint, earlier.attempts) != (self.endpoint, self.attempts):
            return False
        # Behind one address there may be several nodes, and one of them may lag.
        return self.height >= earlier.height


class Examiner:
    """Gathers evidence; one thread-safe instance for all transactions of one operator."""

    def __init__(self, rpc: Rpc, *, operator_id: str) -> None:
        self._rpc, self._operator_id = rpc, operator_id
        self._limits = ChainLimits(rpc)

    def examine(self, transaction: Transaction, *, refund_due: bool) -> Evidence | None:
        """Look for one reason, and whether the hash is unknown after it; None when the transaction may still land.

        ``refund_due``: its key has a transaction in a block that is not final, which may give allowance back.

        Raises:
            RpcUnavailable, RpcRefused: the node makes no statement.
        """
        node = self._rpc.pinned()
        key = node.access_key(self._operator_id, transaction.public_key)
        height = node.final_block().height if key is None else key.block_height
        passed = self._reason(key, height, transaction)
        reason = passed or self._refused_for_good(node, transaction, refund_due=refund_due)
        # After the reason, not before: what landed until then is known to this node now.
        if reason is None or self._look(node, transaction.hash, transaction).state not in ABSENT:
            return None
        blames_key = key is None or passed is None
        return Evidence(reason=reason, endpoint=node.endpoint, height=height, attempts=transaction.attempts, blames_key=blames_key)

    def _reason(self, key: AccessKey | None, height: int, transaction: Transaction) -> str | None:
        if key is not None and key.nonce >= transaction.nonce:
            return f"the key's final nonce is {key.nonce}"
        # A node that lags behind the key's birth does not know it either.
        if key is None and height > transaction.block_height:
            return "the key is gone"
        return "its validity window has passed" if height > transaction.block_height + self._validity_blocks() else None

    def _refused_for_good(self, node: Rpc, transaction: Transaction, *, refund_due: bool) -> str | None:
        """By its bytes an unseen transaction is checked, and not sent."""
        outcome = self._look(node, transaction.signed, transaction)
        if outcome.state is not TransactionState.REFUSED or outcome.reason is None:
            return None
        if outcome.reason.refusal is Refusal.FOR_GOOD:
            return f"the chain refuses it for good: {outcome.reason}"
        if outcome.reason.refusal is Refusal.ALLOWANCE and not refund_due:
            return "its key's allowance is used up"
        if outcome.reason.refusal is Refusal.FUNDS:
            log.error(
                "the operator's account cannot pay for its transactions. Top it up",
                action="account_without_funds",
                public_key=transaction.public_key,
                reason=str(outcome.reason),
            )
        return None

    def _look(self, node: Rpc, which: str | bytes, transaction: Transaction) -> TransactionOutcome:
        return look_up(node, which, sender_id=self._operator_id, actions=len(transaction.data_ids))

    def _validity_blocks(self) -> int:
        """While the chain does not tell, no age proves anything."""
        limits = self._limits.get()
        return 2**62 if limits is None else limits.transaction_validity_blocks
