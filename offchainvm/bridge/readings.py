"""What the bridge reads when Prometheus asks: the fleet's figures from Redis, prices and the operator's balance from the chain.

The bridge alone shows them: each worker would only say the same again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from redis import Redis

from offchainvm import metrics
from offchainvm.bridge.monitor import Monitor
from offchainvm.bridge.watch import look_at_watch
from offchainvm.errors import OffchainVMError
from offchainvm.fleet import Registry
from offchainvm.jobs import overview
from offchainvm.jobs.overview import Overview
from offchainvm.logs import get_logger
from offchainvm.metrics import Reading, Values
from offchainvm.near.nonces import REFUSED, Nonces
from offchainvm.near.rpc import Rpc

log = get_logger()

_FLEET_SECONDS = 3.0
_CHAIN_SECONDS = 60.0
_AGAIN_SECONDS = 10.0
T = TypeVar("T")


class _Kept(Generic[T]):
    """A look that is repeated after so many seconds at the earliest, however often and by how many it is asked for."""

    def __init__(self, look: Callable[[], T], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._lock = threading.Lock()
        self._until, self._found, self._error = float("-inf"), list[T](), OffchainVMError("not looked yet")

    def get(self) -> T:
        """What the last look found; a failure is kept for some seconds too."""
        with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._found = [self._look()]
                except OffchainVMError as error:
                    self._found, self._error = [], error
                self._until = time.monotonic() + (self._seconds if self._found else min(self._seconds, _AGAIN_SECONDS))
            if not self._found:
                raise self._error
            return self._found[0]


class FleetReadings:
    """The readings of one fleet; ``read`` may be called by several threads."""

    def __init__(self, *, redis: Redis, rpc: Rpc, operator_id: str, contract_id: str, journal_bytes: Callable[[], int]) -> None:
        self._redis, self._rpc, self._operator_id, self._contract_id = redis, rpc, operator_id, contract_id
        self._journal_bytes = journal_bytes
        self._fleet = _Kept(self._look_at_fleet, _FLEET_SECONDS)
        self._balance = _Kept(self._look_at_balance, _CHAIN_SECONDS)
        self._prices = _Kept(self._look_at_prices, _CHAIN_SECONDS)
        self._nonces = _Kept(lambda: Nonces(redis, network=rpc.chain_id(), account_id=operator_id), float("inf"))

    def read(self) -> Mapping[Reading, Values]:
        """All readings that can be taken now: what is away leaves out its own."""
        found: dict[Reading, Values] = {metrics.JOURNAL_BYTES: {("bridge",): self._journal_bytes()}}
        for part in (self._fleet.get, self._keys, self._earned, self._balance.get):
            try:
                found.update(part())
            except OffchainVMError as error:
                log.debug("A reading cannot be taken.", action="read_metrics", error=error.sentence)
        return found

    def _look_at_fleet(self) -> Mapping[Reading, Values]:
        self._overview = now = overview.look(self._redis)
        registry = Registry(self._redis)
        return {
            metrics.QUEUE_JOBS: {(stage,): queue.jobs for stage, queue in now.queues.items()},
            metrics.QUEUE_OLDEST_SECONDS: {(stage,): queue.oldest_seconds for stage, queue in now.queues.items()},
            metrics.QUEUE_ROUNDS: {(stage,): now.queues[stage].rounds for stage in metrics.STAGES[:2]},
            metrics.JOBS: {("running",): now.running, ("parked",): now.parked, ("taken",): now.taken},
            metrics.TRANSACTIONS_IN_FLIGHT: {(): now.transactions_in_flight},
            metrics.REPORTS_WAITING: {(): now.reports},
            metrics.OUTBOX_MESSAGES: {(): now.outbox},
            metrics.JOBS_SETTLED: {(verdict,): now.totals.get(verdict, 0) for verdict in metrics.VERDICTS},
            metrics.SPENT_YOCTO: {(): now.spent_yocto},
            metrics.MONITOR_CURSOR_AGE_SECONDS: self._cursor_age(),
            metrics.WORKERS: {(role,): len(registry.alive(role)) for role in metrics.ROLES},
        }

    def _cursor_age(self) -> Values:
        """Nothing where nobody ever watched this contract's events."""
        _, cursor = look_at_watch(self._redis, self._contract_id)
        age_seconds = cursor.age_seconds if cursor else None
        return {} if age_seconds is None else {(): age_seconds}

    def _keys(self) -> Mapping[Reading, Values]:
        reasons = self._nonces.get().held().values()
        refused = sum(reason.startswith(REFUSED) for reason in reasons)
        return {metrics.KEYS_HELD: {("refused",): refused, ("unseen",): len(reasons) - refused}}

    def _earned(self) -> Mapping[Reading, Values]:
        self._fleet.get()
        return {metrics.EARNED_YOCTO: {(): earned_yocto(self._overview, self._prices.get())}}

    def _look_at_prices(self) -> tuple[int, ...]:
        return prices_of(self._rpc.view(self._contract_id, "get_pricing"))

    def _look_at_balance(self) -> Mapping[Reading, Values]:
        return {metrics.BALANCE_YOCTO: {(): int(self._rpc.view_account(self._operator_id)["amount"])}}


def prices_of(untrusted_answer: bytes) -> tuple[int, ...]:
    """Prices in yoctoNEAR: of an answer, a million instructions, a MiB, a second.

    Raises:
        OffchainVMError: the contract answered something else.
    """
    try:
        base, million, mib, second = (int(price) for price in json.loads(untrusted_answer))
    except (ValueError, TypeError) as error:
        raise OffchainVMError("The contract's prices cannot be read.") from error
    return base, million, mib, second


def earned_yocto(now: Overview, prices: tuple[int, ...]) -> int:
    """What the contract charges for all that was answered, at the prices of today."""
    units = (now.totals.get(name, 0) for name in ("answers", "millions", "mib", "seconds"))
    return sum(price * unit for price, unit in zip(prices, units, strict=True))


def monitor_readings(monitor: Monitor) -> Mapping[Reading, Values]:
    """What the event monitor of this process knows; no lag while it stands by."""
    found: dict[Reading, Values] = {metrics.MONITOR_EVENTS: {("announced",): monitor.announced, ("malformed",): monitor.malformed}}
    if (lag := monitor.lag) is not None:
        found[metrics.MONITOR_LAG_SECONDS] = {(): lag.seconds}
        if lag.blocks is not None:
            found[metrics.MONITOR_LAG_BLOCKS] = {(): lag.blocks}
    return found
