"""Keeps the lease of the job in hand alive while its work runs, from one thread a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from offchainvm import logs
from offchainvm.jobs.record import Claim
from offchainvm.jobs.store import JobStore

log = logs.get_logger()

TICK_SECONDS = 0.5
RENEW_SECONDS = 1.0
"""How soon work on a job is ended that was cancelled: a renewal is one small script."""
SLOW_SECONDS = 1.0


@dataclass
class _InHand:
    claim: Claim
    on_slow: Callable[[], None]
    on_lost: Callable[[], None]
    started: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)
    told_slow: bool = False
    lost: bool = False


class LeaseKeeper:
    """Renews the lease of the claim in hand, and says once when its job is slow, and when it is another worker's by now.

    Renewal stops at the stage's hard limit: work that is frozen must not keep its job for ever.
    """

    def __init__(self, store: JobStore, *, lease_seconds: float, hard_limit_seconds: float) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._hard_limit_seconds = hard_limit_seconds
        self._in_hand: _InHand | None = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, claim: Claim, *, on_slow: Callable[[], None], on_lost: Callable[[], None]) -> Iterator[None]:
        """Keep ``claim`` while the block runs; call ``on_slow`` once when it runs for longer than a second.

        ``on_lost`` is called once when the claim is lost: nothing that the work finds out will be written any more.
        """
        if self._thread is None:  # not in the constructor: a pool process forks after it
            self._thread = threading.Thread(target=self._tick, name="lease", daemon=True)
            self._thread.start()
        self._in_hand = _InHand(claim, on_slow, on_lost)
        try:
            yield
        finally:
            self._in_hand = None

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            job = self._in_hand
            if job is not None and not job.lost:
                try:
                    self._look_after(job)
                except Exception as error:
                    # Whatever it is: without this thread every job of this process would be judged dead from now on.
                    log.warning("A lease could not be renewed; tried again.", action="renew_lease", error=type(error).__name__)

    def _look_after(self, job: _InHand) -> None:
        now = time.monotonic()
        if now - job.started > SLOW_SECONDS and not job.told_slow:
            job.told_slow = True
            job.on_slow()
        if now - job.started > self._hard_limit_seconds or now - job.renewed < min(RENEW_SECONDS, self._lease_seconds / 3):
            return
        job.lost = not self._store.renew(job.claim, lease_seconds=self._lease_seconds)
        job.renewed = now
        if job.lost:
            log.warning("The lease is lost; the work on its job is ended.", action="lose_lease", data_id=job.claim.data_id)
            job.on_lost()
