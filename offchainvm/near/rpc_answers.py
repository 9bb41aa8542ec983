"""What an RPC node's answers mean: the tables of wire.md §2, as typed values and errors (their tree: ``rpc``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from offchainvm.errors import Refused, Unavailable

_KEY_ABSENT = re.compile(r"(access key|account) \S+ does not exist", re.IGNORECASE)
_LONGEST_TEXT = 500


class Refusal(str, Enum):
    """What a refused transaction means for its bytes (closed set)."""

    NONCE_USED = "nonce_used"
    """The key's nonce is at or past ours: ours landed, or another did; the key's final nonce decides."""
    EXPIRED = "expired"
    """Its block is too old, or this node does not know it yet."""
    KEY_MISSING = "key_missing"
    """The account has no such key, or the node lags behind the key's birth."""
    FUNDS = "funds"
    """The account's balance is short: the same bytes are good again after a top-up or a refund."""
    ALLOWANCE = "allowance"
    """The key may not spend so much any more: nothing raises that but refunds of its own transactions."""
    BUSY = "busy"
    """The shard is congested or stuck, the node cannot read its state: the same bytes later."""
    FOR_GOOD = "for_good"
    """These bytes are never valid."""
    OTHER = "other"
    """A reason that this version does not know: nothing is concluded from it."""


_REFUSALS = {
    "InvalidNonce": Refusal.NONCE_USED,
    "Expired": Refusal.EXPIRED,
    "AccessKeyNotFound": Refusal.KEY_MISSING,
    "SignerDoesNotExist": Refusal.KEY_MISSING,
    "NotEnoughAllowance": Refusal.ALLOWANCE,
    "NotEnoughBalance": Refusal.FUNDS,
    "LackBalanceForState": Refusal.FUNDS,
    "ShardCongested": Refusal.BUSY,
    "ShardStuck": Refusal.BUSY,
    "StorageError": Refusal.BUSY,
    "NonceTooLarge": Refusal.BUSY,
    "ReceiverMismatch": Refusal.FOR_GOOD,
    "MethodNameMismatch": Refusal.FOR_GOOD,
    "RequiresFullAccess": Refusal.FOR_GOOD,
    "DepositWithFunctionCall": Refusal.FOR_GOOD,
    "InvalidSignerId": Refusal.FOR_GOOD,
    "InvalidReceiverId": Refusal.FOR_GOOD,
    "InvalidSignature": Refusal.FOR_GOOD,
    "InvalidChain": Refusal.FOR_GOOD,
    "InvalidTransactionVersion": Refusal.FOR_GOOD,
    "CostOverflow": Refusal.FOR_GOOD,
    "ActionsValidation": Refusal.FOR_GOOD,
    "TransactionSizeExceeded": Refusal.FOR_GOOD,
}


@dataclass(frozen=True)
class InvalidReason:
    """An ``InvalidTxError`` of the chain."""

    name: str
    """The chain's own name, the innermost: ``InvalidNonce``, ``AccessKeyNotFound``, …"""
    refusal: Refusal
    ak_nonce: int | None = None
    """With ``InvalidNonce``: the access key's nonce, the floor for the next one."""

    def __str__(self) -> str:
        return self.name if self.ak_nonce is None else f"{self.name} (the key's nonce is {self.ak_nonce})"


def invalid_reason(untrusted_error: Any) -> InvalidReason:
    """The reason in an ``InvalidTxError``: a text, or an object of one entry, perhaps nested."""
    name, info = _variant(untrusted_error)
    if name == "InvalidAccessKeyError":
        name, info = _variant(info)
    nonce = info.get("ak_nonce") if name == "InvalidNonce" and isinstance(info, dict) else None
    return InvalidReason(name=name, refusal=_REFUSALS.get(name, Refusal.OTHER), ak_nonce=nonce if isinstance(nonce, int) else None)


class RpcRefused(Refused):
    """The node answered: no. ``cause`` is its own name for it (``UNKNOWN_BLOCK``, …)."""

    code = "rpc_refused"

    def __init__(self, sentence: str, *, cause: str, status: int = 200, remedy: str = "") -> None:
        super().__init__(sentence, status=status, remedy=remedy)
        self.cause = cause


class UnknownTransaction(RpcRefused):
    """The node has not seen this transaction, or forgot it: no proof that it is dead."""


class InvalidTransaction(RpcRefused):
    """A check refused the transaction's bytes."""

    def __init__(self, reason: InvalidReason, *, status: int = 200) -> None:
        super().__init__(f"the chain refuses the transaction: {reason}", cause="INVALID_TRANSACTION", status=status)
        self.reason = reason


class UnknownBlock(RpcRefused):
    """No block has that height or hash, or the node does not keep it."""


class ViewFailed(RpcRefused):
    """A view panicked, or there is no such account, contract or method; the sentence is the node's text."""


class RpcUnavailable(Unavailable):
    """No statement of an endpoint: the same call again, here or elsewhere.

    ``answered``: it is up all the same, and may answer other calls.
    """

    code = "rpc_unavailable"

    def __init__(self, endpoint: str, sentence: str, *, retry_after_seconds: float | None = None, answered: bool = False) -> None:
        super().__init__(
            f"RPC {endpoint}", sentence, remedy="Check NEAR_RPC_URL and any API key in it.", retry_after_seconds=retry_after_seconds
        )
        self.answered = answered


class RpcTimeout(RpcUnavailable):
    """The node waited for the transaction in vain: ``stage`` says how far it came, where the node says so."""

    def __init__(self, endpoint: str, sentence: str, *, stage: str | None = None) -> None:
        super().__init__(endpoint, sentence)
        self.stage = stage


# What a node says of itself; and statuses of a server or provider that cannot serve now, whatever the body.
_NO_STATEMENT = frozenset(
    {"INTERNAL_ERROR", "NOT_SYNCED_YET", "NO_SYNCED_BLOCKS", "UNAVAILABLE_SHARD", "REQUEST_ROUTED", "DOES_NOT_TRACK_SHARD"}
)
_AWAY = frozenset({408, 429, 500, 502, 503, 504})
_NOT_OFFERED = -32601
"""JSON-RPC's own code: so providers refuse a method that they do not offer, without a cause in the chain's words."""
_REFUSED_AS: dict[str, type[RpcRefused]] = {
    "UNKNOWN_TRANSACTION": UnknownTransaction,
    "UNKNOWN_BLOCK": UnknownBlock,
    "GARBAGE_COLLECTED_BLOCK": UnknownBlock,
    "CONTRACT_EXECUTION_ERROR": ViewFailed,
    "NO_CONTRACT_CODE": ViewFailed,
    "UNKNOWN_ACCOUNT": ViewFailed,
    "INVALID_ACCOUNT": ViewFailed,
    "UNKNOWN_ACCESS_KEY": ViewFailed,
}


def error_of(
    untrusted_error: Any,
    *,
    status: int,
    method: str,
    endpoint: str,
    retry_after_seconds: float | None = None,
    optional: bool = False,
) -> RpcRefused | RpcUnavailable:
    """The error of one JSON-RPC answer, or of an HTTP answer without one (``untrusted_error`` is then None).

    ``optional``: where a provider does not offer the method, that is its answer; else another endpoint may have it.
    """
    error = untrusted_error if isinstance(untrusted_error, dict) else {}
    cause, info = _cause(error)
    if not cause and optional and error.get("code") == _NOT_OFFERED:
        cause = "METHOD_NOT_FOUND"
    text = f"{method}: {cause or f'HTTP {status}'} {_text_of(error)}".rstrip()
    if cause == "TIMEOUT_ERROR":
        return RpcTimeout(endpoint, text, stage=_stage(info))
    if cause == "INVALID_TRANSACTION":
        return InvalidTransaction(_reason_in(error, info), status=status)
    known = _REFUSED_AS.get(cause)
    if known is None and (not cause or cause in _NO_STATEMENT or status in _AWAY):
        # What is no answer in the protocol (a provider's page, a body cut off) says nothing about the chain.
        return RpcUnavailable(endpoint, text, retry_after_seconds=retry_after_seconds, answered=status not in _AWAY)
    return (known or RpcRefused)(text, cause=cause, status=status)


def _cause(error: Mapping[str, Any]) -> tuple[str, Any]:
    cause = error.get("cause")
    if isinstance(cause, dict) and isinstance(cause.get("name"), str):
        return cause["name"], cause.get("info")
    name = error.get("name")
    return (name, None) if isinstance(name, str) else ("", None)


def _stage(info: Any) -> str | None:
    """How far a transaction came, from ``cause.info.cause`` of a TIMEOUT_ERROR: NOT_OBSERVED, PENDING, …"""
    stage = info.get("cause") if isinstance(info, dict) else None
    name = _variant(stage)[0] if stage is not None else ""
    return name or None


def _reason_in(error: Mapping[str, Any], info: Any) -> InvalidReason:
    for place in (error.get("data"), info):
        if isinstance(place, dict):
            inner = place.get("TxExecutionError", place)
            if isinstance(inner, dict) and "InvalidTxError" in inner:
                return invalid_reason(inner["InvalidTxError"])
    return InvalidReason(name="unknown", refusal=Refusal.OTHER)


def _text_of(error: Mapping[str, Any]) -> str:
    data = error.get("data")
    text = data if isinstance(data, str) else error.get("message")
    return text[:_LONGEST_TEXT] if isinstance(text, str) else ""


def _variant(value: Any) -> tuple[str, Any]:
    """Name and content of a Rust enum in JSON: ``"Name"``, ``{"Name": content}`` or ``{"name": "NAME", …}``."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            return value["name"], value
        if len(value) == 1:
            name, content = next(iter(value.items()))
            return str(name), content
    return "unknown", None


@dataclass(frozen=True)
class AccessKey:
    """A key of an account, as one block knows it."""

    nonce: int
    block_height: int
    full_access: bool
    """May sign anything, and several actions in one transaction."""
    allowance_yocto: int | None = None
    """What a function-call key may still spend on gas; None = without limit."""
    receiver_id: str = ""
    methods: tuple[str, ...] = ()
    """Methods of ``receiver_id`` that a function-call key may call; empty = all."""

    def may_call(self, contract_id: str, method: str) -> bool:
        """Whether the chain lets this key call ``method`` (allowance aside)."""
        return self.full_access or (self.receiver_id == contract_id and (not self.methods or method in self.methods))


def access_key_of(ask: Callable[[], dict[str, Any]]) -> AccessKey | None:
    """The key that ``ask`` (a ``view_access_key`` query) finds, or None when the chain says that there is none.

    Nodes say so in two ways: a result with an ``error`` text, and an error of its own name.
    """
    try:
        result = ask()
    except ViewFailed as error:
        if error.cause in {"UNKNOWN_ACCESS_KEY", "UNKNOWN_ACCOUNT"}:
            return None
        raise
    text = result.get("error")
    if text is None:
        return _access_key(result)
    if _KEY_ABSENT.search(str(text)):
        return None
    raise ViewFailed(str(text)[:_LONGEST_TEXT], cause="QUERY_ERROR")


def _access_key(result: Mapping[str, Any]) -> AccessKey:
    nonce, height, permission = int(result["nonce"]), int(result["block_height"]), result["permission"]
    if not isinstance(permission, dict):
        return AccessKey(nonce=nonce, block_height=height, full_access=permission == "FullAccess")
    limits = permission.get("FunctionCall", {})
    allowance = limits.get("allowance")
    return AccessKey(
        nonce=nonce,
        block_height=height,
        full_access=False,
        allowance_yocto=None if allowance is None else int(allowance),
        receiver_id=str(limits.get("receiver_id", "")),
        methods=tuple(map(str, limits.get("method_names", ()))),
    )


@dataclass(frozen=True)
class ProtocolLimits:
    """What the chain allows, read from it and never assumed."""

    chain_id: str
    protocol_version: int
    max_prepaid_gas: int
    """Gas that all actions of one transaction may attach together."""
    max_actions: int
    max_transaction_bytes: int
    max_resume_bytes: int
    """``max_yield_payload_size``: the limit of ``payload.fit``."""
    yield_timeout_blocks: int
    """Heights after the request's receipt in which it can be resolved."""
    transaction_validity_blocks: int
    """Heights after its block hash in which a transaction is valid."""

    def resolves_per_transaction(self, wanted: int, *, gas: int, argument_bytes: int = 2048) -> int:
        """How many of ``wanted`` resolves one transaction of a full-access key can carry, at least 1."""
        # 1,024 bytes are ample for all of a transaction that is not its arguments.
        by_size = (self.max_transaction_bytes - 1024) // (argument_bytes + 64)
        return max(1, min(wanted, self.max_prepaid_gas // max(1, gas), self.max_actions, by_size))


def protocol_limits_of(config: Mapping[str, Any]) -> ProtocolLimits:
    """The limits in an answer of ``EXPERIMENTAL_protocol_config``.

    Raises:
        RpcRefused: a limit is missing, so this is no configuration that we can work with.
    """
    try:
        limits = config["runtime_config"]["wasm_config"]["limit_config"]
        return ProtocolLimits(
            chain_id=str(config["chain_id"]),
            protocol_version=int(config["protocol_version"]),
            max_prepaid_gas=int(limits["max_total_prepaid_gas"]),
            max_actions=int(limits["max_actions_per_receipt"]),
            max_transaction_bytes=int(limits["max_transaction_size"]),
            max_resume_bytes=int(limits["max_yield_payload_size"]),
            yield_timeout_blocks=int(limits["yield_timeout_length_in_blocks"]),
            transaction_validity_blocks=int(config["transaction_validity_period"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RpcRefused(f"the protocol configuration lacks {error}", cause="PROTOCOL_CONFIG") from error
