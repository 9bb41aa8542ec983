"""The contract on the local chain behaves as the deployed one does (wire.md §2 and §3)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID


def _logs(world: Any, transaction: Any) -> list[str]:
    return [log for outcome in world.record(transaction).outcomes for log in outcome.logs]


def test_a_request_announces_itself_exactly_and_yields(world: Any) -> None:
    asked = world.request(input_data="ü", build_target="wasm32-wasip1")
    world.blocks(2)
    record = world.record(asked)
    (log,) = _logs(world, asked)
    event = json.loads(log.removeprefix("EVENT_JSON:"))
    assert list(event) == ["standard", "version", "event", "data"]
    assert (event["standard"], event["version"], event["event"]) == ("near-offshore", "1.0.0", "execution_requested")
    (element,) = event["data"]
    assert set(element) == {"request_data", "data_id", "timestamp"}
    timestamp = element["timestamp"]
    assert json.loads(element["request_data"]) == {
        "request_id": 0, "sender_id": CLIENT_ID, "code_source": {"repo": "o/n", "commit": "main", "build_target": "wasm32-wasip1"},
        "resource_limits": {"max_instructions": 10**9, "max_memory_mb": 128, "max_execution_seconds": 60}, "input_data": "ü",
        "payment": str(10**24), "timestamp": timestamp,
    }  # fmt: skip
    assert len(element["data_id"]) == 32
    assert record.status() == "Started"
    view = world.chain.contract.view("get_request", b'{"request_id":0}')
    assert (view["payment"], view["data_id"], "input_data" in view) == (10**24, element["data_id"], False)


def test_a_resolve_hands_the_value_to_the_caller_charges_and_refunds(world: Any) -> None:
    before = world.chain.ledger.accounts[CLIENT_ID].balance
    asked = world.request()
    world.blocks(2)
    data_id = bytes.fromhex(world.chain.runtime.executions[0]["data_id"])
    resolve = world.send(world.call(data_id), key=world.keys.function_call_keys[0])
    world.blocks(4)
    assert world.record(resolve).status() == {"SuccessValue": ""}
    assert _logs(world, resolve) == [f"Resolving execution with data_id: {list(data_id)}, success: true"]
    assert base64.b64decode(world.record(asked).status()["SuccessValue"]) == b'"hi"'
    charged = 10**22 + 5 * 10**15 + 2 * 10**20 + 2 * 10**21
    told = world.chain.runtime.executions[0]
    assert (told["state"], told["value"], told["charged"], told["refund"]) == ("succeeded", "hi", str(charged), str(10**24 - charged))
    gas = sum(outcome.tokens_burnt for outcome in [world.record(asked).outcome, *world.record(asked).outcomes[:1]])
    assert before - world.chain.ledger.accounts[CLIENT_ID].balance == charged + gas
    assert world.chain.contract.view("get_stats", b"{}") == [1, str(charged)]
    assert world.chain.contract.view("get_request", b'{"request_id":0}') is None


@pytest.mark.parametrize(("output", "value"), [([0xFF, 0xFE], None), (None, None), ([], ""), (list("ü".encode()), "ü")])
def test_output_that_is_no_text_reaches_the_caller_as_null(instant_world: Any, output: list[int] | None, value: str | None) -> None:
    instant_world.send(instant_world.call(instant_world.requested(), return_value=output))
    assert instant_world.chain.runtime.executions[0]["value"] == value


def test_a_failed_execution_panics_in_the_callback_and_keeps_the_request(instant_world: Any) -> None:
    asked = instant_world.request()
    data_id = bytes.fromhex(instant_world.chain.runtime.executions[0]["data_id"])
    resolve = instant_world.send(instant_world.call(data_id, success=False, return_value=None, error="trap: unreachable"))
    assert instant_world.record(resolve).status() == {"SuccessValue": ""}
    refund = 10**24 - 10**22
    assert instant_world.failure(asked) == f"Smart contract panicked: Execution failed: trap: unreachable. Refunded {refund} yoctoNEAR"
    assert instant_world.chain.contract.view("get_request", b'{"request_id":0}') is not None
    assert instant_world.chain.contract.view("get_stats", b"{}") == [0, "0"]
    assert any("execution_completed" in log for log in _logs(instant_world, asked)), "logs of a failed receipt stay"


def test_only_the_operator_may_resolve(instant_world: Any) -> None:
    refused = instant_world.send(instant_world.call(instant_world.requested()), key=instant_world.keys.outsider_key)
    assert "Only operator can call this" in instant_world.failure(refused)
    assert instant_world.chain.runtime.executions[0]["state"] == "pending"


def test_a_second_resolve_is_refused_once_the_first_was_delivered(instant_world: Any) -> None:
    data_id = instant_world.requested()
    instant_world.send(instant_world.call(data_id))
    again = instant_world.send(instant_world.call(data_id))
    assert instant_world.failure(again) == "Smart contract panicked: Unable to resume execution promise"
    assert len(_logs(instant_world, again)) == 1, "the log of the failed call stays"


def test_two_resolves_in_one_block_both_succeed_and_the_first_counts(world: Any) -> None:
    data_id = world.requested()
    first, second = world.send(world.call(data_id)), world.send(world.call(data_id, return_value=list(b"other")))
    world.blocks(4)
    assert world.record(first).status() == world.record(second).status() == {"SuccessValue": ""}
    assert world.chain.runtime.executions[0]["value"] == "hi"
    assert world.chain.runtime.executions[0]["resolved_by"] == first.hash


def test_the_payload_limit_counts_what_the_contract_writes_itself(instant_world: Any) -> None:
    data_id = instant_world.requested()
    spare = {"error": None, "resources_used": {"instructions": 1, "memory_bytes": 1, "time_seconds": 1}}
    empty = json.dumps({"success": True, "return_value": [], **spare}, separators=(",", ":"))
    room = 1024 - len(empty) - len('"error":""') + len('"error":null')
    too_long = instant_world.send(
        instant_world.call(data_id, return_value=[], **{**spare, "error": "ü" * (room // 2) + "xx"[: room % 2 + 1]})
    )
    assert instant_world.failure(too_long) == "Yield resume payload is 1025 bytes which exceeds the 1024 byte limit"
    fits = instant_world.send(instant_world.call(data_id, return_value=[], **{**spare, "error": "ü" * (room // 2) + "x" * (room % 2)}))
    assert instant_world.record(fits).status() == {"SuccessValue": ""}


@pytest.mark.parametrize("heights", [199, 200])
def test_a_request_expires_after_200_heights_skipped_ones_counted(world: Any, heights: int) -> None:
    asked = world.request()
    world.blocks(2)
    executed_at = world.chain.runtime.executions[0]["height"]
    data_id = bytes.fromhex(world.chain.runtime.executions[0]["data_id"])
    resolve = world.send(world.call(data_id))
    world.chain.produce(skip_heights=executed_at + heights - 1 - world.chain.head.height - 1)
    assert world.record(resolve).height == executed_at + heights - 1
    world.blocks(3)
    told = world.chain.runtime.executions[0]
    if heights < 200:
        assert told["state"] == "succeeded"
    else:
        assert world.failure(resolve).endswith("Unable to resume execution promise")
        assert told["state"] == "timed_out"
        assert "Execution promise failed: Failed." in world.failure(asked)


@pytest.mark.parametrize(
    "arguments",
    [
        b"", b"[]", b"{", b"{}", b'{"data_id":"ab"}', json.dumps({"data_id": [0] * 31}).encode(),
        json.dumps({"data_id": [256] * 32}).encode(),
        json.dumps({"data_id": [0] * 32}).encode(), json.dumps({"data_id": [0] * 32, "response": {"success": True}}).encode(),
    ],
)  # fmt: skip
def test_arguments_of_another_form_are_refused(instant_world: Any, arguments: bytes) -> None:
    from offchainvm.devnet.borsh import FunctionCall

    refused = instant_world.send(FunctionCall("resolve_execution", arguments, 30 * 10**12, 0))
    assert "Failed to deserialize input from JSON." in instant_world.failure(refused)


@pytest.mark.parametrize(
    "response",
    [
        {"return_value": "aGk="}, {"return_value": [1.0]}, {"return_value": [256]}, {"error": 1}, {"success": 1}, {"error": "\ud800"},
        {"resources_used": {"instructions": 1, "memory_bytes": 1}},
        {"resources_used": {"instructions": 2**64, "memory_bytes": 1, "time_seconds": 1}},
        {"resources_used": {"instructions": 1.5, "memory_bytes": 1, "time_seconds": 1}},
    ],
)  # fmt: skip
def test_responses_of_another_form_are_refused(instant_world: Any, response: dict[str, Any]) -> None:
    refused = instant_world.send(instant_world.call(instant_world.requested(), **response))
    assert "Failed to deserialize input from JSON." in instant_world.failure(refused)


def test_unknown_fields_are_ignored_at_any_level(instant_world: Any) -> None:
    used = {"instructions": 1, "memory_bytes": 1, "time_seconds": 1, "more": {}}
    taken = instant_world.send(instant_world.call(instant_world.requested(), more=1, resources_used=used))
    assert instant_world.record(taken).status() == {"SuccessValue": ""}


def test_requests_are_refused_as_the_contract_refuses_them(instant_world: Any) -> None:
    assert instant_world.failure(instant_world.request(deposit=10**22 - 1)).endswith("Insufficient payment")
    instant_world.chain.contract.paused = True
    assert instant_world.failure(instant_world.request()).endswith("Contract is paused")
    assert instant_world.chain.runtime.executions == {}


def test_a_long_input_is_bounded_by_the_log_limit(instant_world: Any) -> None:
    assert "exceeds the limit 16384" in instant_world.failure(instant_world.request(input_data="x" * 16_384))
    assert instant_world.chain.contract.next_request_id == 0
    assert instant_world.chain.runtime.yields == {}


def test_too_little_gas_is_refused(instant_world: Any) -> None:
    refused = instant_world.send(instant_world.call(instant_world.requested(), gas=10**12))
    assert instant_world.failure(refused) == "Exceeded the prepaid gas."


def test_a_failing_action_rolls_the_whole_batch_back_and_is_named(instant_world: Any) -> None:
    first, third = instant_world.requested(), instant_world.requested()
    batch = instant_world.send(instant_world.call(first), instant_world.call(bytes(32)), instant_world.call(third))
    error = instant_world.record(batch).status()["Failure"]["ActionError"]
    assert error["index"] == 1
    assert [told["state"] for told in instant_world.chain.runtime.executions.values()] == ["pending", "pending"]
    instant_world.send(instant_world.call(first), instant_world.call(third))
    assert [told["state"] for told in instant_world.chain.runtime.executions.values()] == ["succeeded", "succeeded"]


def test_later_contracts_let_limits_and_target_be_null(instant_world: Any) -> None:
    from offchainvm.devnet.borsh import FunctionCall

    arguments = json.dumps({"code_source": {"repo": "o/n", "commit": "m"}, "resource_limits": {"max_memory_mb": None}}).encode()
    call = FunctionCall("request_execution", arguments, 300 * 10**12, 10**24)
    assert "missing field" in instant_world.failure(instant_world.send(call))
    instant_world.chain.contract.lenient = True
    instant_world.send(call)
    told = instant_world.chain.contract.pending[0]
    assert (told["code_source"]["build_target"], told["resource_limits"]["max_instructions"]) == (None, None)
    assert told["sender_id"] == OPERATOR_ID
