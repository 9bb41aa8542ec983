"""The Redis of this house: its keys and its scripts."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.commands.core import Script

from offchainvm.redis_calls import reaching_redis

PREFIX = "ovm:"
_FOLDER = Path(__file__).parent / "lua"


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
