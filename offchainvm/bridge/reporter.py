"""Tells the Coordinator what became of each job, side by side: a report that it refuses for ever delays no other."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

from offchainvm.bridge.link import Link, turns
from offchainvm.coordinator import Coordinator
from offchainvm.errors import Refused, Unavailable
from offchainvm.jobs.reports import DueReport, Reports
from offchainvm.logs import get_logger

log = get_logger()

_POOL = 4
_AT_ONCE = 32
_LOOK_EVERY_SECONDS = 0.5
_AWAY_PAUSE_MAX_SECONDS = 15.0
_REFUSED_PAUSE_MAX_SECONDS = 600.0


class Reporter:
    """Sends due reports until the Coordinator takes them."""

    def __init__(self, *, reports: Reports, coordinator: Coordinator) -> None:
        self._reports, self._coordinator = reports, coordinator
        self._redis, self._link = Link("redis (reporter)"), Link("coordinator (reports)")
        self._due = threading.Event()
        self._pool = ThreadPoolExecutor(_POOL, thread_name_prefix="reporter")

    def wake(self) -> None:
        """Say that a report is due now."""
        self._due.set()

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop``."""
        turns(stop, self._redis, self.turn)

    def close(self) -> None:
        """End the threads of the pool."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def turn(self) -> float:
        """Send what is due, or wait a moment for something to be.

        Raises:
            Unavailable: Redis is away.
        """
        self._due.clear()
        due = self._reports.due(_AT_ONCE)
        if not due:
            self._due.wait(_LOOK_EVERY_SECONDS)
            return 0.0
        list(self._pool.map(self._send, due))
        return 0.0

    def _send(self, due: DueReport) -> None:
        try:
            if due.failed:
                self._coordinator.fail(due.report.request_id, due.error)
            else:
                self._coordinator.complete(due.report)
        except Unavailable as error:
            self._link.down(error)
            self._reports.later(due.data_id, _pause(due.tries, longest_seconds=_AWAY_PAUSE_MAX_SECONDS))
        except Refused as error:
            log.warning(
                "the Coordinator refuses a report",
                action="report_refused",
                data_id=due.data_id,
                request_id=due.report.request_id,
                tries=due.tries,
                error=error.sentence,
            )
            self._reports.later(due.data_id, _pause(due.tries, longest_seconds=_REFUSED_PAUSE_MAX_SECONDS))
        except Exception:
            # Else it would take those beside it along, at every try.
            log.exception("a report cannot be sent", action="report_failed", data_id=due.data_id, request_id=due.report.request_id)
            self._reports.later(due.data_id, _pause(due.tries, longest_seconds=_REFUSED_PAUSE_MAX_SECONDS))
        else:
            self._link.up()
            self._reports.done(due.data_id)


def _pause(tries: int, *, longest_seconds: float) -> float:
    return min(longest_seconds, 0.5 * 2.0 ** min(tries, 16)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
