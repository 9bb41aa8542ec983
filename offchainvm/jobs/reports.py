"""What the Coordinator must still be told: a set, sent side by side, each with its own back-off."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from offchainvm.jobs.record import ExecutionReport


@dataclass(frozen=True)
class DueReport:
    """One report: ``POST /tasks/complete`` with ``report``, or, where ``failed``, ``/tasks/fail`` with ``report.error``."""

    data_id: str
    report: ExecutionReport
    failed: bool
    tries: int


class Reports:
    """Reports in the order in which they fall due."""

    def __init__(self, redis: Redis, *, lease_seconds: float = 30) -> None: ...

    def due(self, limit: int) -> list[DueReport]:
        """Reports to send now; nobody else gets them for ``lease_seconds``."""

    def done(self, data_id: str) -> None:
        """The Coordinator took it (or will never: it refused for good)."""

    def later(self, data_id: str, delay_seconds: float) -> None:
        """It failed: due again after the delay, ``tries`` one higher."""

    def count(self) -> int: ...
