"""The net under everything that messages may lose.

Lost messages, dead claims, takes that ran out, parked jobs without a builder, a doorbell nobody heard: each run puts a
bounded number of them right, so that a backlog is never answered by a storm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from offchainvm.jobs.record import Stage
from offchainvm.jobs.server import Server, milliseconds


@dataclass(frozen=True)
class Reconciled:
    """What one run did, in jobs."""

    deaths: int = 0
    rows_returned: int = 0
    promoted: int = 0
    due: int = 0
    republished: int = 0
    rung: bool = False


class Reconciler:
    """Run every second or two, by one or more bridges: delayed messages become due here."""

    def __init__(
        self,
        redis: Redis,
        *,
        republish_seconds: float = 30,
        max_backoff_seconds: float = 600,
        ring_seconds: float = 5,
        batch: int = 100,
    ) -> None:
        """``batch``: jobs of each kind that one run touches at most; ``republish_seconds`` doubles for a job with each re-publication."""
        self._server = Server(redis)
        self._queue_arguments = (milliseconds(republish_seconds), milliseconds(max_backoff_seconds))
        self._ring_ms = milliseconds(ring_seconds)
        self._batch = batch

    def run(self, *, observed_seconds: float, lease_seconds: float, published: Mapping[Stage, int]) -> Reconciled:
        """Put right what can be; leases are judged only when Redis was seen for a whole lease (celery.md, interleaving 3).

        ``observed_seconds``: how long this process has seen this very Redis (same run_id) without a gap.
        ``published``: job ids in the broker's messages of each stage, waiting or unacknowledged (the outbox is counted here).
        """
        judge = int(observed_seconds >= lease_seconds)
        deaths, returned, promoted = self._server.run("reconcile_leases", self._batch, judge)
        due = republished = 0
        for stage in (Stage.COMPILE, Stage.EXECUTE):
            counts = self._server.run("reconcile_queue", stage.value, self._batch, published.get(stage, 0), *self._queue_arguments)
            due, republished = due + counts[0], republished + counts[1]
        rung = bool(self._server.run("reconcile_bell", self._ring_ms))
        return Reconciled(deaths=deaths, rows_returned=returned, promoted=promoted, due=due, republished=republished, rung=rung)
