"""The chain: blocks, the pool of transactions, finality, and what a node (which may lag) knows of them.

A transaction is included in a block, its receipt executed in the next one, a block final when two more stand on it. In
``instant`` mode everything a transaction sets off happens in the block that is open right now, and counts as final at once;
blocks are still cut by time, so that heights (deadlines, nonces) run at their usual pace.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from offchainvm.devnet.borsh import Transaction
from offchainvm.devnet.contract import Contract
from offchainvm.devnet.keys import base58_text
from offchainvm.devnet.ledger import NONCES_PER_HEIGHT, Ledger
from offchainvm.devnet.records import Block, TransactionRecord, new_hash
from offchainvm.devnet.runtime import Runtime
from offchainvm.devnet.validity import InvalidTx, Protocol, check_form, check_state

FINALITY_BLOCKS = 2
GENESIS_HEIGHT = 1_000


@dataclass
class ChainFaults:
    """Faults of the network, in force until they are taken back."""

    drop_next: int = 0
    """Transactions that are accepted and then forgotten before they land."""
    invalid_next: int = 0
    """Transactions that land in a chunk although they are invalid (protocol 83 on)."""
    hold: bool = False
    """Keep the pool shut: nothing is included."""
    reorder: bool = False
    """Include the highest nonce of a key first."""
    receipt_gas_per_block: int | None = None
    """Congestion: gas that a block spends on receipts; 0 executes none."""
    shard_congested: bool = False
    """Congestion: no new transactions. Who asks is told ShardCongested; what is sent unasked is dropped."""


class Chain:
    """One chain in memory. ``changed`` is called after every block, and after every transaction in instant mode."""

    def __init__(
        self, *, ledger: Ledger, contract: Contract, contract_id: str, protocol: Protocol | None = None, instant: bool = False
    ) -> None:
        self.protocol = protocol or Protocol()
        self.ledger = ledger
        self.contract = contract
        self.contract_id = contract_id
        self.runtime = Runtime(ledger=ledger, contract=contract, contract_id=contract_id, protocol=self.protocol)
        self.instant = instant
        self.faults = ChainFaults()
        self.blocks: list[Block] = []
        self.by_height: dict[int, Block] = {}
        self.by_hash: dict[str, Block] = {}
        self.transactions: dict[str, TransactionRecord] = {}
        self.pool: dict[str, Transaction] = {}
        self.changed: Callable[[], None] = lambda: None
        self._open = self._after(None, 0)
        for _ in range(FINALITY_BLOCKS + 1):
            self.produce()

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    def node(self, lag_blocks: int = 0) -> NodeView:
        """What a node knows that is so many blocks behind."""
        return NodeView(self, lag_blocks)

    # Blocks

    def produce(self, skip_heights: int = 0) -> Block:
        """Cut the next block, after so many skipped heights."""
        block = self._open
        if skip_heights:
            block = self._open = self._moved(block, skip_heights)
        if not self.instant:
            block.timestamp_ns = time.time_ns()
            self._execute_queue(block)
            self._include_pool(block)
        self.blocks.append(block)
        self.by_height[block.height] = self.by_hash[block.hash] = block
        self._open = self._after(block, 0)
        self.runtime.expire(self._open.height)
        if self.instant:
            self._drain()
        self.changed()
        return block

    def _after(self, previous: Block | None, skip_heights: int) -> Block:
        height = GENESIS_HEIGHT if previous is None else previous.height + 1 + skip_heights
        prev_hash = previous.hash if previous is not None else "1" * 32
        text, digest = new_hash("block", prev_hash, height, self.contract_id, time.time_ns())
        prev_height = 0 if previous is None else previous.height
        return Block(height, text, digest, prev_hash, prev_height, time.time_ns(), len(self.blocks))

    def _moved(self, block: Block, heights: int) -> Block:
        previous = self.blocks[-1]
        moved = self._after(previous, block.height - previous.height - 1 + heights)
        for record in block.transactions:
            record.height, record.outcome.height, record.outcome.block_hash = moved.height, moved.height, moved.hash
        for _, outcome in block.executed:
            outcome.height, outcome.block_hash = moved.height, moved.hash
        moved.transactions, moved.executed = block.transactions, block.executed
        self.runtime.expire(moved.height)
        return moved

    def _execute_queue(self, block: Block) -> None:
        limit = self.protocol.receipt_gas_per_block
        if self.faults.receipt_gas_per_block is not None:
            limit = self.faults.receipt_gas_per_block
        burnt = 0
        for _ in range(len(self.runtime.queue)):
            if burnt >= limit:
                return
            burnt += self.runtime.step(block)

    def _drain(self) -> None:
        while self.runtime.queue:
            self.runtime.step(self._open)

    # Transactions

    def submit(self, transaction: Transaction) -> None:
        """Take a transaction into the pool, unchecked, as a node does that does not validate. Known ones change nothing."""
        if transaction.hash in self.transactions or transaction.hash in self.pool:
            return
        if self.faults.shard_congested:
            return
        if self.faults.drop_next > 0:
            self.faults.drop_next -= 1
            return
        self.pool[transaction.hash] = transaction
        if self.instant:
            self._include_pool(self._open)
            self._drain()
            self.changed()

    def release(self) -> None:
        """End ``hold``; in instant mode what was held lands at once."""
        self.faults.hold = False
        if self.instant:
            self._include_pool(self._open)
            self._drain()
            self.changed()

    def forget(self, transaction_hash: str) -> bool:
        """Forget a transaction, landed or not, as nodes do after some epochs; what it did stays."""
        return self.transactions.pop(transaction_hash, None) is not None or self.pool.pop(transaction_hash, None) is not None

    def _include_pool(self, block: Block) -> None:
        if self.faults.hold or self.faults.shard_congested or not self.pool:
            return
        waiting = sorted(self.pool.values(), key=lambda one: one.nonce, reverse=self.faults.reorder)
        self.pool.clear()
        for transaction in waiting:
            # A nonce too large, and whatever else is invalid, is dropped without a word.
            reason: InvalidTx | None = "InvalidChain" if transaction.nonce >= block.height * NONCES_PER_HEIGHT else None
            reason = reason or self.invalid(transaction)
            if self.faults.invalid_next > 0:
                self.faults.invalid_next -= 1
                nonces = {"tx_nonce": transaction.nonce, "ak_nonce": transaction.nonce}
                self.transactions[transaction.hash] = Runtime.invalid_in_chunk(transaction, reason or {"InvalidNonce": nonces}, block)
            elif reason is None:
                self.transactions[transaction.hash] = self.runtime.convert(transaction, block)

    def invalid(self, transaction: Transaction, node: NodeView | None = None) -> InvalidTx | None:
        """Why the chain does not take this transaction now, as this node (default: one that is up to date) knows it."""
        if self.faults.shard_congested:
            return {"ShardCongested": {"shard_id": 0, "congestion_level": 1.0}}
        node = node or self.node()
        known = self.by_hash.get(base58_text(transaction.block_hash))
        if known is None or known.height > node.head.height or known.height + self.protocol.validity_period_blocks < node.head.height:
            return check_form(transaction, self.protocol) or "Expired"
        floor = node.nonce_floor(transaction) if node.lag_blocks else None
        return check_form(transaction, self.protocol) or check_state(transaction, self.ledger, self.protocol, floor)


@dataclass(frozen=True)
class NodeView:
    """The chain as one node knows it, ``lag_blocks`` behind."""

    chain: Chain
    lag_blocks: int = 0

    @property
    def head(self) -> Block:
        return self.chain.blocks[max(len(self.chain.blocks) - 1 - self.lag_blocks, 0)]

    @property
    def final(self) -> Block:
        depth = 0 if self.chain.instant else FINALITY_BLOCKS
        return self.chain.blocks[max(self.head.ordinal - depth, 0)]

    @property
    def visible_height(self) -> int:
        """Up to where executed transactions show: in instant mode the open block's show as well."""
        return self.head.height if self.lag_blocks or not self.chain.instant else 2**63

    @property
    def final_height(self) -> int:
        """Up to where transactions count as final."""
        return self.final.height if self.lag_blocks or not self.chain.instant else 2**63

    def record(self, transaction_hash: str) -> TransactionRecord | None:
        """A transaction that landed, where this node knows it yet."""
        record = self.chain.transactions.get(transaction_hash)
        return record if record is not None and record.height <= self.visible_height else None

    def nonce_floor(self, transaction: Transaction) -> int | None:
        account = self.chain.ledger.accounts.get(transaction.signer_id)
        key = account.live_key(transaction.public_key_text) if account is not None else None
        return None if key is None else key.nonce_at(self.head.height)
