"""When a transaction that no node knows is provably dead (near.md, "Exactly once").

UNKNOWN_TRANSACTION alone proves nothing. One of these does, seen at one endpoint before the hash is unknown there, twice:
the key's final nonce has passed ours; the key is gone at a final block; the validity window has passed; the bytes are
refused for good.
"""

from __future__ import annotations

from dataclasses import dataclass

from offchainvm.jobs.resolves import Transaction
from offchainvm.logs import get_logger
from offchainvm.near.outcome import TransactionOutcome, TransactionState, look_up
from offchainvm.near.rpc import ProtocolLimits, Rpc, RpcRefused
from offchainvm.near.rpc_answers import Refusal

log = get_logger()

ABSENT = frozenset({TransactionState.UNKNOWN, TransactionState.INVALID_IN_CHUNK})
"""Not applied, as far as the node knows. (One found invalid in a chunk changed nothing and used no nonce: as if unseen.)"""


@dataclass(frozen=True)
class Evidence:
    """Why a transaction cannot land any more, and what that holds for."""

    reason: str
    endpoint: str
    attempts: int
    """Sendings begun before the evidence was gathered: with one more it is stale."""

    def confirms(self, earlier: Evidence | None) -> bool:
        """Whether this is the second look at the same endpoint, and nothing was sent in between."""
        return earlier is not None and (earlier.endpoint, earlier.attempts) == (self.endpoint, self.attempts)


class Coroner:
    """Gathers evidence; one thread-safe instance for all transactions of one operator."""

    def __init__(self, rpc: Rpc, *, operator_id: str) -> None:
        self._rpc, self._operator_id = rpc, operator_id
        self._limits: ProtocolLimits | None = None

    def examine(self, transaction: Transaction) -> Evidence | None:
        """Look for one reason, and whether the hash is unknown after it; None when the transaction may still land.

        Raises:
            RpcUnavailable, RpcRefused: the node makes no statement.
        """
        node = self._rpc.pinned()
        reason = self._reason(node, transaction)
        # After the reason, not before: what landed until then is known to this node now.
        if reason is None or self._look(node, transaction.hash, transaction).state not in ABSENT:
            return None
        return Evidence(reason=reason, endpoint=node.endpoint, attempts=transaction.attempts)

    def _reason(self, node: Rpc, transaction: Transaction) -> str | None:
        key = node.access_key(self._operator_id, transaction.public_key)
        if key is not None and key.nonce >= transaction.nonce:
            return f"the key's final nonce is {key.nonce}"
        head = node.final_block()
        if key is None:
            # A node that lags behind the key's birth does not know it either.
            return "the key is gone" if head.height > transaction.block_height else None
        if head.height > transaction.block_height + self._validity_blocks():
            return "its validity window has passed"
        return self._refused_for_good(node, transaction)

    def _refused_for_good(self, node: Rpc, transaction: Transaction) -> str | None:
        """By its bytes an unseen transaction is checked, and not sent."""
        outcome = self._look(node, transaction.signed, transaction)
        if outcome.state is not TransactionState.REFUSED or outcome.reason is None:
            return None
        if outcome.reason.refusal is Refusal.FOR_GOOD:
            return f"the chain refuses it for good: {outcome.reason}"
        if outcome.reason.refusal is Refusal.FUNDS:
            log.error(
                "a key cannot pay for its transactions. Top up the operator's account, or give the key a new allowance",
                action="key_without_funds",
                public_key=transaction.public_key,
                reason=str(outcome.reason),
            )
        return None

    def _look(self, node: Rpc, which: str | bytes, transaction: Transaction) -> TransactionOutcome:
        return look_up(node, which, sender_id=self._operator_id, actions=len(transaction.data_ids))

    def _validity_blocks(self) -> int:
        if self._limits is None:
            try:
                self._limits = self._rpc.protocol_config()
            except RpcRefused as error:
                log.debug(error.sentence, action="no_protocol_config")
                return 2**62
        return self._limits.transaction_validity_blocks
