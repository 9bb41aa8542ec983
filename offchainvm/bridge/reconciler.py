"""Puts right every few seconds what messages may lose; keeps the journal no larger than it must be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from offchainvm import metrics
from offchainvm.bridge.intake import Intake
from offchainvm.bridge.link import Link, turns
from offchainvm.jobs.reconcile import Reconciler
from offchainvm.jobs.record import LEASE_SECONDS, Stage
from offchainvm.logs import get_logger

log = get_logger()

_EVERY_SECONDS = 2.0
_GAP_SECONDS = LEASE_SECONDS / 2
"""A lease is renewed when a third of it is gone: within a shorter gap none runs out."""


class Uptime:
    """How long this process has seen one and the same Redis without a gap."""

    def __init__(self, run_id: Callable[[], str]) -> None:
        self._fetch = run_id
        self._run_id, self._since, self._seen_at = "", 0.0, float("-inf")

    def observed_seconds(self) -> float:
        """Since the first look at this server that no failed look followed, nor a long time without one.

        A server that froze fails no look, it only answers late; nor does a look fail while this process sleeps.

        Raises:
            Unavailable: Redis is away; the count begins anew.
        """
        before, self._run_id = self._run_id, ""
        self._run_id = self._fetch()
        now = time.monotonic()
        if self._run_id != before or now - self._seen_at > _GAP_SECONDS:
            self._since = now
        self._seen_at = now
        return now - self._since


class Reconciliation:
    """Runs ``jobs.reconcile`` and sweeps the journal."""

    def __init__(self, *, reconciler: Reconciler, uptime: Uptime, published: Callable[[], Mapping[Stage, int]], intake: Intake) -> None:
        self._reconciler, self._uptime, self._published, self._intake = reconciler, uptime, published, intake
        self._link = Link("redis (reconciler)")

    def run(self, stop: threading.Event) -> None:
        """Reconcile every few seconds until ``stop``."""
        turns(stop, self._link, self.turn)

    def turn(self) -> float:
        """One run.

        Raises:
            Unavailable: Redis or the broker is away.
        """
        observed_seconds = self._uptime.observed_seconds()
        done = self._reconciler.run(observed_seconds=observed_seconds, lease_seconds=LEASE_SECONDS, published=self._published())
        metrics.DEATHS.add(done.deaths)
        metrics.REPUBLISHED.add(done.republished)
        if done.deaths or done.republished or done.promoted or done.rows_returned:
            log.warning(
                "jobs put right",
                action="reconcile",
                deaths=done.deaths,
                republished=done.republished,
                promoted=done.promoted,
                rows_returned=done.rows_returned,
            )
        self._intake.sweep()
        return _EVERY_SECONDS
