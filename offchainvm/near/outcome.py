"""What became of a transaction, as a closed set (near.md, "Outcomes").

A transaction of several actions is all or nothing: when action k fails, nothing of it was applied, row k is judged by
the text of its failure and the others were not tried.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from offchainvm.near.rpc import Rpc
from offchainvm.near.rpc_answers import (
    InvalidReason,
    InvalidTransaction,
    Refusal,
    RpcTimeout,
    RpcUnavailable,
    UnknownTransaction,
    invalid_reason,
)

_LONGEST_TEXT = 500
_INCLUDED = frozenset({"INCLUDED", "INCLUDED_FINAL", "EXECUTED_OPTIMISTIC", "EXECUTED"})


class TransactionState(str, Enum):
    """Where a transaction stands (closed set)."""

    SUCCEEDED = "succeeded"
    """Final: every action was applied."""
    FAILED = "failed"
    """Final: nothing of it was applied, the nonce is used."""
    INVALID_IN_CHUNK = "invalid_in_chunk"
    """Final: a chunk held it though it was not valid. It changed nothing and used no nonce."""
    PENDING = "pending"
    """The node knows it, or may know it; nothing final can be said."""
    UNKNOWN = "unknown"
    """The node has not seen it, or forgot it: no proof that it is dead."""
    REFUSED = "refused"
    """A check of its bytes refused it; ``reason`` says whether for good."""
    NO_STATEMENT = "no_statement"
    """The node could not be asked, or knew no answer."""


class ActionVerdict(str, Enum):
    """What became of one resolve (closed set)."""

    ACCEPTED = "accepted"
    """The resume was accepted. (The callback runs in receipts of the requester, and proves nothing here.)"""
    UNABLE_TO_RESUME = "unable_to_resume"
    """Resolved before, by us or by another, or past its deadline."""
    ONLY_OPERATOR = "only_operator"
    """The contract does not know the signing account as its operator."""
    BAD_ARGUMENTS = "bad_arguments"
    """The contract could not read the arguments."""
    PAYLOAD_TOO_LONG = "payload_too_long"
    """The chain refused the resume for its length."""
    OUT_OF_GAS = "out_of_gas"
    """The gas attached did not last: RESOLVE_GAS_TGAS."""
    NO_CONTRACT = "no_contract"
    """No such account, contract or method: OFFCHAINVM_CONTRACT_ID."""
    CONTRACT_ERROR = "contract_error"
    """The contract failed in a way that this version does not know."""
    NOT_APPLIED = "not_applied"
    """Not at fault: another action of the batch failed, or the failure names none. It may go again."""

    @property
    def alert(self) -> bool:
        """Whether an operator has to look: the setting, the key or the contract is not as we believe."""
        return self not in {ActionVerdict.ACCEPTED, ActionVerdict.UNABLE_TO_RESUME, ActionVerdict.NOT_APPLIED}


# Panics and host errors are parts of a longer text; the first that is found decides.
_TEXTS = (
    ("Unable to resume execution promise", ActionVerdict.UNABLE_TO_RESUME),
    ("Only operator can call this", ActionVerdict.ONLY_OPERATOR),
    ("Failed to deserialize input from JSON", ActionVerdict.BAD_ARGUMENTS),
    ("Yield resume payload is", ActionVerdict.PAYLOAD_TOO_LONG),
    ("Exceeded the prepaid gas", ActionVerdict.OUT_OF_GAS),
    ("Exceeded the maximum amount of gas", ActionVerdict.OUT_OF_GAS),
    ("CodeDoesNotExist", ActionVerdict.NO_CONTRACT),
    ("MethodNotFound", ActionVerdict.NO_CONTRACT),
    ("AccountDoesNotExist", ActionVerdict.NO_CONTRACT),
)


@dataclass(frozen=True)
class TransactionOutcome:
    """The state of a transaction and, where it is final, a verdict for each of its actions."""

    state: TransactionState
    verdicts: tuple[ActionVerdict, ...] = ()
    """One an action, in their order; empty unless SUCCEEDED or FAILED."""
    reason: InvalidReason | None = None
    """With REFUSED and INVALID_IN_CHUNK."""
    text: str = ""
    """The chain's own words, at most 500 characters."""
    gas_burnt: int = 0
    burnt_yocto: int = 0
    """Tokens that its signer paid for that gas."""
    block_hash: str = ""
    """Block of the transaction, where it is known."""

    @property
    def final(self) -> bool:
        """Whether this transaction is over, so that its rows can be settled or freed."""
        return self.state in {TransactionState.SUCCEEDED, TransactionState.FAILED}

    @property
    def included(self) -> bool:
        """Whether a block holds it that is not final yet: its nonce is used."""
        return self.state is TransactionState.PENDING and self.text in _INCLUDED

    @property
    def send_again(self) -> bool:
        """Whether the same bytes should be sent again, after a while, until they land or are provably dead.

        That is always safe. ``NONE`` is what a node says that does not track the shard: it may never know.
        """
        if self.state is TransactionState.PENDING:
            return self.text in {"", "NONE"}
        for_good = self.reason is not None and self.reason.refusal is Refusal.FOR_GOOD
        return self.state in {TransactionState.UNKNOWN, TransactionState.NO_STATEMENT, TransactionState.REFUSED} and not for_good


def look_up(rpc: Rpc, transaction: str | bytes, *, sender_id: str, actions: int) -> TransactionOutcome:
    """Ask one time what became of a transaction: by its hash, or by its signed bytes (then an unseen one is checked)."""
    try:
        result = rpc.tx(transaction, sender_id=sender_id)
    except UnknownTransaction:
        return TransactionOutcome(TransactionState.UNKNOWN)
    except InvalidTransaction as error:
        return TransactionOutcome(TransactionState.REFUSED, reason=error.reason, text=str(error.reason))
    except RpcTimeout as error:
        # It waited in vain; where it never saw the transaction, that says less than UNKNOWN: it may be behind.
        seen = error.stage not in {None, "NOT_OBSERVED"}
        return TransactionOutcome(TransactionState.PENDING if seen else TransactionState.NO_STATEMENT, text=error.stage or "")
    except RpcUnavailable as error:
        return TransactionOutcome(TransactionState.NO_STATEMENT, text=error.sentence[:_LONGEST_TEXT])
    return classify(result, actions=actions)


def classify(result: dict[str, Any], *, actions: int) -> TransactionOutcome:
    """The outcome in a ``tx`` answer of a transaction with so many actions.

    Before the node calls it FINAL (its own block and those of its receipts), whatever it shows is PENDING.
    """
    status, place = result.get("status"), _place_of(result)
    if result.get("final_execution_status") != "FINAL" or not isinstance(status, dict):
        return TransactionOutcome(TransactionState.PENDING, text=str(result.get("final_execution_status", "")), **place)
    if "SuccessValue" in status:
        return TransactionOutcome(TransactionState.SUCCEEDED, verdicts=(ActionVerdict.ACCEPTED,) * actions, **place)
    failure = status.get("Failure")
    if not isinstance(failure, dict):
        return TransactionOutcome(TransactionState.PENDING, text=_short(status), **place)
    if "InvalidTxError" in failure:
        reason = invalid_reason(failure["InvalidTxError"])
        return TransactionOutcome(TransactionState.INVALID_IN_CHUNK, reason=reason, text=str(reason), **place)
    verdicts, text = _blame(failure.get("ActionError", failure), actions)
    return TransactionOutcome(TransactionState.FAILED, verdicts=verdicts, text=text, **place)


def _blame(error: Any, actions: int) -> tuple[tuple[ActionVerdict, ...], str]:
    """A verdict for each action: only the one that the error names is judged, or that is the only one."""
    kind, index = (error.get("kind"), error.get("index")) if isinstance(error, dict) else (error, None)
    if actions == 1:
        index = 0
    text = _failure_text(kind)
    verdicts = [ActionVerdict.NOT_APPLIED] * actions
    if isinstance(index, int) and 0 <= index < actions:
        verdicts[index] = next((verdict for part, verdict in _TEXTS if part in text), ActionVerdict.CONTRACT_ERROR)
    return tuple(verdicts), text[:_LONGEST_TEXT]


def _failure_text(kind: Any) -> str:
    call_error = kind.get("FunctionCallError") if isinstance(kind, dict) else None
    text = call_error.get("ExecutionError") if isinstance(call_error, dict) else None
    return text if isinstance(text, str) else _short(kind)


def _short(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))[:_LONGEST_TEXT]


def _place_of(result: dict[str, Any]) -> dict[str, Any]:
    """Block, gas and cost of an answer; whatever is not there counts as nothing."""
    first = result.get("transaction_outcome")
    outcomes = [first, *(result.get("receipts_outcome") or ())]
    known = [outcome["outcome"] for outcome in outcomes if isinstance(outcome, dict) and "outcome" in outcome]
    gas, burnt = (sum(int(outcome.get(name, 0)) for outcome in known) for name in ("gas_burnt", "tokens_burnt"))
    return {"gas_burnt": gas, "burnt_yocto": burnt, "block_hash": str(first.get("block_hash", "")) if isinstance(first, dict) else ""}
