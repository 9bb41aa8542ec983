"""The Redis of this house: its scripts, and its absence as an error of ours."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis import exceptions as redis_errors
from redis.commands.core import Script

from offchainvm.errors import Unavailable

PREFIX = "ovm:"
_FOLDER = Path(__file__).parent / "lua"
_NOT_NOW = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY ")
"""Refusals that pass: the disk is full, replicas are away, a script runs too long."""
_AWAY = (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.ReadOnlyError, redis_errors.OutOfMemoryError)


def new_token() -> str:
    """A name for one call: the script that saw it before gives the same answer, and changes nothing."""
    return secrets.token_hex(12)


def key(*parts: str) -> str:
    """A key of this house: ``ovm:part:part``."""
    return PREFIX + ":".join(parts)


def plain(untrusted_text: str, *, limit: int = 500) -> str:
    """A text as Redis and a terminal can take it: no lone surrogates, at most ``limit`` characters."""
    return untrusted_text[:limit].encode("utf-8", "replace").decode("utf-8")


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def text(value: bytes | str) -> str:
    """An answer of a client that decodes, or of one that does not."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def decoded(fields: Mapping[Any, Any]) -> dict[str, str]:
    """A hash, or the fields of a stream's entry, as the client gives them."""
    return {text(name): text(value) for name, value in fields.items()}


def flat(values: list[str]) -> dict[str, str]:
    """A hash from the flat list in which scripts return it."""
    pairs = iter(values)
    return dict(zip(pairs, pairs, strict=True))


@cache
def _source(name: str) -> str:
    """One script, behind ``common.lua`` and what its line ``-- Needs:`` names: the server has no modules."""
    script = (_FOLDER / f"{name}.lua").read_text()
    needs = re.search(r"^-- Needs: (.+)$", script, re.MULTILINE)
    parts = ["common", *(needs[1].split() if needs else [])]
    return "\n".join([*((_FOLDER / f"{part}.lua").read_text() for part in parts), script])


@contextmanager
def reaching_redis() -> Iterator[None]:
    """Turn 'Redis is away' (unreachable, loading, a replica, full) into ``Unavailable``."""
    try:
        yield
    except _AWAY as error:
        raise _unavailable(error) from error
    except redis_errors.ResponseError as error:
        if str(error).startswith(_NOT_NOW):
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable("redis", f"Redis does not take the call: {str(error).rstrip('.')}.", remedy="Check REDIS_URL, and the server's log.")


class Server:
    """Runs the scripts of ``lua/`` by their names: EVALSHA, loaded again where the server forgot them."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts: dict[str, Script] = {}

    def run(self, name: str, *arguments: str | int | bytes) -> Any:
        """Run one script; its answer is an integer, a JSON text (decoded here) or None."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.redis.register_script(_source(name))
        with reaching_redis():
            answer = script(args=arguments)
        return json.loads(answer) if isinstance(answer, (bytes, str)) else answer
