from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from offchainvm.near.outcome import ActionVerdict, TransactionState, classify, look_up
from offchainvm.near.rpc import InvalidTransaction, RpcTimeout, RpcUnavailable, UnknownTransaction
from offchainvm.near.rpc_answers import Refusal, invalid_reason

A, N = ActionVerdict.ACCEPTED, ActionVerdict.NOT_APPLIED


def test_success_accepts_every_action(answers: Any) -> None:
    outcome = classify(answers.tx({"SuccessValue": ""}), actions=3)
    assert (outcome.state, outcome.verdicts, outcome.final) == (TransactionState.SUCCEEDED, (A, A, A), True)
    assert outcome.block_hash == "BlockOfTx"
    assert outcome.gas_burnt == 616_000_000_000


@pytest.mark.parametrize("stage", ["NONE", "INCLUDED", "EXECUTED_OPTIMISTIC", "INCLUDED_FINAL", "EXECUTED", "", "SOMETHING_NEW"])
@pytest.mark.parametrize("failed", [False, True])
def test_before_the_chain_calls_it_final_nothing_is_concluded(answers: Any, stage: str, failed: bool) -> None:
    status = answers.panic(0, "Unable to resume execution promise") if failed else {"SuccessValue": ""}
    outcome = classify(answers.tx(status, stage=stage), actions=1)
    assert (outcome.state, outcome.verdicts, outcome.final) == (TransactionState.PENDING, (), False)


@pytest.mark.parametrize(
    "result",
    [
        {"final_execution_status": "NONE"},
        {"final_execution_status": "INCLUDED"},
        {},
        {"final_execution_status": "FINAL"},
        {"final_execution_status": "FINAL", "status": "NotStarted"},
        {"final_execution_status": "FINAL", "status": {"Failure": "?"}},
        {"final_execution_status": "FINAL", "status": {"SuccessReceiptId": "x"}},
        {"final_execution_status": "FINAL", "status": {}, "transaction_outcome": None, "receipts_outcome": None},
    ],
)
def test_answer_without_an_outcome_is_pending(result: dict[str, Any]) -> None:
    assert classify(result, actions=1).state is TransactionState.PENDING


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Smart contract panicked: Unable to resume execution promise", ActionVerdict.UNABLE_TO_RESUME),
        (
            "Smart contract panicked: panicked at 'Unable to resume execution promise', src/lib.rs:300:9",
            ActionVerdict.UNABLE_TO_RESUME,
        ),
        ("Smart contract panicked: Only operator can call this", ActionVerdict.ONLY_OPERATOR),
        (
            'Smart contract panicked: panicked at src/lib.rs:1: Failed to deserialize input from JSON.: Error("invalid type")',
            ActionVerdict.BAD_ARGUMENTS,
        ),
        ("Yield resume payload is 1100 bytes which exceeds the 1024 byte limit", ActionVerdict.PAYLOAD_TOO_LONG),
        ("Exceeded the prepaid gas.", ActionVerdict.OUT_OF_GAS),
        ("Exceeded the maximum amount of gas allowed to burn per contract.", ActionVerdict.OUT_OF_GAS),
        ("Smart contract panicked: something else", ActionVerdict.CONTRACT_ERROR),
    ],
)
def test_text_of_a_failed_call_decides_its_verdict(answers: Any, text: str, verdict: ActionVerdict) -> None:
    outcome = classify(answers.tx(answers.action_error(0, {"FunctionCallError": {"ExecutionError": text}})), actions=1)
    assert (outcome.state, outcome.verdicts) == (TransactionState.FAILED, (verdict,))
    assert outcome.text == text


@pytest.mark.parametrize(
    "kind",
    [
        {"FunctionCallError": {"CompilationError": {"CodeDoesNotExist": {"account_id": "x.testnet"}}}},
        {"FunctionCallError": {"MethodResolveError": "MethodNotFound"}},
        {"AccountDoesNotExist": {"account_id": "x.testnet"}},
    ],
)
def test_missing_contract_is_told_from_a_failing_one(answers: Any, kind: Any) -> None:
    outcome = classify(answers.tx(answers.action_error(0, kind)), actions=1)
    assert outcome.verdicts == (ActionVerdict.NO_CONTRACT,)
    assert outcome.verdicts[0].alert


def test_batch_that_failed_at_its_third_action_blames_that_one_alone(answers: Any) -> None:
    outcome = classify(answers.tx(answers.panic(2, "Unable to resume execution promise")), actions=5)
    assert outcome.state is TransactionState.FAILED
    assert outcome.verdicts == (N, N, ActionVerdict.UNABLE_TO_RESUME, N, N)


@pytest.mark.parametrize("index", [None, 5, -1, "2"])
def test_failure_that_names_no_action_blames_none(answers: Any, index: Any) -> None:
    outcome = classify(answers.tx(answers.panic(index, "Unable to resume execution promise")), actions=5)
    assert outcome.verdicts == (N,) * 5
    assert outcome.final


def test_invalid_inside_a_chunk_is_a_class_of_its_own(answers: Any) -> None:
    status = {"Failure": {"InvalidTxError": {"InvalidNonce": {"tx_nonce": 5, "ak_nonce": 9}}}}
    outcome = classify(answers.tx(status, receipts=0), actions=2)
    assert (outcome.state, outcome.verdicts, outcome.final) == (TransactionState.INVALID_IN_CHUNK, (), False)
    assert outcome.reason is not None
    assert (outcome.reason.name, outcome.reason.refusal, outcome.reason.ak_nonce) == ("InvalidNonce", Refusal.NONCE_USED, 9)


def test_only_what_calls_for_an_operator_alerts() -> None:
    quiet = {verdict for verdict in ActionVerdict if not verdict.alert}
    assert quiet == {ActionVerdict.ACCEPTED, ActionVerdict.UNABLE_TO_RESUME, ActionVerdict.NOT_APPLIED}


@pytest.mark.parametrize(
    ("error", "name", "refusal"),
    [
        ("Expired", "Expired", Refusal.EXPIRED),
        ("InvalidSignature", "InvalidSignature", Refusal.FOR_GOOD),
        ({"NonceTooLarge": {"tx_nonce": 1, "upper_bound": 1}}, "NonceTooLarge", Refusal.BUSY),
        ({"InvalidAccessKeyError": {"AccessKeyNotFound": {"account_id": "a"}}}, "AccessKeyNotFound", Refusal.KEY_MISSING),
        ({"InvalidAccessKeyError": "RequiresFullAccess"}, "RequiresFullAccess", Refusal.FOR_GOOD),
        ({"InvalidAccessKeyError": {"NotEnoughAllowance": {"cost": "1"}}}, "NotEnoughAllowance", Refusal.ALLOWANCE),
        ({"NotEnoughBalance": {"balance": "0", "cost": "1"}}, "NotEnoughBalance", Refusal.FUNDS),
        ({"ShardCongested": {"shard_id": 1, "congestion_level": 0.9}}, "ShardCongested", Refusal.BUSY),
        ({"ActionsValidation": {"TotalPrepaidGasExceeded": {}}}, "ActionsValidation", Refusal.FOR_GOOD),
        ("AnErrorOfTheFuture", "AnErrorOfTheFuture", Refusal.OTHER),
        (None, "unknown", Refusal.OTHER),
        ({"a": 1, "b": 2}, "unknown", Refusal.OTHER),
    ],
)
def test_reason_of_a_refusal_is_read_from_every_shape(error: Any, name: str, refusal: Refusal) -> None:
    reason = invalid_reason(error)
    assert (reason.name, reason.refusal) == (name, refusal)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (UnknownTransaction("?", cause="UNKNOWN_TRANSACTION"), TransactionState.UNKNOWN),
        (InvalidTransaction(invalid_reason("Expired")), TransactionState.REFUSED),
        (RpcTimeout("node", "tx", stage="PENDING"), TransactionState.PENDING),
        (RpcTimeout("node", "tx", stage="NOT_OBSERVED"), TransactionState.NO_STATEMENT),
        (RpcTimeout("node", "tx"), TransactionState.NO_STATEMENT),
        (RpcUnavailable("node", "tx: HTTP 503"), TransactionState.NO_STATEMENT),
    ],
)
def test_errors_of_a_look_up_are_states_too(error: Exception, state: TransactionState) -> None:
    outcome = look_up(Mock(tx=Mock(side_effect=error)), "hash", sender_id="operator.testnet", actions=1)
    assert (outcome.state, outcome.verdicts) == (state, ())


def test_same_bytes_go_again_until_something_is_known(answers: Any) -> None:
    again = [{"final_execution_status": "NONE"}, {}]
    known = [answers.tx({"SuccessValue": ""}), answers.tx({"SuccessValue": ""}, stage="INCLUDED"), answers.tx(answers.panic(0, "x"))]
    assert all(classify(result, actions=1).send_again for result in again)
    assert not any(classify(result, actions=1).send_again for result in known)


def test_the_page_on_keys_tells_what_to_do_about_every_outcome() -> None:
    page = (Path(__file__).parents[3] / "docs" / "keys.md").read_text()
    table = page.split("## What each outcome on chain means")[1]
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(told) == sorted(verdict.value for verdict in ActionVerdict)
