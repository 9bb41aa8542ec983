"""The arguments of ``resolve_execution``, sized by the contract's own rule before anything is signed.

The contract writes ``response`` again as compact JSON and hands that text to the chain, which aborts the call when
it is longer than ``max_yield_payload_size``. So what does not fit is decided here, by rule: an output is never cut,
an error text is cut at its end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from offchainvm.errors import JobCode, JobError
from offchainvm.models import ExecutionResponse

YIELD_PAYLOAD_LIMIT_BYTES = 1024
_CUT_MARK = "…"
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ONE_DIGIT_AND_MORE = bytes(range(10, 256))
_TWO_DIGITS_AND_MORE = bytes(range(100, 256))


@dataclass(frozen=True)
class Payload:
    """What is sent for one request, fixed for ever once a transaction carried it."""

    arguments: bytes
    """Compact JSON, the arguments of ``resolve_execution``."""
    response: ExecutionResponse
    """The response inside ``arguments``; another than was asked for where that did not fit."""
    resume_bytes: int
    """Length of the text that the contract hands to the chain."""


def fit(data_id: str, response: ExecutionResponse, *, limit_bytes: int = YIELD_PAYLOAD_LIMIT_BYTES) -> Payload:
    """The arguments that resolve ``data_id`` (64 hex characters) with ``response``, or with what of it fits.

    An output that does not fit gives ``success: false`` and an error that names both sizes; an error text that does
    not fit loses its end, on a character boundary, after escaping is counted.

    Raises:
        ValueError: ``limit_bytes`` has no room even for an empty error.
    """
    sendable = _sendable(_encodable(response), limit_bytes)
    values = sendable.as_json()
    text = _compact({"data_id": list(bytes.fromhex(data_id)), "response": values})
    return Payload(arguments=text, response=sendable, resume_bytes=resume_bytes(sendable))


def resume_bytes(response: ExecutionResponse) -> int:
    """Length in bytes of the text that the contract makes of ``response`` (wire.md §2), without building an array."""
    output = response.return_value
    without_output = response if output is None else response.model_copy(update={"return_value": None})
    size = len(_compact(without_output.as_json()))
    return size if output is None else size - len("null") + _array_bytes(output)


def _array_bytes(output: bytes) -> int:
    """Length of ``[1,22,333]``: 2 to 4 bytes a byte, counted in C for outputs of megabytes."""
    over_9 = len(output) - len(output.translate(None, delete=_ONE_DIGIT_AND_MORE))
    over_99 = len(output) - len(output.translate(None, delete=_TWO_DIGITS_AND_MORE))
    return 2 + len(output) + over_9 + over_99 + max(0, len(output) - 1)


def _sendable(response: ExecutionResponse, limit_bytes: int) -> ExecutionResponse:
    if resume_bytes(response) <= limit_bytes:
        return response
    if not response.success:
        # A failure's output reaches nobody; its error text does.
        return _with_error_cut(response.model_copy(update={"return_value": None}), limit_bytes)
    if response.error and resume_bytes(response.model_copy(update={"error": ""})) <= limit_bytes:
        return _with_error_cut(response, limit_bytes)
    return _with_error_cut(_too_large(response, limit_bytes), limit_bytes)


def _too_large(response: ExecutionResponse, limit_bytes: int) -> ExecutionResponse:
    output = response.return_value or b""
    error = JobError(
        JobCode.OUTPUT_TOO_LARGE,
        f"the output has {len(output)} bytes and would take {resume_bytes(response)} bytes of the {limit_bytes} that the chain allows",
    )
    return ExecutionResponse(success=False, error=error.text, resources_used=response.resources_used)


def _with_error_cut(response: ExecutionResponse, limit_bytes: int) -> ExecutionResponse:
    """``response`` with the longest beginning of its error text that fits, marked as cut."""
    if resume_bytes(response) <= limit_bytes:
        return response
    text = response.error or ""
    room = limit_bytes - resume_bytes(response.model_copy(update={"error": _CUT_MARK}))
    if room < 0:
        raise ValueError(f"a limit of {limit_bytes} bytes has no room for an error text")
    kept = 0
    for character in text:
        room -= len(_compact(character)) - 2
        if room < 0:
            break
        kept += 1
    return response.model_copy(update={"error": text[:kept] + _CUT_MARK})


def _encodable(response: ExecutionResponse) -> ExecutionResponse:
    """Lone surrogates have no UTF-8: they become the replacement character."""
    if response.error is None or not _SURROGATE.search(response.error):
        return response
    return response.model_copy(update={"error": _SURROGATE.sub("\ufffd", response.error)})


def _compact(value: Any) -> bytes:
    return _COMPACT.encode(value).encode()
