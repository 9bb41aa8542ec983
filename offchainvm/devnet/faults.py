"""Faults on demand: which requests go wrong, how, and how often."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {
    "status": "answer `status` with `body`, and do nothing",
    "hang": "never answer, until the client leaves or the faults are cleared",
    "delay": "wait `seconds`, then serve normally",
    "drop": "close the connection, and do nothing",
    "drop_after": "serve, then close the connection instead of answering",
    "none": "serve normally: counts",
    "unknown": "chain only: answer UNKNOWN_TRANSACTION",
    "timeout": "chain only: answer TIMEOUT_ERROR",
}


@dataclass
class Fault:
    """One fault. It hits requests that match every given condition; empty conditions match all."""

    kind: str
    path: str = ""
    """Prefix of the path."""
    method: str = ""
    """HTTP method."""
    rpc_method: str = ""
    """Method of a JSON-RPC body."""
    contains: str = ""
    """Text inside the body."""
    after: int = 0
    """Matching requests that go through first."""
    times: int = 1
    """Matching requests that are hit; 0 = all, until the faults are cleared."""
    status: int = 500
    body: str = ""
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    hits: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TypeError(f"unknown fault kind {self.kind!r}; there are: {', '.join(KINDS)}")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def matches(self, method: str, path: str, body: bytes) -> bool:
        """Whether the fault speaks of this request."""
        return (
            path.startswith(self.path)
            and (not self.method or method == self.method)
            and (not self.contains or self.contains.encode() in body)
            and (not self.rpc_method or _rpc_method(body) == self.rpc_method)
        )


def _rpc_method(body: bytes) -> str | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value.get("method") if isinstance(value, dict) else None


class Ration:
    """At most so many requests in any minute; 0 = without limit."""

    def __init__(self) -> None:
        self.per_minute = 0
        self._taken = deque[float]()

    def seconds_to_wait(self) -> int:
        """0: the request is taken, and counted; else when the next one may be."""
        now = time.monotonic()
        while self._taken and self._taken[0] <= now - 60:
            self._taken.popleft()
        if self.per_minute and len(self._taken) >= self.per_minute:
            return math.ceil(self._taken[0] + 60 - now)
        self._taken.append(now)
        return 0


class Faults:
    """The faults in force, first come first served."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self._cleared = asyncio.Event()

    def add(self, fault: Fault) -> None:
        """Put one more in force."""
        self.active.append(fault)

    def clear(self) -> None:
        """Take all out of force, and let hanging requests go."""
        self.active.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    async def cleared(self) -> None:
        """Return at the next ``clear``."""
        await self._cleared.wait()

    def take(self, method: str, path: str, body: bytes) -> Fault | None:
        """The fault that hits this request, counted; None for a healthy one."""
        for fault in self.active:
            if not fault.matches(method, path, body):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.hits += 1
            if fault.times and fault.hits >= fault.times:
                self.active.remove(fault)
            return fault
        return None
