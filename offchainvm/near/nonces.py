"""Nonces and locks of the operator's keys, by public key: no secret is known here.

Signing and sending of one key go one after the other, under a lock of milliseconds; the nonce comes from one script that
checks that lock, so that a process which slept through its lock's end cannot sign (near.md, "Keys and nonces").
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from offchainvm.errors import Unavailable
from offchainvm.logs import get_logger
from offchainvm.redis_calls import reaching_redis

NONCES_PER_HEIGHT = 1_000_000
"""The chain refuses a nonce at or over this times the height; a chunk producer drops it without a word."""
MARGIN = 1_000
REFUSED = "refused: "
"""Begins the reason of a hold that waits for the operator: the chain refuses what this key signs."""
UNTIL_EMPTY = "settler: "
"""Begins the reason of a hold that the settler ends when the key has nothing in flight."""
_LARGEST = 2**53
"""Lua counts in doubles: whole numbers are exact up to here (height 9 × 10^9)."""
_KEY, _HELD, _NAMES = "ovm:key:", "ovm:keys-held:", "ovm:key-names"
_LUA = Path(__file__).parent / "lua"
log = get_logger()


class KeyBusy(Unavailable):
    """Another process is signing with this key right now."""

    code = "key_busy"


class KeyHeld(Unavailable):
    """This key must not sign until what it has in flight is over."""

    code = "key_held"


class LeaseLost(Unavailable):
    """The key's lock ran out or was taken over: nothing may be signed under it."""

    code = "key_lease_lost"


class NonceAhead(Unavailable):
    """The next nonce is too large for the chain's height: wait for blocks."""

    code = "nonce_ahead"


@dataclass(frozen=True)
class KeyLease:
    """The right to sign with one key, until its time runs out."""

    public_key: str
    token: str


@dataclass(frozen=True)
class KeyState:
    """What Redis knows of one key that ever signed."""

    account: str
    """``network/account``."""
    public_key: str
    last: int
    """The nonce given last; 0: none yet."""
    floor: int
    held: str
    """Why it must not sign now; empty: it may."""


def known_keys(redis: Redis) -> list[KeyState]:
    """Every key that was ever locked, of all accounts, by name.

    Raises:
        Unavailable: Redis is away.
    """
    client: Any = redis
    with reaching_redis():
        names = sorted(map(_text, client.smembers(_NAMES)))
        pipe = client.pipeline(transaction=False)
        for name in names:
            account, _, public_key = name.removeprefix(_KEY).rpartition("/")
            pipe.hmget(name, "last", "floor").hget(_HELD + account, public_key)
        answers = iter(pipe.execute())
    return [_state(name, numbers, held) for name, (numbers, held) in zip(names, zip(answers, answers, strict=True), strict=True)]


def _state(name: str, numbers: list[Any], held: Any) -> KeyState:
    account, _, public_key = name.removeprefix(_KEY).rpartition("/")
    last, floor = (int(number or 0) for number in numbers)
    return KeyState(account, public_key, last, floor, _text(held) if held else "")


class Nonces:
    """Nonces of one account's keys on one network; every method raises ``Unavailable`` while Redis is away.

    Args:
        redis: the only state; several processes share it.
        network: the chain's id; with ``account_id`` it keeps the keys of different installations apart.
    """

    def __init__(self, redis: Redis, *, network: str, account_id: str) -> None:
        self._redis, self._scope = redis, f"{network}/{account_id}"
        self._lock, self._renew, self._unlock, self._nonce, self._floor, self._unhold = (
            redis.register_script((_LUA / f"{name}.lua").read_text()) for name in ("lock", "renew", "unlock", "nonce", "floor", "unhold")
        )

    @contextmanager
    def lock(self, public_key: str, *, ttl_seconds: float = 10.0) -> Iterator[KeyLease]:
        """Hold the key's lock; it ends by itself after ``ttl_seconds``, should this process die.

        Raises:
            KeyBusy: another holds it.
        """
        lease = self._acquire(public_key, ttl_seconds)
        try:
            yield lease
        finally:
            self._give_back(lease)

    def renew(self, lease: KeyLease, *, ttl_seconds: float = 10.0) -> bool:
        """Prolong a lease; False when it is lost: then nothing may be sent under it."""
        with reaching_redis():
            return bool(self._renew(keys=[self._key(lease.public_key)], args=[lease.token, _milliseconds(ttl_seconds)]))

    def next(self, lease: KeyLease, *, floor: int = 0, final_height: int) -> int:
        """The next nonce of the lease's key. It is never given back: gaps are fine.

        Args:
            floor: the access key's nonce as the chain last showed it.
            final_height: height of a final block.

        Raises:
            LeaseLost, KeyHeld, NonceAhead.
        """
        lowest, limit = NONCES_PER_HEIGHT * final_height, NONCES_PER_HEIGHT * (final_height + 1) - MARGIN
        if max(limit, floor) >= _LARGEST:
            raise NonceAhead("NEAR", f"a nonce over {floor} is larger than this program can count")
        # The call's own token: redis-py repeats a script whose answer was lost.
        arguments: list[str | int] = [lease.token, secrets.token_hex(8), lease.public_key, floor, lowest, limit]
        with reaching_redis():
            verdict, value = self._nonce(keys=[self._key(lease.public_key), self._held_key], args=arguments)
        return int(value) if _text(verdict) == "nonce" else _refuse(_text(verdict), lease.public_key, _text(value))

    def raise_floor(self, public_key: str, nonce: int) -> None:
        """No later nonce is at or under ``nonce``: from ``InvalidNonce`` (its ``ak_nonce``) or from a journal."""
        if nonce < _LARGEST:
            with reaching_redis():
                self._floor(keys=[self._key(public_key)], args=[nonce])

    def hold(self, public_key: str, reason: str) -> bool:
        """Let the key sign nothing until ``unhold``; ``reason`` begins with its kind. True when it was not held before."""
        with reaching_redis():
            return bool(self._redis.hsetnx(self._held_key, public_key, reason))

    def unhold(self, public_key: str, kind: str) -> bool:
        """Let a key sign again whose hold's reason begins with ``kind``; True when there was such a hold."""
        with reaching_redis():
            return bool(self._unhold(keys=[self._held_key], args=[public_key, kind]))

    def disable(self, public_key: str, why: str) -> bool:
        """Hold a key because the chain refuses what it signs, whatever else it is held for; True when that is new."""
        with reaching_redis():
            before: Any = self._redis.hget(self._held_key, public_key)
            self._redis.hset(self._held_key, public_key, REFUSED + why)
        return before is None or not _text(before).startswith(REFUSED)

    def enable(self, public_key: str) -> bool:
        """End what ``disable`` did, and no other hold; True when there was something to end."""
        return self.unhold(public_key, REFUSED)

    def held(self) -> dict[str, str]:
        """The keys of this account that are held, and why."""
        with reaching_redis():
            rows: Any = self._redis.hgetall(self._held_key)
        return {_text(key): _text(reason) for key, reason in rows.items()}

    @property
    def _held_key(self) -> str:
        return _HELD + self._scope

    def _key(self, public_key: str) -> str:
        return f"{_KEY}{self._scope}/{public_key}"

    def _acquire(self, public_key: str, ttl_seconds: float) -> KeyLease:
        lease = KeyLease(public_key=public_key, token=secrets.token_hex(16))
        with reaching_redis():
            if not self._lock(keys=[self._key(public_key), _NAMES], args=[lease.token, _milliseconds(ttl_seconds)]):
                raise KeyBusy("NEAR key", f"another process signs with {public_key}", retry_after_seconds=0.05)
        return lease

    def _give_back(self, lease: KeyLease) -> None:
        try:
            with reaching_redis():
                self._unlock(keys=[self._key(lease.public_key)], args=[lease.token])
        except Unavailable:
            # What was done under the lock stays done; the lock ends by its own time.
            log.debug("A key's lock is left to run out", action="leave_key_lock", public_key=lease.public_key)


def _refuse(verdict: str, public_key: str, value: str) -> int:
    if verdict == "held":
        raise KeyHeld("NEAR key", f"{public_key} is held: {value}")
    if verdict == "ahead":
        raise NonceAhead("NEAR", f"nonce {value} of {public_key} is too large for the chain's height", retry_after_seconds=1.0)
    raise LeaseLost("NEAR key", f"the lock of {public_key} is lost")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
