from __future__ import annotations

import json
from typing import Any

import pytest

from offchainvm.near.events import requests_in

FAILURE = {"Failure": {"ActionError": {"index": 0, "kind": {}}}}


def read(blocks: Any, *receipts: Any, standard: str = "near-offshore") -> Any:
    return requests_in(blocks.block(*receipts), blocks.contract, standard)


def test_every_element_of_every_event_is_read_in_order(blocks: Any) -> None:
    found = read(
        blocks, blocks.receipt(blocks.event(blocks.element(1), blocks.element(2)), "a log"), blocks.receipt(blocks.event(blocks.element(3)))
    )
    assert [item.request.request_id for item in found.requests] == [1, 2, 3]
    assert found.malformed == ()
    first = found.requests[0]
    assert (first.data_id, first.block_height) == ("01" * 32, 100)
    assert first.request.code_source.repo == "owner/name"
    assert first.request.input_data == '{"é":1}'
    assert first.request.payment == "100000000000000000000000"


@pytest.mark.parametrize("status", [FAILURE, "Unknown", {}, {"Unknown": None}])
def test_logs_of_a_receipt_that_did_not_succeed_are_no_requests(blocks: Any, status: Any) -> None:
    assert read(blocks, blocks.receipt(blocks.event(blocks.element()), status=status)).requests == ()


def test_receipt_that_went_on_to_another_counts(blocks: Any) -> None:
    assert len(read(blocks, blocks.receipt(blocks.event(blocks.element()), status={"SuccessReceiptId": "x"})).requests) == 1


def test_same_event_from_another_contract_is_not_ours(blocks: Any) -> None:
    assert read(blocks, blocks.receipt(blocks.event(blocks.element()), receiver="evil.testnet")) == requests_in(blocks.block(), "", "")


def test_standard_is_the_settings_and_other_events_are_passed(blocks: Any) -> None:
    receipt = blocks.receipt(
        blocks.event(blocks.element(1), standard="near-outlayer"),
        blocks.event(blocks.element(2), event="execution_completed"),
        blocks.event(blocks.element(3)),
        "EVENT_JSON:not json",
        'EVENT_JSON:["near-offshore"]',
    )
    assert [item.request.request_id for item in read(blocks, receipt, standard="near-outlayer").requests] == [1]
    assert read(blocks, receipt).malformed == ()


def test_limits_and_target_may_be_null_or_missing(blocks: Any) -> None:
    element = blocks.element(1, resource_limits=None, code_source={"repo": "a/b", "commit": "c", "build_target": None}, input_data=None)
    request = read(blocks, blocks.receipt(blocks.event(element))).requests[0].request
    assert request.resource_limits.max_memory_mb is None
    assert request.code_source.build_target == "wasm32-wasip1"
    assert request.input_data == ""


@pytest.mark.parametrize(
    "element",
    [
        None,
        [],
        {"request_data": "{}"},
        {"data_id": [1] * 32},
        {"data_id": [1] * 31, "request_data": "{}"},
        {"data_id": [256] * 32, "request_data": "{}"},
        {"data_id": 32, "request_data": "{}"},
        {"data_id": "ab" * 32, "request_data": "{}"},
        {"data_id": [1] * 32, "request_data": "no json"},
        {"data_id": [1] * 32, "request_data": {"an": "object"}},
        {"data_id": [1] * 32, "request_data": "[" * 100_000},
        {"data_id": [1] * 32, "request_data": json.dumps({"request_id": 2**63})},
    ],
)
def test_malformed_element_is_kept_beside_the_good_ones(blocks: Any, element: Any) -> None:
    found = read(blocks, blocks.receipt(blocks.event(element, blocks.element(7))))
    assert [item.request.request_id for item in found.requests] == [7]
    assert [(item.block_height, item.receipt_id) for item in found.malformed] == [(100, "Receipt1")]
    assert found.malformed[0].problem
    assert found.malformed[0].untrusted_log.startswith("EVENT_JSON:")


@pytest.mark.parametrize(
    "log",
    [
        'EVENT_JSON:{"standard":"near-offshore","event":"execution_requested"',
        'EVENT_JSON:{"standard":"near-offshore","event":"execution_requested","data":{}}',
        'EVENT_JSON:{"standard":"near-offshore","event":"execution_requested","data":[]}',
        'EVENT_JSON:{"standard":"near-offshore","event":"execution_requested"}',
    ],
)
def test_event_of_ours_without_readable_data_counts_as_malformed(blocks: Any, log: str) -> None:
    assert len(read(blocks, blocks.receipt(log)).malformed) == 1


@pytest.mark.parametrize("receipt", [None, 7, {}, {"receipt": None}, {"receipt": {}, "execution_outcome": []}])
def test_block_of_another_shape_has_no_events(blocks: Any, receipt: Any) -> None:
    assert read(blocks, receipt).requests == ()
