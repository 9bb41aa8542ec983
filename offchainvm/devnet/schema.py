"""The bodies the Coordinator takes, checked by hand as its deserialiser (serde) does: 422 for a field that does not fit.

By hand, and not through ``offchainvm.models``: the client's models must not be what says that the client is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offchainvm.devnet.http import HttpError, Reply

Check = Callable[[Any, str], Any]


def refuse(sentence: str) -> HttpError:
    """The answer of the server to JSON that is not of the expected form."""
    return HttpError(Reply.text(422, f"Failed to deserialize the JSON body into the target type: {sentence}"))


def _integer(bits: int) -> Check:
    def check(value: Any, place: str) -> int:
        if type(value) is not int or not 0 <= value < 2**bits:
            raise refuse(f"{place}: invalid type or value, expected u{bits}")
        return value

    return check


def _text(value: Any, place: str) -> str:
    if type(value) is not str:
        raise refuse(f"{place}: invalid type, expected a string")
    return value


def _flag(value: Any, place: str) -> bool:
    if type(value) is not bool:
        raise refuse(f"{place}: invalid type, expected a boolean")
    return value


def _octets(value: Any, place: str) -> list[int]:
    if type(value) is not list or not all(type(item) is int and 0 <= item <= 255 for item in value):
        raise refuse(f"{place}: invalid type, expected an array of u8")
    return value


def _or_null(check: Check) -> Check:
    return lambda value, place: None if value is None else check(value, place)


U64, U32 = _integer(64), _integer(32)


def _fields(value: Any, place: str, **checks: Check) -> dict[str, Any]:
    """The named fields, in this order; others are ignored, and an absent one may be absent only where null may stand."""
    if type(value) is not dict:
        raise refuse(f"{place or 'body'}: invalid type, expected a map")
    found = {}
    for name, check in checks.items():
        if name not in value and check not in _OPTIONAL:
            raise refuse(f"{place}missing field `{name}`")
        found[name] = check(value.get(name), f"{place}{name}")
    return found


_OUTPUT, _ERROR = _or_null(_octets), _or_null(_text)
_OPTIONAL = (_OUTPUT, _ERROR)


def _code_source(value: Any, place: str) -> dict[str, Any]:
    found = _fields(value, f"{place}.", type=_text, repo=_text, commit=_text, build_target=_text)
    if found["type"] != "GitHub":
        raise refuse(f"{place}: unknown variant `{found['type']}`, expected `GitHub`")
    return found


def _limits(value: Any, place: str) -> dict[str, Any]:
    return _fields(value, f"{place}.", max_instructions=U64, max_memory_mb=U32, max_execution_seconds=U64)


def new_task(untrusted: Any) -> dict[str, Any]:
    """Body of ``POST /tasks/create``, in the order in which a task's JSON is written."""
    return _fields(untrusted, "", request_id=U64, data_id=_text, code_source=_code_source, resource_limits=_limits, input_data=_text)


def completion(untrusted: Any) -> dict[str, Any]:
    """Body of ``POST /tasks/complete``."""
    return _fields(untrusted, "", request_id=U64, success=_flag, output=_OUTPUT, error=_ERROR, execution_time_ms=U64)


def failure(untrusted: Any) -> dict[str, Any]:
    """Body of ``POST /tasks/fail``."""
    return _fields(untrusted, "", request_id=U64, error=_text)


def lock(untrusted: Any) -> dict[str, Any]:
    """Body of ``POST /locks/acquire``."""
    return _fields(untrusted, "", lock_key=_text, worker_id=_text, ttl_seconds=U64)
