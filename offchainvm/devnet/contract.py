"""The OffchainVM contract, its first public version, as clients see it (wire.md §2 and §3).

Read in its source (``contract/src/{lib,execution,views,events}.rs`` of the anchor): a request yields, the operator's
``resolve_execution`` resumes it, the callback charges, refunds and hands the value on. A callback that panics
(``success:false``, time-out) rolls its own refund and the removal of the request back: both stay as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from offchainvm.devnet.validity import TGAS

DEFAULT_LIMITS = {"max_instructions": 10**9, "max_memory_mb": 128, "max_execution_seconds": 60}
RESOLVE_GAS = 2_700_000_000_000
REQUEST_GAS = 60 * TGAS
"""50 TGas of it are reserved for the callback."""
EVENT_VERSION = "1.0.0"


class Panic(Exception):
    """The call fails with this text, as ``ExecutionError`` has it."""

    @staticmethod
    def of(message: str) -> Panic:
        """A panic of the contract's own code."""
        return Panic(f"Smart contract panicked: {message}")


class Host(Protocol):
    """What the chain offers a running call."""

    predecessor_id: str
    deposit: int
    timestamp_ns: int
    max_yield_payload_bytes: int

    def log(self, text: str) -> None: ...
    def yield_create(self, callback: dict[str, Any]) -> bytes: ...
    def yield_resume(self, data_id: bytes, payload: bytes) -> bool: ...
    def transfer(self, account_id: str, amount: int) -> None: ...
    def note(self, undo: Any) -> None: ...


@dataclass
class Pricing:
    """yoctoNEAR; per million instructions, per MiB, per second."""

    base: int = 10**22
    per_million_instructions: int = 10**15
    per_mb: int = 10**20
    per_second: int = 10**21

    def cost(self, used: dict[str, int]) -> int:
        """What the contract charges: whole millions, whole MiB, whole seconds."""
        return (
            self.base
            + used["instructions"] // 1_000_000 * self.per_million_instructions
            + used["memory_bytes"] // 2**20 * self.per_mb
            + used["time_seconds"] * self.per_second
        )


class Contract:
    """State and methods. ``lenient``: take null limits and targets, as later contracts do."""

    def __init__(self, *, owner_id: str, operator_id: str, standard: str = "near-offshore", lenient: bool = False) -> None:
        self.owner_id = owner_id
        self.operator_id = operator_id
        self.standard = standard
        self.lenient = lenient
        self.paused = False
        self.pricing = Pricing()
        self.pending: dict[int, dict[str, Any]] = {}
        self.next_request_id = 0
        self.total_executions = 0
        self.total_fees = 0

    # Calls

    def request_execution(self, host: Host, untrusted_arguments: bytes) -> int:
        """Announce one request and yield; gives its id."""
        arguments = _arguments(untrusted_arguments)
        source = self._source(arguments.get("code_source"))
        limits = self._limits(arguments.get("resource_limits"))
        input_data = arguments.get("input_data")
        if input_data is not None and type(input_data) is not str:
            raise _not_deserialised("invalid type, expected a string")
        if self.paused:
            raise Panic.of("panicked at src/lib.rs:113:9:\nContract is paused")
        if host.deposit < self.pricing.base:
            raise Panic.of("panicked at src/execution.rs:17:9:\nInsufficient payment")
        request_id = self.next_request_id
        self._set(host, "next_request_id", request_id + 1)
        data = {
            "request_id": request_id, "sender_id": host.predecessor_id, "code_source": source, "resource_limits": limits,
            "input_data": "{}" if input_data is None else input_data, "payment": str(host.deposit), "timestamp": host.timestamp_ns,
        }  # fmt: skip
        data_id = host.yield_create(data)
        stored = {**data, "data_id": list(data_id), "payment": host.deposit}
        del stored["input_data"]
        self.pending[request_id] = stored
        host.note(lambda: self.pending.pop(request_id, None))
        self._emit(host, "execution_requested", request_data=_json(data), data_id=list(data_id))
        return request_id

    def resolve_execution(self, host: Host, untrusted_arguments: bytes) -> None:
        """The operator's answer: resumes the request, or panics."""
        arguments = _arguments(untrusted_arguments)
        data_id = arguments.get("data_id")
        if not _is_octets(data_id) or len(data_id) != 32:
            raise _not_deserialised("data_id: expected an array of 32 u8")
        response = _response(arguments.get("response"))
        if host.predecessor_id != self.operator_id:
            sides = f'left: AccountId("{host.predecessor_id}")\n right: AccountId("{self.operator_id}")'
            raise Panic.of(f"panicked at src/lib.rs:117:9:\nassertion `left == right` failed: Only operator can call this\n  {sides}")
        host.log(f"Resolving execution with data_id: {data_id}, success: {_json(response['success'])}")
        payload = _json(response).encode()
        if len(payload) > host.max_yield_payload_bytes:
            limit = host.max_yield_payload_bytes
            raise Panic(f"Yield resume payload is {len(payload)} bytes which exceeds the {limit} byte limit")
        if not host.yield_resume(bytes(data_id), payload):
            raise Panic.of("Unable to resume execution promise")

    def on_execution_response(self, host: Host, request: dict[str, Any], payload: bytes | None) -> str | None:
        """The callback in the requester's receipts; ``payload`` None = timed out. Gives what the caller gets."""
        request_id, payment = request["request_id"], int(request["payment"])
        pending = self.pending.pop(request_id, None)
        if pending is None:
            host.log(f"Warning: Execution request {request_id} not found in pending requests")
            return None
        host.note(lambda: self.pending.__setitem__(request_id, pending))
        self._set(host, "total_executions", self.total_executions + 1)
        response: dict[str, Any] | None = None if payload is None else json.loads(payload)
        succeeded = response is not None and response["success"]
        charged = self.pricing.cost(response["resources_used"]) if response is not None and succeeded else self.pricing.base
        refund = max(payment - charged, 0)
        if refund:
            host.transfer(request["sender_id"], refund)
        self._set(host, "total_fees", self.total_fees + charged)
        if response is None:
            raise Panic.of(f"Execution promise failed: Failed. Refunded {refund} yoctoNEAR")
        told = {"sender_id": request["sender_id"], "code_source": request["code_source"], "resources_used": response["resources_used"]}
        self._emit(host, "execution_completed", **told, success=succeeded)
        if not succeeded:
            error = "Unknown error" if response["error"] is None else response["error"]
            raise Panic.of(f"Execution failed: {error}. Refunded {refund} yoctoNEAR")
        return _value(host, response["return_value"], f"Cost: {charged} yoctoNEAR, Refund: {refund} yoctoNEAR")

    # Views

    def view(self, method: str, untrusted_arguments: bytes) -> Any:
        """The JSON value of a view; KeyError for a method that is none."""
        views: dict[str, Callable[[], Any]] = {
            "get_request": lambda: self.pending.get(_arguments(untrusted_arguments).get("request_id", -1)),
            "get_config": lambda: [self.owner_id, self.operator_id],
            "is_paused": lambda: self.paused,
            "get_pricing": lambda: [str(price) for price in vars(self.pricing).values()],
            "get_stats": lambda: [self.total_executions, str(self.total_fees)],
        }
        return views[method]()

    def _set(self, host: Host, name: str, value: Any) -> None:
        before = getattr(self, name)
        setattr(self, name, value)
        host.note(lambda: setattr(self, name, before))

    def _emit(self, host: Host, event: str, **data: Any) -> None:
        named = {"standard": self.standard, "version": EVENT_VERSION, "event": event}
        host.log("EVENT_JSON:" + _json({**named, "data": [{**data, "timestamp": host.timestamp_ns}]}))

    def _source(self, untrusted: Any) -> dict[str, Any]:
        names = ("repo", "commit", "build_target")
        optional = ("build_target",) if self.lenient else ()
        if type(untrusted) is not dict:
            raise _not_deserialised("missing field `code_source`")
        for name in names:
            value = untrusted.get(name)
            if type(value) is not str and not (value is None and name in optional):
                raise _not_deserialised(f"missing field `{name}`")
        return {name: untrusted.get(name) for name in names}

    def _limits(self, untrusted: Any) -> dict[str, Any]:
        if untrusted is None:
            return DEFAULT_LIMITS
        if type(untrusted) is not dict:
            raise _not_deserialised("invalid type, expected struct ResourceLimits")
        for name, bits in (("max_instructions", 64), ("max_memory_mb", 32), ("max_execution_seconds", 64)):
            if not _is_unsigned(untrusted.get(name), bits) and not (self.lenient and untrusted.get(name) is None):
                raise _not_deserialised(f"missing field `{name}`")
        return {name: untrusted.get(name) for name in DEFAULT_LIMITS}


def _value(host: Host, return_value: list[int] | None, bill: str) -> str | None:
    if return_value is None:
        host.log(f"Execution has no output value. {bill}")
        return None
    try:
        text = bytes(return_value).decode()
    except UnicodeDecodeError as error:
        host.log(f"Execution returned non-UTF8 data: {error}. {bill}")
        return None
    host.log(f"Execution completed successfully. Result: {text}, {bill}")
    return text


def _response(untrusted: Any) -> dict[str, Any]:
    """The response in the contract's own field order: what it serialises again."""
    if type(untrusted) is not dict:
        raise _not_deserialised("missing field `response`")
    used = untrusted.get("resources_used")
    metrics = ("instructions", "memory_bytes", "time_seconds")
    if type(untrusted.get("success")) is not bool:
        raise _not_deserialised("missing field `success`")
    output = untrusted.get("return_value")
    if output is not None and not _is_octets(output):
        raise _not_deserialised("return_value: expected an array of u8")
    if not isinstance(untrusted.get("error"), str | None):
        raise _not_deserialised("error: expected a string")
    if type(used) is not dict or not all(_is_unsigned(used.get(name), 64) for name in metrics):
        raise _not_deserialised("resources_used: missing field or value of another type")
    told = {name: untrusted.get(name) for name in ("success", "return_value", "error")}
    return {**told, "resources_used": {name: used[name] for name in metrics}}


def _is_unsigned(value: Any, bits: int) -> bool:
    return type(value) is int and 0 <= value < 2**bits


def _is_octets(value: Any) -> TypeGuard[list[int]]:
    return type(value) is list and all(type(item) is int and 0 <= item <= 255 for item in value)


def _arguments(untrusted: bytes) -> dict[str, Any]:
    try:
        value = json.loads(untrusted)
        untrusted.decode()
        if "\\u" in untrusted.decode():
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is a text in Python, and none in the contract
    except (ValueError, RecursionError) as error:
        raise _not_deserialised(str(error)) from None
    if type(value) is not dict:
        raise _not_deserialised("invalid type, expected struct Input")
    return value


def _not_deserialised(reason: str) -> Panic:
    return Panic.of(f'panicked at src/execution.rs:4:1:\nFailed to deserialize input from JSON.: Error("{reason}", line: 1, column: 0)')


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
