"""Submit: takes what waits, signs once, stores, sends, and returns. It never waits for the chain.

    a key with room ── take rows ── nonce, recent final block ── sign ── store in Redis and in the journal ── send
                                                                         (before the first byte is sent)

Dies between take and store: no bytes exist, the take's lease returns the rows. Dies between store and send: the
bridge's settler sends the stored bytes; it needs no secret for that.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from offchainvm import logs, metrics
from offchainvm.errors import Refused, Unavailable
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.rows import Row, Transaction
from offchainvm.journal import Journal
from offchainvm.near.keyring import Keyring, KeyUnfit
from offchainvm.near.nonces import UNTIL_EMPTY, KeyBusy, KeyHeld, KeyLease, LeaseLost, NonceAhead, Nonces
from offchainvm.near.rpc import ProtocolLimits, RecentBlock, Rpc
from offchainvm.near.signer import OperatorKey
from offchainvm.near.transaction import BlockRef
from offchainvm.tasks.signed import SignedJournal

log = logs.get_logger()

TAKE_LEASE_SECONDS = 20.0
LONGEST_SECONDS = 10.0
"""For one message, however much waits: a worker that never returns looks dead, and is killed at the hard limit."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How resolves are signed."""

    operator_id: str
    contract_id: str
    gas: int
    """Attached to one resolve."""
    window: int
    """Transactions of one key in flight."""
    batch: int = 1
    """Resolves in one transaction of a full-access key, where the chain's limits allow it; a function-call key carries one."""


class Submitter:
    """Signs and sends what waits, as far as the keys have room.

    Args:
        nonces: makes the ``Nonces`` of our account when the chain's id can be asked: the journal is replayed without it.
        check: see ``Keyring``.
    """

    def __init__(
        self,
        *,
        resolves: Resolves,
        nonces: Callable[[], Nonces],
        rpc: Rpc,
        journal: Journal,
        keys: Sequence[OperatorKey],
        policy: Policy,
        check: Callable[[ProtocolLimits], None] | None = None,
    ) -> None:
        self._resolves = resolves
        self._make_nonces, self._check = nonces, check
        self._rpc = rpc
        self._recent_block = RecentBlock(rpc.final_block)
        self._signed = SignedJournal(journal, resolves)
        self._keys = keys
        self._turns = itertools.cycle(keys)
        self._policy = policy
        self._one_at_a_time = threading.Lock()
        self._chain_away, self._until = False, float("inf")
        self._sent_through: dict[str, str] = {}
        """By public key, the endpoint to which the first transaction of a window went."""

    @functools.cached_property
    def _nonces(self) -> Nonces:
        return self._make_nonces()

    @functools.cached_property
    def _keyring(self) -> Keyring:
        policy = self._policy
        return Keyring(self._rpc, self._nonces, operator_id=policy.operator_id, contract_id=policy.contract_id, check=self._check)

    def submit(self) -> int:
        """Send until nothing waits, no key has room, the chain is away or time is up; the number of transactions signed.

        Raises:
            JournalAwaited: this host is ready, and another that signs has not replayed its journal yet.
        """
        with self._one_at_a_time:
            return self._submit()

    def replay(self) -> None:
        """Bring back what a Redis that was started anew may have forgotten; called often, whether or not there is work.

        Until every host that signs has done so, nobody takes a row.
        """
        with self._one_at_a_time:
            self._replay()

    def _replay(self) -> None:
        self._signed.replay()
        # Not within the replay, for which others wait: the chain may be away, and with it the name of its network.
        if self._signed.floors:
            self._signed.raise_floors(self._nonces)

    def _submit(self) -> int:
        self._resolves.answer_bell()
        self._replay()
        self._signed.forget_settled()
        self._chain_away, self._until = False, time.monotonic() + LONGEST_SECONDS
        sent, without_room = 0, 0
        while without_room < len(self._keys) and not self._chain_away:
            if self._time_is_up():
                self._resolves.ring()
                break
            burst = self._submit_with(next(self._turns))
            if burst is None:
                break
            sent, without_room = sent + burst, 0 if burst else without_room + 1
        return sent

    def _submit_with(self, key: OperatorKey) -> int | None:
        """Fill the key's window; the number of transactions sent, None when nothing waits."""
        if self._room(key.public_key) <= 0:
            return 0
        block = self._recent_block.get()
        try:
            size = self._keyring.batch(key.public_key, self._policy.batch, gas=self._policy.gas)
            with self._nonces.lock(key.public_key) as lease:
                # Again, under the lock: another process may have filled it meanwhile.
                room = self._room(key.public_key)
                if room <= 0 or self._endpoint_changed(key.public_key):
                    return 0
                rows = self._resolves.take(room * size, lease_seconds=TAKE_LEASE_SECONDS, final_height=block.height)
                groups = [rows[at : at + size] for at in range(0, len(rows), size)]
                return self._send_all(key, lease, groups, block) if groups else None
        except (KeyBusy, KeyHeld, KeyUnfit, NonceAhead, LeaseLost) as error:
            log.debug("A key signs nothing for now.", action="pass_over_key", public_key=key.public_key, reason=error.sentence)
        return 0

    def _time_is_up(self) -> bool:
        return time.monotonic() >= self._until

    def _room(self, public_key: str) -> int:
        """How many more transactions the key's window takes."""
        used = self._resolves.in_flight_count(public_key)
        if used == 0:
            self._sent_through.pop(public_key, None)
        return self._policy.window - used

    def _endpoint_changed(self, public_key: str) -> bool:
        """A second endpoint's higher nonces could land before the lower ones that the first one took: the key is held until those end."""
        now = self._rpc.endpoint
        if self._sent_through.get(public_key, now) == now:
            return False
        reason = f"{UNTIL_EMPTY}another RPC endpoint took over"
        if self._nonces.hold(public_key, reason):
            log.warning("A key is held until its window is empty.", action="hold_key", public_key=public_key, reason=reason)
        return True

    def _send_all(self, key: OperatorKey, lease: KeyLease, groups: Sequence[Sequence[Row]], block: BlockRef) -> int:
        """Store and send a transaction a group, in the order of the nonces; the number of those that may be in flight now.

        What can no longer be sent in time, under the key's lock, or through the same endpoint, waits again, unsigned.
        """
        signed, begun = self._sign_all(key, lease, groups, block), 0
        try:
            while begun < len(signed) and not self._time_is_up() and self._may_go_on(lease):
                begun += 1
                self._store_and_send(*signed[begun - 1])
        finally:
            self._signed.drop([transaction.hash for transaction, _ in signed[begun:]])
            self._resolves.give_back([row for _, group in signed[begun:] for row in group])
        self._resolves.tell_sent()
        if begun < len(signed):
            self._resolves.ring()
        return begun

    def _may_go_on(self, lease: KeyLease) -> bool:
        """Whether what was signed under the key's lock may still be sent."""
        if not self._nonces.renew(lease):
            log.warning("A key's lock ran out; what was signed under it waits again.", action="lose_lock", public_key=lease.public_key)
            return False
        return not self._endpoint_changed(lease.public_key)

    def _sign_all(
        self, key: OperatorKey, lease: KeyLease, groups: Sequence[Sequence[Row]], block: BlockRef
    ) -> list[tuple[Transaction, Sequence[Row]]]:
        """Sign a transaction a group, and keep them on disk with one sync."""
        try:
            signed = [(self._sign(key, lease, group, block), group) for group in groups]
            self._signed.keep(signed)
        except Exception:
            self._resolves.give_back([row for group in groups for row in group])
            raise
        return signed

    def _store_and_send(self, transaction: Transaction, rows: Sequence[Row]) -> None:
        # Where Redis goes away in between, the journal keeps it: stored it is in flight, else it is forgotten at the second look.
        if self._resolves.store(transaction, rows):
            metrics.TRANSACTIONS.add(outcome="signed")
            self._send(transaction)
        else:
            log.warning("A take ran out before its transaction was stored; nothing was sent.", action="drop_transaction")
            self._signed.drop([transaction.hash])

    def _sign(self, key: OperatorKey, lease: KeyLease, rows: Sequence[Row], block: BlockRef) -> Transaction:
        policy = self._policy
        nonce = self._nonces.next(lease, floor=self._keyring.look(key.public_key).nonce, final_height=block.height)
        signed = key.sign_resolves(
            [row.arguments for row in rows],
            operator_id=policy.operator_id,
            contract_id=policy.contract_id,
            nonce=nonce,
            block=block,
            gas=policy.gas,
        )
        return Transaction(
            hash=signed.hash,
            public_key=signed.public_key,
            nonce=nonce,
            block_height=signed.block_height,
            signed=signed.signed,
            data_ids=tuple(row.data_id for row in rows),
        )

    def _send(self, transaction: Transaction) -> None:
        # Not after a failure: each would wait for the same time-out, under the key's lock. Nor what is over by now.
        if self._chain_away or not self._resolves.attempted(transaction.hash):
            return
        try:
            self._rpc.send_tx(transaction.signed)
        except (Unavailable, Refused) as error:
            self._chain_away = True
            metrics.TRANSACTIONS.add(outcome="unsent")
            sentence = "A transaction could not be sent; the settler sends it."
            log.warning(sentence, action="leave_to_settler", transaction=transaction.hash, error=str(error))
        else:
            self._sent_through.setdefault(transaction.public_key, self._rpc.endpoint)
            metrics.TRANSACTIONS.add(outcome="sent")
            log.info("A resolve was sent.", action="send_resolve", transaction=transaction.hash, data_ids=transaction.data_ids)
