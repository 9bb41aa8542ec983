"""What the Coordinator must still be told: a set, sent side by side, each report with its own back-off.

The settle script writes a report together with the verdict. One that the Coordinator refuses for ever delays no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis

from offchainvm.jobs.record import parse_report
from offchainvm.jobs.server import Server, key, milliseconds
from offchainvm.models import ExecutionReport
from offchainvm.redis_calls import reaching_redis


@dataclass(frozen=True)
class DueReport:
    """One report: ``POST /tasks/complete`` with ``report``, or, where ``failed``, ``/tasks/fail`` with ``error``."""

    data_id: str
    """Names the report (``rejected-<request id>`` for a task that became no job)."""
    report: ExecutionReport
    failed: bool
    error: str
    tries: int


class Reports:
    """Reports in the order in which they fall due."""

    def __init__(self, redis: Redis, *, lease_seconds: float = 30) -> None:
        self._redis: Any = redis
        self._server = Server(redis)
        self._lease_ms = milliseconds(lease_seconds)

    def due(self, limit: int) -> list[DueReport]:
        """Reports to send now; nobody else gets them for ``lease_seconds``."""
        found = self._server.run("reports_due", limit, self._lease_ms)
        return [DueReport(name, parse_report(report), kind == "fail", error, int(tries)) for name, kind, report, error, tries in found]

    def done(self, data_id: str) -> None:
        """The Coordinator took it."""
        self._server.run("reports_end", data_id, "")

    def later(self, data_id: str, delay_seconds: float) -> None:
        """It failed: due again after the delay, ``tries`` one higher."""
        self._server.run("reports_end", data_id, milliseconds(delay_seconds))

    def count(self) -> int:
        """Reports not taken yet."""
        with reaching_redis():
            return int(self._redis.zcard(key("reports")))
