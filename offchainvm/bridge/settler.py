"""The settler watches every transaction in flight until its outcome is final. It holds no key.

    its nonce is unused                one look at the nonces of all keys, at the pace at which blocks take transactions
    its nonce is used                  its window slot is free; it is looked up itself when it should be final
    final                              its jobs are settled, the Coordinator is told
    unknown, and may still land        the same bytes again every few seconds, lowest nonce first
    unknown, and provably dead         its rows wait again (``evidence``)
    anything else                      looked at again

So a resolve costs about one call to look it up, and a share of a look at the nonces. What the node cannot tell now it
can tell later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from offchainvm import metrics
from offchainvm.bridge.evidence import ABSENT, Coroner, Evidence
from offchainvm.bridge.link import Link, turns
from offchainvm.bridge.pace import Pace
from offchainvm.bridge.verdicts import Verdicts
from offchainvm.errors import Unavailable
from offchainvm.jobs.resolves import Resolves, Transaction
from offchainvm.jobs.server import reaching_redis
from offchainvm.logs import get_logger
from offchainvm.near.nonces import Nonces
from offchainvm.near.outcome import TransactionOutcome, TransactionState, look_up
from offchainvm.near.rpc import Rpc, RpcRefused, RpcUnavailable

log = get_logger()

_NEW_EVERY_SECONDS = 0.25
"""How soon a transaction is noticed that was stored by who died before telling, or told another settler."""
_SHORTEST_REST_SECONDS, _LONGEST_LOOK_SECONDS = 0.005, 0.3
_UNSENT_SECONDS, _FIRST_AGAIN_SECONDS, _AGAIN_SECONDS = 0.6, 2.0, 3.0
_UNSEEN_SECONDS = 10.0
"""A key whose lowest transaction is unseen for this long signs nothing until its window is empty."""
_HOLD_REASON = "settler: its lowest transaction in flight is unseen"
_HOLDS_EVERY_SECONDS = 1.0
_TROUBLE_SECONDS = 5.0
_POOL = 8
_LEADS_LOOKS = 10
"""After so many looks at one that is not final, those after it are looked up all the same."""


@dataclass
class _Watch:
    """What this process remembers of one transaction in flight; times are monotonic seconds."""

    since: float
    """When it was first seen; from ``aboard`` on, when its nonce was seen used."""
    look_at: float
    send_at: float
    """From then on an unseen one is looked up, and sent again."""
    looks: int = 0
    """Since ``since``."""
    aboard: bool = False
    absent_since: float | None = None
    evidence: Evidence | None = None

    def is_due(self, now: float) -> bool:
        """Whether the transaction itself is to be looked up."""
        return self.look_at <= now and (self.aboard or self.send_at <= now)


@dataclass(frozen=True)
class _Finding:
    """One look: the outcome and, where it was time to look for it, evidence of death."""

    outcome: TransactionOutcome
    evidence: Evidence | None = None
    may_send: bool = False


class Settler:
    """Settles what is in flight; one active instance is enough, several do no harm.

    Args:
        nonces: makes the ``Nonces`` of our account when the chain's id can be asked.
        on_settled: called after each settled transaction: reports are due.
    """

    def __init__(
        self,
        *,
        resolves: Resolves,
        rpc: Rpc,
        verdicts: Verdicts,
        coroner: Coroner,
        nonces: Callable[[], Nonces],
        operator_id: str,
        on_settled: Callable[[], None],
    ) -> None:
        self._resolves, self._rpc, self._verdicts, self._coroner = resolves, rpc, verdicts, coroner
        self._make_nonces, self._operator_id, self._on_settled = nonces, operator_id, on_settled
        self._nonces: Nonces | None = None
        self._watches: dict[str, _Watch] = {}
        self._keys_aboard = set[str]()
        self._redis, self._chain = Link("redis (settler)"), Link("NEAR RPC (settler)", longest_seconds=4.0)
        self._until_aboard, self._until_final = Pace(0.1), Pace(0.3)
        self._holds_at = self._sending_rests_until = float("-inf")
        self._pool = ThreadPoolExecutor(_POOL, thread_name_prefix="settler")

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop``."""
        turns(stop, self._redis, self._turn_and_rest)

    def _turn_and_rest(self) -> float:
        self._resolves.await_sent(self.turn())
        return 0.0

    def close(self) -> None:
        """End the threads of the pool."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def turn(self) -> float:
        """Look at every transaction that is due; the pause before the next turn, in seconds.

        Raises:
            Unavailable: Redis is away.
        """
        flights, now = self._resolves.in_flight(), time.monotonic()
        self._remember(flights, now)
        self._look_at_nonces(flights, now)
        self._keys_aboard = {flight.public_key for flight in flights if self._watches[flight.hash].aboard}
        self._look_up_due(flights, now)
        self._until_aboard.learn()
        self._until_final.learn()
        self._mind_holds(flights, now)
        upcoming = min((watch.look_at for watch in self._watches.values()), default=float("inf"))
        return min(_NEW_EVERY_SECONDS, max(_SHORTEST_REST_SECONDS, upcoming - time.monotonic()))

    def _remember(self, flights: Sequence[Transaction], now: float) -> None:
        watches = {}
        for flight in flights:
            # Stored and never sent: whoever signed it died in between, unless it is being sent right now.
            patience = _FIRST_AGAIN_SECONDS if flight.attempts else _UNSENT_SECONDS
            first = _Watch(since=now, look_at=now + self._until_aboard.first_seconds, send_at=now + patience)
            watches[flight.hash] = self._watches.get(flight.hash, first)
        self._watches = watches

    def _look_at_nonces(self, flights: Sequence[Transaction], now: float) -> None:
        """Where one is due, one look for all whose nonce was unused so far."""
        ashore = [(flight, self._watches[flight.hash]) for flight in flights if not self._watches[flight.hash].aboard]
        if all(watch.look_at > now for _, watch in ashore):
            return
        nonces, now = self._nonces_of({flight.public_key for flight, _ in ashore}), time.monotonic()
        for flight, watch in ashore:
            watch.looks += watch.look_at <= now
            if nonces.get(flight.public_key, 0) >= flight.nonce:
                self._note_aboard(flight, watch)
            elif watch.look_at <= now < watch.send_at:
                watch.look_at = min(watch.send_at, now + self._until_aboard.again_seconds(now - watch.since))

    def _nonces_of(self, public_keys: set[str]) -> dict[str, int]:
        """Nonces used; none where they cannot be had: then each transaction is looked up when it is time to send it again."""
        try:
            return self._rpc.key_nonces(self._operator_id, public_keys)
        except (RpcRefused, RpcUnavailable) as error:
            self._chain.down(error)
        except Exception:
            log.exception("a node's answer cannot be read", action="look_failed")
        return {}

    def _look_up_due(self, flights: Sequence[Transaction], now: float) -> None:
        """Of what blocks hold, look up the oldest first: while that is not final, neither is what came aboard after it."""
        due = [flight for flight in flights if self._watches[flight.hash].is_due(now)]
        aboard = [flight for flight in due if self._watches[flight.hash].aboard]
        if len(aboard) > 1:
            oldest = min(aboard, key=lambda flight: self._watches[flight.hash].since)
            [finding], lead = self._look_up([oldest]), self._watches[oldest.hash]
            later = aboard if finding.outcome.aboard and lead.looks <= _LEADS_LOOKS else [oldest]
            for flight in later:
                watch = self._watches[flight.hash]
                watch.look_at, watch.looks = lead.look_at, max(watch.looks, lead.looks)
            due = [flight for flight in due if flight not in later]
        self._look_up(due)

    def _look_up(self, flights: Sequence[Transaction]) -> list[_Finding]:
        """In the order of keys and nonces, and so are the sendings: a higher nonce that lands first kills the lower."""
        findings = list(self._pool.map(self._look, flights))
        for flight, finding in zip(flights, findings, strict=True):
            self._act_alone(flight, self._watches[flight.hash], finding)
        return findings

    def _look(self, flight: Transaction) -> _Finding:
        """One look, in a thread of the pool; it changes nothing."""
        watch = self._watches[flight.hash]
        try:
            outcome = look_up(self._rpc, flight.hash, sender_id=self._operator_id, actions=len(flight.data_ids))
            if time.monotonic() < watch.send_at:
                return _Finding(outcome)
            if outcome.state not in ABSENT:
                return _Finding(outcome, may_send=outcome.send_again)
            return _Finding(
                outcome, evidence=self._coroner.examine(flight, refund_due=flight.public_key in self._keys_aboard), may_send=True
            )
        except (RpcRefused, RpcUnavailable) as error:
            return _Finding(TransactionOutcome(TransactionState.NO_STATEMENT, text=error.sentence))
        except Exception as error:
            log.exception("a node's answer cannot be read", action="look_failed", transaction=flight.hash)
            return _Finding(TransactionOutcome(TransactionState.NO_STATEMENT, text=f"{type(error).__name__} in its answer"))

    def _act_alone(self, flight: Transaction, watch: _Watch, finding: _Finding) -> None:
        """Act, so that one transaction about which nothing can be done keeps no other from its turn."""
        try:
            self._act(flight, watch, finding)
        except Unavailable:
            raise
        except Exception:
            log.exception("a transaction cannot be judged; it is looked at again", action="act_failed", transaction=flight.hash)
            watch.look_at = time.monotonic() + _TROUBLE_SECONDS

    def _act(self, flight: Transaction, watch: _Watch, finding: _Finding) -> None:
        watch.looks += 1
        watch.look_at = (now := time.monotonic()) + min(_LONGEST_LOOK_SECONDS, self._until_final.again_seconds(now - watch.since))
        state = finding.outcome.state
        if state is TransactionState.NO_STATEMENT:
            watch.look_at = time.monotonic() + self._chain.down(Unavailable("NEAR RPC", finding.outcome.text, remedy="Check NEAR_RPC_URL."))
        else:
            self._chain.up()
        if finding.outcome.final:
            self._settle(flight, watch, finding.outcome)
        elif state in ABSENT:
            watch.absent_since = watch.absent_since or time.monotonic()
            self._raise_floor(flight, finding.outcome)
            self._act_on_absent(flight, watch, finding)
        else:
            watch.evidence = None
            watch.absent_since = watch.absent_since if state is TransactionState.NO_STATEMENT else None
            if finding.outcome.aboard and not watch.aboard:
                self._note_aboard(flight, watch)
            if finding.may_send:
                self._send_again(flight, watch)

    def _note_aboard(self, flight: Transaction, watch: _Watch) -> None:
        """Free its slot, and look it up about when it will be final."""
        self._resolves.aboard(flight.hash)
        now = time.monotonic()
        self._until_aboard.found(now - watch.since, looks=watch.looks)
        watch.aboard, watch.since, watch.looks = True, now, 0
        if now < watch.send_at:
            watch.look_at = now + self._until_final.first_seconds

    def _act_on_absent(self, flight: Transaction, watch: _Watch, finding: _Finding) -> None:
        earlier, watch.evidence = watch.evidence, finding.evidence
        if finding.evidence is None:
            if finding.may_send:
                self._send_again(flight, watch)
        elif finding.evidence.confirms(earlier):
            self._bury(flight, finding.evidence)
        # Else the first of two looks: nothing is sent in between, or the evidence would be stale.

    def _settle(self, flight: Transaction, watch: _Watch, outcome: TransactionOutcome) -> None:
        rows = self._verdicts.of(flight, outcome)
        if rows is None or not self._resolves.settle(flight.hash, rows, burnt_yocto=outcome.burnt_yocto):
            return
        metrics.TRANSACTIONS.add(outcome=outcome.state.value)
        self._on_settled()
        if watch.aboard:
            self._until_final.found(time.monotonic() - watch.since, looks=watch.looks)
        log.info(
            "transaction settled",
            action="settle_transaction",
            transaction=flight.hash,
            jobs=len(rows),
            state=outcome.state.value,
            gas_burnt=outcome.gas_burnt,
        )

    def _bury(self, flight: Transaction, evidence: Evidence) -> None:
        if self._resolves.dead(flight.hash, evidence.attempts):
            metrics.TRANSACTIONS.add(outcome="dead")
            log.warning(
                "transaction cannot land any more; its jobs wait for another",
                action="transaction_dead",
                transaction=flight.hash,
                reason=evidence.reason,
            )
            if evidence.blames_key:
                self._condemn(flight.public_key, evidence.reason)

    def _condemn(self, public_key: str, why: str) -> None:
        """Let a key sign nothing more when the chain refuses what it signs: each signature would end like the one before."""
        if (nonces := self._our_nonces()) is None:
            return
        with reaching_redis():
            new = nonces.condemn(public_key, why)
        if new:
            log.error(
                "the chain refuses what a key signs, so it signs nothing more. Correct key or setting, then restart the resolve worker",
                action="condemn_key",
                public_key=public_key,
                reason=why,
            )

    def _send_again(self, flight: Transaction, watch: _Watch) -> None:
        if time.monotonic() < self._sending_rests_until:
            return
        # Said before it is done: whoever holds older evidence of its death must learn of it.
        attempt = self._resolves.attempted(flight.hash)
        if not attempt:
            return
        watch.send_at = time.monotonic() + _AGAIN_SECONDS
        try:
            self._rpc.send_tx(flight.signed)
        except (RpcRefused, RpcUnavailable) as error:
            # Else every transaction in flight would wait for the same time-out, one after the other.
            self._sending_rests_until = time.monotonic() + self._chain.down(error)
            return
        metrics.TRANSACTIONS.add(outcome="sent_again")
        log.info("the same transaction sent again", action="send_again", transaction=flight.hash, attempt=attempt)

    def _raise_floor(self, flight: Transaction, outcome: TransactionOutcome) -> None:
        nonce = outcome.reason.ak_nonce if outcome.reason else None
        if nonce is not None and (nonces := self._our_nonces()) is not None:
            with reaching_redis():
                nonces.raise_floor(flight.public_key, nonce)

    def _mind_holds(self, flights: Sequence[Transaction], now: float) -> None:
        """Hold keys whose lowest transaction stays unseen, and let go of those whose window is empty."""
        if now - self._holds_at < _HOLDS_EVERY_SECONDS:
            return
        self._holds_at, lowest = now, dict[str, Transaction]()
        nonces = self._our_nonces()
        if nonces is None:
            return
        for flight in flights:
            lowest.setdefault(flight.public_key, flight)
        with reaching_redis():
            for public_key, flight in lowest.items():
                since = self._watches[flight.hash].absent_since
                if since is not None and now - since >= _UNSEEN_SECONDS and nonces.hold(public_key, _HOLD_REASON):
                    log.warning("key held until its window is empty", action="hold_key", public_key=public_key, transaction=flight.hash)
            freed = [key for key, reason in nonces.held().items() if reason == _HOLD_REASON and key not in lowest and nonces.unhold(key)]
        for public_key in freed:
            log.info("key signs again", action="unhold_key", public_key=public_key)
            self._resolves.ring()

    def _our_nonces(self) -> Nonces | None:
        if self._nonces is None:
            try:
                self._nonces = self._make_nonces()
            except (RpcRefused, RpcUnavailable) as error:
                self._chain.down(error)
        return self._nonces
