"""Accounts and access keys, with what they were at earlier heights, and changes that can be taken back."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from offchainvm.devnet.borsh import Permission

NONCES_PER_HEIGHT = 1_000_000
_HISTORY = 4096


@dataclass
class AccessKey:
    """One key of an account; ``permission`` None = full access."""

    nonce: int
    permission: Permission | None
    added_at: int
    """Height."""
    allowance: int | None = None
    deleted_at: int | None = None
    nonces: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    """(height, nonce) of each use."""

    def use(self, nonce: int, height: int) -> None:
        """Raise the nonce: one that is used is used, whatever becomes of the receipt."""
        if not self.nonces:
            self.nonces.append((0, self.nonce))
        self.nonce = nonce
        self.nonces.append((height, nonce))

    def nonce_at(self, height: int) -> int:
        """The nonce as a block of this height has it."""
        if not self.nonces or self.nonces[-1][0] <= height:
            return self.nonce
        return next((nonce for used_at, nonce in reversed(self.nonces) if used_at <= height), self.nonces[0][1])

    def exists_at(self, height: int) -> bool:
        return self.added_at <= height and (self.deleted_at is None or self.deleted_at > height)


@dataclass
class Account:
    balance: int
    """yoctoNEAR."""
    keys: dict[str, AccessKey] = field(default_factory=dict)

    def live_key(self, public_key: str) -> AccessKey | None:
        key = self.keys.get(public_key)
        return key if key is not None and key.deleted_at is None else None


class Ledger:
    """All accounts. Inside ``atomically`` every change is told with how to undo it."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._undo: list[Callable[[], object]] | None = None

    @contextlib.contextmanager
    def atomically(self) -> Iterator[None]:
        """Take every noted change back, last first, when the body raises."""
        self._undo = []
        try:
            yield
        except BaseException:
            for undo in reversed(self._undo):
                undo()
            raise
        finally:
            self._undo = None

    def note(self, undo: Callable[[], object]) -> None:
        """How to take back the change that was just made."""
        if self._undo is not None:
            self._undo.append(undo)

    def pay(self, account_id: str, amount: int) -> None:
        """Add to a balance (yoctoNEAR, may be negative); money for nobody is lost, as on chain."""
        account = self.accounts.get(account_id)
        if account is not None:
            account.balance += amount
            self.note(lambda: setattr(account, "balance", account.balance - amount))

    def create(self, account_id: str) -> None:
        self.accounts[account_id] = Account(0)
        self.note(lambda: self.accounts.pop(account_id))

    def add_key(self, account: Account, public_key: str, permission: Permission | None, height: int) -> None:
        """A new key starts at a nonce that no earlier one of this height can have had."""
        before = account.keys.get(public_key)
        allowance = None if permission is None else permission.allowance
        account.keys[public_key] = AccessKey((height - 1) * NONCES_PER_HEIGHT, permission, height, allowance)
        self.note(lambda: account.keys.pop(public_key) if before is None else account.keys.__setitem__(public_key, before))

    def delete_key(self, key: AccessKey, height: int) -> None:
        key.deleted_at = height
        self.note(lambda: setattr(key, "deleted_at", None))
