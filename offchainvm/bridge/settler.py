"""The settler watches every transaction in flight until its outcome is final. It holds no key.

    final                              its jobs are settled, the Coordinator is told
    unknown, and may still land        the same bytes again every few seconds, lowest nonce first
    unknown, and provably dead         its rows wait again (``evidence``)
    anything else                      looked at again

It is looked up when it should be final, so a resolve costs about one call. Only while rows wait for a slot of a window
does one look tell the nonces of all keys, at the pace at which blocks take transactions: what has its nonce used needs its
slot no more. What the node cannot tell now it can tell later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from offchainvm import metrics
from offchainvm.bridge.evidence import ABSENT, Evidence, Examiner
from offchainvm.bridge.key_holds import KeyHolds
from offchainvm.bridge.link import Link, turns
from offchainvm.bridge.pace import Pace, Wait
from offchainvm.bridge.verdicts import Verdicts
from offchainvm.errors import Unavailable
from offchainvm.jobs.resolves import Resolves, RowOutcome, Transaction
from offchainvm.logs import get_logger
from offchainvm.near.nonces import Nonces
from offchainvm.near.outcome import TransactionOutcome, TransactionState, look_up
from offchainvm.near.rpc import Rpc, RpcRefused, RpcUnavailable

log = get_logger()

_NEW_EVERY_SECONDS = 0.25
"""How soon a transaction is noticed that was stored by who died before telling, or told another settler."""
_SHORTEST_REST_SECONDS = 0.005
_UNSENT_SECONDS, _FIRST_AGAIN_SECONDS, _AGAIN_SECONDS = 0.6, 2.0, 3.0
_UNSEEN_SECONDS = 10.0
"""A key whose lowest transaction is unseen for this long signs nothing until its window is empty."""
_TROUBLE_SECONDS = 5.0
_POOL = 8
_LEADS_LOOKS = 10
"""After so many looks at one that is not final, those after it are looked up all the same."""


@dataclass
class _Watch:
    """What this process remembers of one transaction in flight; times are monotonic seconds."""

    since: float
    """When it was first seen."""
    for_slot: Wait
    """Until its nonce is used."""
    for_end: Wait
    """Until it is final; from ``included`` on, since its nonce was seen used."""
    included: bool = False
    sent_again_at: float | None = None
    unseen_since: float | None = None
    """Since when no node said that it has seen it, silent nodes included."""
    absent: bool = False
    """The last statement of a node was that it has not seen it."""
    evidence: Evidence | None = None

    def is_unseen(self, now: float) -> bool:
        """For so long that what its key signs next could land before it."""
        return self.unseen_since is not None and now - self.unseen_since >= _UNSEEN_SECONDS

    def send_at(self, flight: Transaction) -> float:
        """From then on, while it is unseen, it is sent again."""
        if self.sent_again_at is not None:
            return self.sent_again_at + _AGAIN_SECONDS
        # Stored and never sent: whoever signed it died in between, unless it is being sent right now.
        return self.since + (_FIRST_AGAIN_SECONDS if flight.attempts else _UNSENT_SECONDS)

    def due_at(self, flight: Transaction) -> float:
        """When the transaction itself is looked up."""
        if flight.attempts:
            return self.for_end.due_at
        return max(self.for_end.pause_until, min(self.for_end.due_at, self.send_at(flight)))


@dataclass(frozen=True)
class _Finding:
    """One look: the outcome and, where it was time to look for it, evidence of death."""

    outcome: TransactionOutcome
    evidence: Evidence | None = None
    may_send: bool = False

    @property
    def on_its_way(self) -> bool:
        """Whether a transaction looks so on its way: later ones are behind it."""
        return not self.may_send and (self.outcome.included or self.outcome.state is TransactionState.UNKNOWN)


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
        examiner: Examiner,
        nonces: Callable[[], Nonces],
        operator_id: str,
        on_settled: Callable[[], None],
    ) -> None:
        self._resolves, self._rpc, self._verdicts, self._examiner = resolves, rpc, verdicts, examiner
        self._operator_id, self._on_settled = operator_id, on_settled
        self._watches: dict[str, _Watch] = {}
        self._flights: Sequence[Transaction] = ()
        self._redis, self._chain = Link("redis (settler)"), Link("NEAR RPC (settler)", longest_seconds=4.0)
        self._until_included, self._from_included_to_final, self._until_final = Pace(0.1, boldness=0.005), Pace(0.3), Pace(0.4)
        self._sending_rests_until = float("-inf")
        self._keys = KeyHolds(nonces, in_flight=resolves.in_flight, chain=self._chain, on_freed=resolves.ring)
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
        self._flights, now = self._resolves.in_flight(), time.monotonic()
        self._remember(now)
        self._look_for_slots(now)
        self._look_up_due(now)
        for pace in (self._until_included, self._from_included_to_final, self._until_final):
            pace.learn()
        self._mind_keys(now)
        return min(_NEW_EVERY_SECONDS, max(_SHORTEST_REST_SECONDS, self._next_look(now) - time.monotonic()))

    def _next_look(self, now: float) -> float:
        """When to look next, by what was known at ``now``; a slot that is overdue then is wanted by nobody."""
        ends = [self._watches[flight.hash].due_at(flight) for flight in self._flights]
        slots = [due for flight in self._not_included() if (due := self._watches[flight.hash].for_slot.due_at) > now]
        return min([*ends, *slots], default=float("inf"))

    def _remember(self, now: float) -> None:
        def first() -> _Watch:
            return _Watch(now, for_slot=Wait(self._until_included, now), for_end=Wait(self._until_final, now))

        self._watches = {flight.hash: self._watches.get(flight.hash) or first() for flight in self._flights}

    def _not_included(self) -> list[Transaction]:
        """Those whose nonce was unused so far."""
        return [flight for flight in self._flights if not self._watches[flight.hash].included]

    def _look_for_slots(self, now: float) -> None:
        """While rows wait for slots, and one may have become free: one look for all."""
        not_included = self._not_included()
        if not any(self._watches[flight.hash].for_slot.due_at <= now for flight in not_included) or not self._resolves.waiting_count():
            return
        nonces, now = self._nonces_of({flight.public_key for flight in not_included}), time.monotonic()
        for flight in not_included:
            watch = self._watches[flight.hash]
            watch.for_slot.looked(now)
            if nonces.get(flight.public_key, 0) >= flight.nonce:
                watch.for_slot.found(now)
                watch.for_end.early(now)
                self._free_slot(flight, watch)
                if now < watch.send_at(flight):
                    watch.for_end = Wait(self._from_included_to_final, now)
            elif nonces:
                watch.for_end.put_off(min(now + self._from_included_to_final.first_seconds, watch.send_at(flight)))

    def _free_slot(self, flight: Transaction, watch: _Watch) -> None:
        """Its nonce is used."""
        if not watch.included:
            self._resolves.mark_included(flight.hash)
            watch.included = True

    def _nonces_of(self, public_keys: set[str]) -> dict[str, int]:
        """Nonces used; none where they cannot be had: then each transaction is looked up for itself."""
        try:
            return self._rpc.key_nonces(self._operator_id, public_keys)
        except (RpcRefused, RpcUnavailable) as error:
            self._chain.down(error)
        except Exception:
            log.exception("a node's answer cannot be read", action="look_failed")
        return {}

    def _look_up_due(self, now: float) -> None:
        for included in (True, False):
            alike = [flight for flight in self._flights if self._watches[flight.hash].included is included]
            due = [flight for flight in alike if self._watches[flight.hash].due_at(flight) <= now]
            if due:
                self._look_up(self._after_the_oldest(due, alike))

    def _after_the_oldest(self, due: Sequence[Transaction], alike: Sequence[Transaction]) -> list[Transaction]:
        """Look up the oldest: while that is not final, neither is what came after it. Those that are left to be looked up."""
        oldest = min(due, key=lambda flight: self._watches[flight.hash].since)
        [finding], lead = self._look_up([oldest]), self._watches[oldest.hash]
        others = [flight for flight in due if flight is not oldest]
        if not finding.on_its_way or lead.for_end.looks > _LEADS_LOOKS:
            return others
        for flight in others:
            self._watches[flight.hash].for_end.looks += 1
        for watch in (self._watches[flight.hash] for flight in alike):
            if watch.since >= lead.since:
                watch.for_end.put_off(lead.for_end.pause_until)
        return []

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
            if time.monotonic() < watch.send_at(flight):
                return _Finding(outcome)
            if outcome.state not in ABSENT:
                return _Finding(outcome, may_send=outcome.send_again)
            return _Finding(outcome, evidence=self._evidence(flight), may_send=True)
        except (RpcRefused, RpcUnavailable) as error:
            return _Finding(TransactionOutcome(TransactionState.NO_STATEMENT, text=error.sentence))
        except Exception as error:
            log.exception("a node's answer cannot be read", action="look_failed", transaction=flight.hash)
            return _Finding(TransactionOutcome(TransactionState.NO_STATEMENT, text=f"{type(error).__name__} in its answer"))

    def _evidence(self, flight: Transaction) -> Evidence | None:
        """None also where a node does not say enough: the same bytes again are always safe."""
        try:
            return self._examiner.examine(flight, refund_due=self._refund_due(flight))
        except (RpcRefused, RpcUnavailable) as error:
            log.debug("no evidence can be had", action="no_evidence", transaction=flight.hash, error=error.sentence)
            return None

    def _refund_due(self, flight: Transaction) -> bool:
        """Whether its key has another transaction that a block may hold: when that is final, allowance may come back."""
        others = (other for other in self._flights if other.public_key == flight.public_key and other.hash != flight.hash)
        return any(watch.included or not watch.absent for watch in (self._watches[other.hash] for other in others))

    def _act_alone(self, flight: Transaction, watch: _Watch, finding: _Finding) -> None:
        """Act, so that one transaction about which nothing can be done keeps no other from its turn."""
        try:
            self._act(flight, watch, finding)
        except Unavailable:
            raise
        except Exception:
            log.exception("a transaction cannot be judged; it is looked at again", action="act_failed", transaction=flight.hash)
            watch.for_end.put_off(time.monotonic() + _TROUBLE_SECONDS)

    def _act(self, flight: Transaction, watch: _Watch, finding: _Finding) -> None:
        state, now = finding.outcome.state, time.monotonic()
        if state is TransactionState.NO_STATEMENT:
            watch.for_end.put_off(now + self._chain.down(Unavailable("NEAR RPC", finding.outcome.text, remedy="Check NEAR_RPC_URL.")))
        else:
            self._chain.up()
            watch.for_end.looked(now)
            watch.absent = state in ABSENT
        unseen = watch.absent or state is TransactionState.NO_STATEMENT
        watch.unseen_since = (watch.unseen_since or now) if unseen else None
        if finding.outcome.final:
            self._settle(flight, watch, finding.outcome)
        elif state in ABSENT:
            self._raise_floor(flight, finding.outcome)
            self._act_on_absent(flight, watch, finding)
        else:
            watch.evidence = None
            if finding.outcome.included:
                watch.for_end.early(now)
                self._free_slot(flight, watch)
            if finding.may_send:
                self._send_again(flight)

    def _act_on_absent(self, flight: Transaction, watch: _Watch, finding: _Finding) -> None:
        earlier, watch.evidence = watch.evidence, finding.evidence
        if finding.evidence is None:
            if finding.may_send:
                self._send_again(flight)
        elif finding.evidence.confirms(earlier):
            self._mark_dead(flight, finding.evidence)
        # Else the first of two looks: nothing is sent in between, or the evidence would be stale.

    def _settle(self, flight: Transaction, watch: _Watch, outcome: TransactionOutcome) -> None:
        rows = self._verdicts.of(flight, outcome)
        if rows is None or not self._resolves.settle(flight.hash, rows, burnt_yocto=outcome.burnt_yocto):
            return
        metrics.TRANSACTIONS.add(outcome=outcome.state.value)
        self._on_settled()
        if watch.sent_again_at is None:
            watch.for_end.found(time.monotonic())
        log.info(
            "transaction settled",
            action="settle_transaction",
            transaction=flight.hash,
            jobs=len(rows),
            state=outcome.state.value,
            gas_burnt=outcome.gas_burnt,
        )
        self._measure(flight, rows)

    def _measure(self, flight: Transaction, rows: Sequence[RowOutcome]) -> None:
        metrics.RESOLVE_SECONDS.observe(max(0.0, time.time() - flight.stored_at))
        ended = [data_id for data_id, row in zip(flight.data_ids, rows, strict=True) if row.verdict is not None]
        for accepted_at in self._resolves.accepted_at(ended):
            metrics.JOB_SECONDS.observe(max(0.0, time.time() - accepted_at))

    def _mark_dead(self, flight: Transaction, evidence: Evidence) -> None:
        if self._resolves.dead(flight.hash, evidence.attempts):
            metrics.TRANSACTIONS.add(outcome="dead")
            log.warning(
                "transaction cannot land any more; its jobs wait for another",
                action="transaction_dead",
                transaction=flight.hash,
                reason=evidence.reason,
            )
            if evidence.blames_key:
                self._keys.disable(flight.public_key, evidence.reason)

    def _send_again(self, flight: Transaction) -> None:
        """The same bytes once more; before them those of lower nonces, which they would kill if they landed first."""
        for other in self._flights:
            watch, now = self._watches[other.hash], time.monotonic()
            lower = other.public_key == flight.public_key and other.nonce < flight.nonce
            lost = not watch.included and watch.evidence is None and watch.send_at(other) <= now
            if (other is flight or (lower and lost)) and now >= self._sending_rests_until:
                self._send(other, watch)

    def _send(self, flight: Transaction, watch: _Watch) -> None:
        # Said before it is done: whoever holds older evidence of its death must learn of it.
        attempt = self._resolves.attempted(flight.hash)
        if not attempt:
            return
        watch.sent_again_at = time.monotonic()
        try:
            self._rpc.send_tx(flight.signed)
        except (RpcRefused, RpcUnavailable) as error:
            # Else every transaction in flight would wait for the same time-out, one after the other.
            self._sending_rests_until = time.monotonic() + self._chain.down(error)
            return
        metrics.TRANSACTIONS.add(outcome="sent_again")
        log.info("the same transaction sent again", action="send_again", transaction=flight.hash, attempt=attempt)

    def _raise_floor(self, flight: Transaction, outcome: TransactionOutcome) -> None:
        if outcome.reason is not None and outcome.reason.ak_nonce is not None:
            self._keys.raise_floor(flight.public_key, outcome.reason.ak_nonce)

    def _mind_keys(self, now: float) -> None:
        lowest = {flight.public_key: flight for flight in reversed(self._flights)}
        unseen = {key: flight.hash for key, flight in lowest.items() if self._watches[flight.hash].is_unseen(now)}
        self._keys.mind(now, unseen=unseen)
