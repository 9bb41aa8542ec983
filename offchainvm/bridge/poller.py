"""Long polls, several at once, as long as Redis is there and the queues are not too full."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

from offchainvm.bridge.intake import Intake, Taken
from offchainvm.bridge.link import Link
from offchainvm.coordinator import POLL_MARGIN_SECONDS, POLL_SECONDS_MAX, Coordinator
from offchainvm.errors import Refused, Unavailable
from offchainvm.jobs.journals import STALE_SECONDS
from offchainvm.jobs.pauses import Pauses
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.store import JobStore
from offchainvm.logs import get_logger

log = get_logger()

_LOOK_EVERY_SECONDS = 1.0
_RESUME_SHARE = 0.8
_LONGEST_REJECT_PAUSE_SECONDS = 5.0


class Backlog:
    """Whether so many jobs wait that polling has to pause. One look a second serves all threads.

    Jobs wait for a worker, or, executed, for a signature: with the chain away, or nobody to sign, those pile up.
    """

    def __init__(self, store: JobStore, resolves: Resolves, *, high_water: int) -> None:
        self._store, self._resolves, self._high_water = store, resolves, high_water
        self._lock = threading.Lock()
        self._looked_at, self._full = float("-inf"), False

    def is_full(self) -> bool:
        """Over the high-water mark, or not yet well below it again.

        Raises:
            Unavailable: Redis is away.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= _LOOK_EVERY_SECONDS:
                self._look()
                self._looked_at = now
            return self._full

    def _look(self) -> None:
        queued, unsigned = self._store.queued_count(), self._resolves.waiting_count()
        full = queued + unsigned >= self._high_water * (_RESUME_SHARE if self._full else 1.0)
        if full != self._full:
            text = "too many jobs wait: polling pauses" if full else "polling goes on"
            action = "pause_polling" if full else "resume_polling"
            log.warning(text, action=action, queued=queued, unsigned=unsigned, high_water=self._high_water)
        self._full = full


class Poller:
    """Polls for tasks; ``run`` in as many threads as polls should be held at once."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        intake: Intake,
        backlog: Backlog,
        pauses: Pauses,
        worker: str,
        timeout_seconds: float,
        on_later: Callable[[], None],
    ) -> None:
        """``on_later``: called when a task stays in the journal for now; raises Unavailable while Redis is away."""
        self._coordinator, self._intake, self._backlog = coordinator, intake, backlog
        self._timeout_seconds = min(timeout_seconds, POLL_SECONDS_MAX)
        self._link, self._redis = Link("coordinator"), Link("redis")
        self._rejected, self._on_later = 0, on_later
        self._pauses, self._worker = pauses, worker
        self._switch, self._paused = threading.Lock(), False

    @property
    def _longest_seconds(self) -> float:
        """How long a poll counts whose end nobody told: until the bridge that made it is missed too."""
        return self._timeout_seconds + POLL_MARGIN_SECONDS + STALE_SECONDS

    @property
    def longest_poll_seconds(self) -> float:
        """How long a stop has to wait for the poll in hand: to cut it off could lose a task that is on its way."""
        return self._timeout_seconds

    def run(self, stop: threading.Event) -> None:
        """Poll until ``stop``; a poll in hand is finished, and its task brought in."""
        # Not all at the same moment, nor after an outage.
        stop.wait(random.uniform(0, 0.1))  # noqa: S311 - jitter, not a secret
        while not stop.is_set():
            if not self._intake.ready.wait(_LOOK_EVERY_SECONDS):
                continue
            try:
                pause_seconds = self._poll_unless_held_up()
            except Unavailable as error:
                stop.wait(self._redis.down(error))
                continue
            stop.wait(pause_seconds)

    def _poll_unless_held_up(self) -> float:
        """One poll, where nothing speaks against it; how long to wait before the next, in seconds.

        Raises:
            Unavailable: Redis is away.
        """
        if self._backlog.is_full():
            self._redis.up()
            return _LOOK_EVERY_SECONDS
        poll = f"{self._worker}:{os.getpid()}:{threading.get_ident()}"
        if not self._begins(poll):
            return _LOOK_EVERY_SECONDS
        pause_seconds = self._poll()
        self._pauses.end_poll(poll)
        return pause_seconds

    def _begins(self, poll: str) -> bool:
        """Whether the poll may begin; a change of that is told, once for all threads and in the order in which it was seen."""
        with self._switch:
            paused = not self._pauses.begin_poll(self._worker, poll, longest_seconds=self._longest_seconds)
            if paused != self._paused:
                text = "paused by hand: no poll begins until `offchainvm resume`" if paused else "polling goes on"
                log.warning(text, action="pause_polling" if paused else "resume_polling")
            self._paused = paused
        self._redis.up()
        return not paused

    def _poll(self) -> float:
        """One poll; how long to wait before the next, in seconds."""
        began = time.monotonic()
        try:
            untrusted_task = self._coordinator.poll(self._timeout_seconds)
        except (Unavailable, Refused) as error:
            return self._link.down(error)
        self._link.up()
        if untrusted_task is None:
            # A server that says "none" at once is not to be asked in a circle.
            return 0.5 if time.monotonic() - began < 0.1 else 0.0
        return self._pause_after(self._intake.take(untrusted_task))

    def _pause_after(self, taken: Taken) -> float:
        """Something else than the Coordinator may answer at that address, with a page for every poll."""
        if taken is Taken.LATER:
            self._on_later()
        self._rejected = self._rejected + 1 if taken is Taken.REJECTED else 0
        return min(_LONGEST_REJECT_PAUSE_SECONDS, 0.05 * 2.0 ** min(self._rejected, 16)) if self._rejected else 0.0
