"""When the chain takes a transaction, and the exact words in which it does not.

The rules and their order: ``verifier.rs`` and ``action_validation`` of nearcore's runtime; the JSON is that of ``InvalidTxError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from offchainvm.devnet.borsh import FunctionCall, Permission, Transaction, Transfer
from offchainvm.devnet.keys import is_signed_by
from offchainvm.devnet.ledger import AccessKey, Account, Ledger

TGAS = 10**12
SEND_GAS = 308_066_207_802
"""Burnt when a transaction becomes a receipt (a function call's size; the chain's varies by action)."""


@dataclass
class Protocol:
    """Limits of the chain; ``EXPERIMENTAL_protocol_config`` tells them."""

    gas_price: int = 100_000_000
    max_actions: int = 100
    max_transaction_bytes: int = 1_572_864
    max_total_prepaid_gas: int = 1_000 * TGAS
    max_yield_payload_bytes: int = 1_024
    yield_timeout_blocks: int = 200
    validity_period_blocks: int = 86_400
    max_log_bytes: int = 16_384
    receipt_gas_per_block: int = 1_000 * TGAS
    version: int = 84


RECEIPT_GAS = 223_182_562_500
"""Burnt by a receipt beside what its calls burn."""

InvalidTx = dict[str, Any] | str


def prepaid_gas(transaction: Transaction) -> int:
    """Gas attached to all calls."""
    return sum(action.gas for action in transaction.actions if isinstance(action, FunctionCall))


def deposits(transaction: Transaction) -> int:
    """yoctoNEAR that the receiver would get."""
    return sum(action.deposit for action in transaction.actions if isinstance(action, FunctionCall | Transfer))


def cost(transaction: Transaction, protocol: Protocol) -> int:
    """What the signer pays first; unburnt gas comes back."""
    return (prepaid_gas(transaction) + SEND_GAS + RECEIPT_GAS) * protocol.gas_price + deposits(transaction)


def check_form(transaction: Transaction, protocol: Protocol) -> InvalidTx | None:
    """What can be said without the chain's state: size, actions, signature."""
    if transaction.size_bytes > protocol.max_transaction_bytes:
        return {"TransactionSizeExceeded": {"size": transaction.size_bytes, "limit": protocol.max_transaction_bytes}}
    if not is_signed_by(transaction.public_key, transaction.signature, transaction.body_digest):
        return "InvalidSignature"
    problem = _check_actions(transaction, protocol)
    return None if problem is None else {"ActionsValidation": problem}


def _check_actions(transaction: Transaction, protocol: Protocol) -> Any:
    count, gas = len(transaction.actions), prepaid_gas(transaction)
    if count > protocol.max_actions:
        return {"TotalNumberOfActionsExceeded": {"total_number_of_actions": count, "limit": protocol.max_actions}}
    for action in transaction.actions:
        if isinstance(action, FunctionCall) and action.gas == 0:
            return "FunctionCallZeroAttachedGas"
        if isinstance(action, FunctionCall) and not 0 < len(action.method_name.encode()) <= 256:
            return {"FunctionCallMethodNameLengthExceeded": {"length": len(action.method_name.encode()), "limit": 256}}
    if gas > protocol.max_total_prepaid_gas:
        return {"TotalPrepaidGasExceeded": {"total_prepaid_gas": gas, "limit": protocol.max_total_prepaid_gas}}
    return None


def check_state(transaction: Transaction, ledger: Ledger, protocol: Protocol, nonce_floor: int | None = None) -> InvalidTx | None:
    """What the state says: signer, key, nonce, money, permission. ``nonce_floor``: the key's nonce as a lagging node knows it."""
    account = ledger.accounts.get(transaction.signer_id)
    if account is None:
        return {"SignerDoesNotExist": {"signer_id": transaction.signer_id}}
    key = account.live_key(transaction.public_key_text)
    if key is None:
        missing = {"account_id": transaction.signer_id, "public_key": transaction.public_key_text}
        return {"InvalidAccessKeyError": {"AccessKeyNotFound": missing}}
    nonce = key.nonce if nonce_floor is None else nonce_floor
    if transaction.nonce <= nonce:
        return {"InvalidNonce": {"tx_nonce": transaction.nonce, "ak_nonce": nonce}}
    return _check_money(transaction, account, key, cost(transaction, protocol)) or _check_permission(transaction, key.permission)


def _check_money(transaction: Transaction, account: Account, key: AccessKey, price: int) -> InvalidTx | None:
    if account.balance < price:
        return {"NotEnoughBalance": {"signer_id": transaction.signer_id, "balance": str(account.balance), "cost": str(price)}}
    if key.allowance is not None and key.allowance < price:
        known = {"account_id": transaction.signer_id, "public_key": transaction.public_key_text}
        return {"InvalidAccessKeyError": {"NotEnoughAllowance": {**known, "allowance": str(key.allowance), "cost": str(price)}}}
    return None


def _check_permission(transaction: Transaction, permission: Permission | None) -> InvalidTx | None:
    if permission is None:
        return None
    action = transaction.actions[0] if len(transaction.actions) == 1 else None
    problem: Any = None
    if not isinstance(action, FunctionCall):
        problem = "RequiresFullAccess"
    elif action.deposit > 0:
        problem = "DepositWithFunctionCall"
    elif transaction.receiver_id != permission.receiver_id:
        problem = {"ReceiverMismatch": {"tx_receiver": transaction.receiver_id, "ak_receiver": permission.receiver_id}}
    elif permission.method_names and action.method_name not in permission.method_names:
        problem = {"MethodNameMismatch": {"method_name": action.method_name}}
    return None if problem is None else {"InvalidAccessKeyError": problem}
