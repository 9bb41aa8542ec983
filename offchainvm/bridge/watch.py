"""The watch over one contract's events, as Redis knows it: who has it, and how far the chain was read.

Keys: ``ovm:monitor:CONTRACT:active`` the holder and a random part, for a few seconds; ``…:cursor`` JSON of ``Cursor``, without its
time, which an earlier release would not read past; ``…:made`` the height of its block, and that time.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock

from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.jobs.server import key, milliseconds, text
from offchainvm.logs import get_logger
from offchainvm.near.blocks import Block
from offchainvm.redis_calls import reaching_redis

log = get_logger()

LEASE_SECONDS = 15.0
"""More than one look at the block service, or one call of the Coordinator, may take: it is renewed between them."""
_BEHIND_SECONDS = 60.0
"""Half of the time in which a request must be resolved."""
_MOVE_CURSOR = Path(__file__).parent / "lua" / "move_cursor.lua"


@dataclass(frozen=True)
class Cursor:
    """The last height that was dealt with, and the last block among the heights up to it."""

    height: int
    block_height: int = 0
    block_hash: str = ""
    """Empty at the start: nothing to compare the next block with."""
    start: int = 0
    """START_BLOCK_HEIGHT when this cursor began: another one begins anew."""
    block_at: float = 0.0
    """When the block was made, in seconds since 1970; 0 = unknown."""

    @property
    def age_seconds(self) -> float | None:
        """How long ago its block was made; None where that is not known."""
        return max(0.0, time.time() - self.block_at) if self.block_at else None

    def past(self) -> Cursor:
        """Behind one more height, which consensus skipped."""
        return replace(self, height=self.height + 1)

    def after(self, block: Block) -> Cursor:
        return replace(self, height=block.height, block_height=block.height, block_hash=block.hash, block_at=block.at)

    def back(self) -> Cursor:
        """Right behind its block: the heights that were passed since are looked at again."""
        return replace(self, height=self.block_height)

    def before(self) -> Cursor:
        """Right before its block, which is read again, whatever it follows."""
        return replace(self, height=self.block_height - 1, block_height=0, block_hash="")


@dataclass(frozen=True)
class Lag:
    """How far the event monitor is behind the chain."""

    blocks: int | None
    """None while nobody tells the newest height."""
    seconds: float
    """Age of the last block read; 0 only where it is known that there is no newer one, or not how old it is."""

    @staticmethod
    def of(cursor: Cursor, newest_height: int | None) -> Lag:
        blocks = None if newest_height is None else max(0, newest_height - cursor.height)
        return Lag(blocks, 0.0 if blocks == 0 else cursor.age_seconds or 0.0)

    def check(self) -> None:
        """Raises: OffchainVMError: so far behind that requests miss their deadline."""
        if self.seconds <= _BEHIND_SECONDS:
            return
        if self.blocks is None:
            raise OffchainVMError(
                f"The event monitor read its last block {self.seconds:.0f} s ago, and nobody tells the newest height.",
                remedy="Check NEARDATA_API_URL and FASTNEAR_API_URL, and the way to them.",
            )
        raise OffchainVMError(
            f"The event monitor is {self.blocks} blocks ({self.seconds:.0f} s) behind the chain.",
            remedy="See its log. It catches up sooner with a NEARDATA_API_KEY that allows more NEARDATA_REQUESTS_PER_MINUTE.",
        )


class Watch:
    """One process' hold on a contract's watch. What it may no longer do, because another took over, has no effect.

    Args:
        holder: name of this process, for people.
    """

    def __init__(self, redis: Redis, contract_id: str, *, holder: str) -> None:
        self._redis: Any = redis
        self._active, self._place, self._made = _keys(contract_id)
        self._lock = Lock(redis, self._active, timeout=LEASE_SECONDS, blocking=False, thread_local=False)
        self._move_cursor = self._redis.register_script(_MOVE_CURSOR.read_text())
        self._holder = holder
        self._token, self._stored = "", ""

    def hold(self) -> bool:
        """Take the watch, or keep it for a while longer; False while another has it.

        Raises:
            Unavailable: Redis is away.
        """
        with reaching_redis():
            return self._keep() or self._take()

    def keep(self) -> bool:
        """Keep the watch for a while longer; False when it ran out.

        Raises:
            Unavailable: Redis is away.
        """
        with reaching_redis():
            return self._keep()

    def cursor(self) -> Cursor | None:
        """Where Redis says that the chain was read to.

        Raises:
            Unavailable: Redis is away.
        """
        with reaching_redis():
            stored, made = map(_text, self._redis.mget(self._place, self._made))
        self._stored = stored
        return _parsed(stored, made)

    def move(self, cursor: Cursor) -> bool:
        """Store ``cursor``, if the watch is ours still, and Redis has the cursor that was read or stored last.

        Another one stands there when Redis was restarted and forgot its last second, the inputs of that second included:
        the way from there must be walked again.

        Raises:
            Unavailable: Redis is away; the cursor may have moved.
        """
        moved, made = _written(cursor)
        keys = [self._place, self._active, self._made]
        with reaching_redis():
            done = self._move_cursor(keys=keys, args=[self._stored, moved, self._token, milliseconds(LEASE_SECONDS), made])
        if done:
            self._stored = moved
        return bool(done)

    def release(self) -> None:
        """Let another one watch at once."""
        try:
            with reaching_redis():
                self._lock.release()
        except (LockError, Unavailable):
            log.debug("the monitor's lease runs out by itself", action="monitor_steps_down")

    def _keep(self) -> bool:
        try:
            return bool(self._lock.reacquire())
        except LockError:
            return False

    def _take(self) -> bool:
        self._token = f"{self._holder} {secrets.token_hex(8)}"
        return bool(self._lock.acquire(token=self._token))


def look_at_watch(redis: Redis, contract_id: str) -> tuple[str, Cursor | None]:
    """Who has the watch ("" for nobody), and how far the chain was read (None: nobody ever watched).

    Raises:
        Unavailable: Redis is away.
    """
    client: Any = redis
    with reaching_redis():
        active, place, made = map(_text, client.mget(*_keys(contract_id)))
    return active.rpartition(" ")[0], _parsed(place, made)


def _keys(contract_id: str) -> tuple[str, str, str]:
    active, place, made = (key("monitor", contract_id, name) for name in ("active", "cursor", "made"))
    return active, place, made


def _text(stored: bytes | str | None) -> str:
    return "" if stored is None else text(stored)


def _written(cursor: Cursor) -> tuple[str, str]:
    values = asdict(cursor)
    return json.dumps({name: value for name, value in values.items() if name != "block_at"}), f"{cursor.block_height} {cursor.block_at}"


def _parsed(stored: str, made: str) -> Cursor | None:
    """A newer release may know of more; an earlier one moves the cursor without a word of the time."""
    if not stored:
        return None
    known = {field.name for field in fields(Cursor)}
    cursor = Cursor(**{name: value for name, value in json.loads(stored).items() if name in known})
    height, _, at = made.partition(" ")
    return replace(cursor, block_at=float(at)) if height == str(cursor.block_height) else cursor
