"""Requests that a block's receipts announce (wire.md §3).

Only receipts of our contract count, and only those that did not fail: the chain keeps a failed receipt's logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from offchainvm.models import ExecutionRequested, RequestData, data_id_from_bytes
from offchainvm.near.blocks import Block

_PREFIX = "EVENT_JSON:"
_EVENT = "execution_requested"
_KEPT_CHARACTERS = 20_000
"""All logs of a call are at most 16,384 bytes."""


@dataclass(frozen=True)
class MalformedEvent:
    """An event of our contract and standard that cannot be read: kept, so that somebody can look at it."""

    block_height: int
    receipt_id: str
    problem: str
    untrusted_log: str = field(repr=False)


@dataclass(frozen=True)
class BlockEvents:
    """What one block announces."""

    requests: tuple[ExecutionRequested, ...] = ()
    malformed: tuple[MalformedEvent, ...] = ()


def requests_in(block: Block, contract_id: str, standard: str) -> BlockEvents:
    """All requests of a block, in the block's order: every element of every event's ``data``."""
    read = [
        _read(element, block.height, receipt_id, untrusted_log)
        for receipt_id, untrusted_log in _logs(block, contract_id)
        for element in _elements(untrusted_log, standard)
    ]
    return BlockEvents(
        requests=tuple(item for item in read if isinstance(item, ExecutionRequested)),
        malformed=tuple(item for item in read if isinstance(item, MalformedEvent)),
    )


def _logs(block: Block, contract_id: str) -> Iterator[tuple[str, str]]:
    """Receipt id and text of each log of the contract's receipts that did not fail."""
    for shard in block.untrusted_shards:
        for row in _list(_dict(shard).get("receipt_execution_outcomes")):
            receipt, outcome = _dict(_dict(row).get("receipt")), _dict(_dict(_dict(row).get("execution_outcome")).get("outcome"))
            if receipt.get("receiver_id") != contract_id or _failed(outcome.get("status")):
                continue
            for untrusted_log in _list(outcome.get("logs")):
                if isinstance(untrusted_log, str):
                    yield str(receipt.get("receipt_id", "")), untrusted_log


def _failed(status: Any) -> bool:
    """A status other than a success that is known: Failure, Unknown, or none at all."""
    return not (isinstance(status, dict) and ("SuccessValue" in status or "SuccessReceiptId" in status))


def _elements(untrusted_log: str, standard: str) -> list[Any]:
    """The elements of ``data`` of one event of ours; ``[None]`` for one of which not even that can be read."""
    if not untrusted_log.startswith(_PREFIX):
        return []
    try:
        event = json.loads(untrusted_log[len(_PREFIX) :])
    except (ValueError, RecursionError):
        return [None] if standard in untrusted_log and _EVENT in untrusted_log else []
    if not isinstance(event, dict) or event.get("standard") != standard or event.get("event") != _EVENT:
        return []
    data = event.get("data")
    return data if isinstance(data, list) and data else [None]


def _read(untrusted_element: Any, height: int, receipt_id: str, untrusted_log: str) -> ExecutionRequested | MalformedEvent:
    try:
        return _request(untrusted_element, height)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return MalformedEvent(height, receipt_id, _problem(error), untrusted_log[:_KEPT_CHARACTERS])


def _request(untrusted_element: Any, block_height: int) -> ExecutionRequested:
    """Raises: ValueError, TypeError, KeyError, RecursionError: the element is not as wire.md says."""
    if not isinstance(untrusted_element, dict):
        raise TypeError("the event's data holds no object")
    untrusted_data_id = untrusted_element["data_id"]
    if not isinstance(untrusted_data_id, list):
        raise TypeError("data_id is no list of integers")
    return ExecutionRequested(
        data_id=data_id_from_bytes(untrusted_data_id),
        request=RequestData.model_validate_json(untrusted_element["request_data"]),
        block_height=block_height,
    )


def _problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'request_data'}: {first['msg']}"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
