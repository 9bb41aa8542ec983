"""What the chain keeps: blocks, receipts, outcomes, and how far a transaction got."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from offchainvm.devnet.borsh import Action, AddKey, CreateAccount, DeleteKey, FunctionCall, Permission, Transaction, Transfer
from offchainvm.devnet.keys import base58_text


class Level(IntEnum):
    """``TxExecutionStatus``, in the order in which the node compares them."""

    NONE = 0
    INCLUDED = 1
    EXECUTED_OPTIMISTIC = 2
    INCLUDED_FINAL = 3
    EXECUTED = 4
    FINAL = 5


@dataclass
class Outcome:
    """Of a transaction's conversion, or of one receipt."""

    id: str
    block_hash: str
    height: int
    executor_id: str
    status: dict[str, Any]
    logs: list[str] = field(default_factory=list)
    receipt_ids: list[str] = field(default_factory=list)
    gas_burnt: int = 0
    tokens_burnt: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "proof": [],
            "block_hash": self.block_hash,
            "id": self.id,
            "outcome": {
                "logs": self.logs,
                "receipt_ids": self.receipt_ids,
                "gas_burnt": self.gas_burnt,
                "tokens_burnt": str(self.tokens_burnt),
                "executor_id": self.executor_id,
                "status": self.status,
                "metadata": {"version": 3, "gas_profile": []},
            },
        }


@dataclass
class Receipt:
    """Actions on their way to an account; or, with ``resumes``, the data that a yielded callback waits for."""

    id: str
    predecessor_id: str
    receiver_id: str
    signer_id: str
    signer_public_key: str
    actions: tuple[Action, ...]
    record: TransactionRecord
    refund_yocto: int = 0
    """What the signer gets back for gas that is not burnt, at most."""
    resumes: bytes | None = None
    payload: bytes | None = None

    def as_json(self, priority: int = 0) -> dict[str, Any]:
        action = {
            "signer_id": self.signer_id, "signer_public_key": self.signer_public_key, "gas_price": "100000000", "output_data_receivers": [],
            "input_data_ids": [], "actions": [action_json(action) for action in self.actions], "is_promise_yield": False,
        }  # fmt: skip
        return {
            "predecessor_id": self.predecessor_id, "receiver_id": self.receiver_id, "receipt_id": self.id,
            "receipt": {"Action": action}, "priority": priority,
        }  # fmt: skip


@dataclass
class TransactionRecord:
    """A transaction that landed, and what came of it."""

    transaction: Transaction
    height: int
    outcome: Outcome
    root: str | None = None
    """The receipt it became."""
    receipts: list[Receipt] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    """Receipts that are not executed yet."""

    def status(self) -> Any:
        """``FinalExecutionStatus``: follows the chain of receipts that stand for the result."""
        if self.root is None:
            return self.outcome.status
        by_id = {outcome.id: outcome.status for outcome in self.outcomes}
        receipt_id = self.root
        while (status := by_id.get(receipt_id)) is not None:
            if "SuccessReceiptId" not in status:
                return status
            receipt_id = status["SuccessReceiptId"]
        return "Started"

    def level(self, final_height: int) -> Level:
        """How far it is, seen from a node whose last final block has this height."""
        if self.waiting:
            return Level.INCLUDED_FINAL if self.height <= final_height else Level.INCLUDED
        if self.height > final_height:
            return Level.EXECUTED_OPTIMISTIC
        done = max((outcome.height for outcome in self.outcomes), default=self.height)
        return Level.FINAL if done <= final_height else Level.EXECUTED

    def as_json(self, *, receipts: bool = False) -> dict[str, Any]:
        """``FinalExecutionOutcomeView``, with receipts where asked."""
        told = {
            "status": self.status(),
            "transaction": transaction_json(self.transaction),
            "transaction_outcome": self.outcome.as_json(),
            "receipts_outcome": [outcome.as_json() for outcome in self.outcomes],
        }
        return {**told, "receipts": [receipt.as_json() for receipt in self.receipts]} if receipts else told


@dataclass
class Block:
    """``executed``: receipts of this block with their outcomes."""

    height: int
    hash: str
    digest: bytes
    prev_hash: str
    prev_height: int
    timestamp_ns: int
    ordinal: int
    transactions: list[TransactionRecord] = field(default_factory=list)
    executed: list[tuple[Receipt, Outcome]] = field(default_factory=list)
    cached_json: bytes | None = None


def new_hash(*parts: bytes | str | int) -> tuple[str, bytes]:
    """base58 and bytes of sha256 over the parts."""
    digest = hashlib.sha256(b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)).digest()
    return base58_text(digest), digest


def permission_json(permission: Permission | None, allowance: int | None) -> Any:
    if permission is None:
        return "FullAccess"
    bound = None if allowance is None else str(allowance)
    return {"FunctionCall": {"allowance": bound, "receiver_id": permission.receiver_id, "method_names": list(permission.method_names)}}


def action_json(action: Action) -> Any:
    """``ActionView``."""
    if isinstance(action, FunctionCall):
        args = base64.b64encode(action.args).decode()
        return {"FunctionCall": {"method_name": action.method_name, "args": args, "gas": action.gas, "deposit": str(action.deposit)}}
    if isinstance(action, Transfer):
        return {"Transfer": {"deposit": str(action.deposit)}}
    if isinstance(action, CreateAccount):
        return "CreateAccount"
    if isinstance(action, DeleteKey):
        return {"DeleteKey": {"public_key": action.public_key}}
    assert isinstance(action, AddKey)  # noqa: S101 the type checker's: no other action is left
    allowance = None if action.permission is None else action.permission.allowance
    key = {"nonce": 0, "permission": permission_json(action.permission, allowance)}
    return {"AddKey": {"public_key": action.public_key, "access_key": key}}


def transaction_json(transaction: Transaction) -> dict[str, Any]:
    """``SignedTransactionView``."""
    return {
        "signer_id": transaction.signer_id,
        "public_key": transaction.public_key_text,
        "nonce": transaction.nonce,
        "receiver_id": transaction.receiver_id,
        "actions": [action_json(action) for action in transaction.actions],
        "priority_fee": 0,
        "signature": "ed25519:" + base58_text(transaction.signature),
        "hash": transaction.hash,
    }
