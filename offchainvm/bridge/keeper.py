"""Has every journalled task in Redis, and tells the fleet what is not there yet."""

from __future__ import annotations

import threading
import time

from offchainvm.bridge.intake import Intake
from offchainvm.bridge.link import Link, turns
from offchainvm.errors import Unavailable
from offchainvm.jobs.journals import TELL_SECONDS, Journals
from offchainvm.logs import get_logger

log = get_logger()

_TEND_EVERY_SECONDS = 0.5


class Keeper:
    """Tends the journal before polling starts, whenever Redis comes back another, and all the time.

    Args:
        home: name of the journal's place on disk; worker: name of this bridge.
    """

    def __init__(self, intake: Intake, *, journals: Journals, home: str, worker: str) -> None:
        self._intake, self._journals, self._home, self._worker = intake, journals, home, worker
        self._link = Link("redis", longest_seconds=2.0)
        self._told, self._told_at = -1, float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Look twice a second until ``stop``."""
        turns(stop, self._link, self.turn)

    def turn(self) -> float:
        """One look.

        Raises:
            Unavailable: Redis is away.
        """
        if self._intake.tend():
            self._journals.forget_vanished(self._home)
        if self._intake.missing() != self._told or time.monotonic() - self._told_at > TELL_SECONDS:
            self.tell()
        return _TEND_EVERY_SECONDS

    def tell(self) -> None:
        """Say how many tasks are on disk that are no job.

        Raises:
            Unavailable: Redis is away.
        """
        missing = self._intake.missing()
        self._journals.tell(self._home, self._worker, missing)
        self._told, self._told_at = missing, time.monotonic()

    def leave(self) -> None:
        """Be missed by nobody, if nothing is left here."""
        try:
            if self._intake.missing() == 0:
                self._journals.leave(self._home, self._worker)
        except Unavailable as error:
            log.debug("What the journal holds cannot be told.", action="leave_journal", error=error.sentence)
