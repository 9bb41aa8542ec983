"""The net under everything that messages may lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from offchainvm.jobs.record import Stage


@dataclass(frozen=True)
class Reconciled:
    """What one run did, in jobs."""

    deaths: int = 0
    republished: int = 0
    due: int = 0
    promoted: int = 0
    rows_returned: int = 0
    rung: bool = False


class Reconciler:
    """Run every few seconds, by one or more bridges."""

    def __init__(self, redis: Redis, *, republish_seconds: float = 30, ring_seconds: float = 5, batch: int = 100) -> None: ...

    def run(self, *, observed_seconds: float, lease_seconds: float, published: Mapping[Stage, int]) -> Reconciled:
        """Put right what can be; expired leases are judged only when Redis was seen for a whole lease.

        ``observed_seconds``: how long this process has seen this very Redis (same run_id) without a gap.
        ``published``: job ids in the broker's messages of each stage, waiting or unacknowledged (the outbox is counted here).
        """
