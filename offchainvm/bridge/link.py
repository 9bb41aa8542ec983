"""How the bridge bears with a service that is away: a growing pause, and one log line for each change of state."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from offchainvm.errors import OffchainVMError, Refused, Unavailable
from offchainvm.logs import get_logger

log = get_logger()

_FIRST_PAUSE_SECONDS = 0.25


class Link:
    """One service as the threads of this process see it.

    Args:
        longest_seconds: the longest pause between two tries; a recovery is noticed within it.
        longest_wish_seconds: the longest pause that the service itself may ask for.
    """

    def __init__(self, service: str, *, longest_seconds: float = 8.0, longest_wish_seconds: float = 60.0) -> None:
        self.service = service
        self._longest_seconds, self._longest_wish_seconds = longest_seconds, longest_wish_seconds
        self._lock = threading.Lock()
        self._failures, self._trouble = 0, ""

    @property
    def well(self) -> bool:
        return not self._trouble

    def up(self) -> None:
        """It answered."""
        if not self._failures:
            return
        with self._lock:
            was, self._trouble, self._failures = self._trouble, "", 0
        if was:
            log.info("a service answers again", action="service_back", service=self.service)

    def down(self, error: OffchainVMError) -> float:
        """It failed; how long to wait before the next try, in seconds, with jitter."""
        state = f"{error.code}/{getattr(error, 'status', '')}"
        with self._lock:
            changed, self._trouble = self._trouble != state, state
            self._failures += 1
            failures = self._failures
        if changed:
            tell = log.error if isinstance(error, Refused) else log.warning
            tell(str(error), action="service_away", service=self.service, code=error.code)
        pause = min(self._longest_seconds, _FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16))
        wish = min(getattr(error, "retry_after_seconds", None) or 0.0, self._longest_wish_seconds)
        return max(wish, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret


def turns(stop: threading.Event, link: Link, turn: Callable[[], float]) -> None:
    """Call ``turn`` until ``stop``; it returns the pause before the next call, in seconds.

    A service that is away makes the pause longer; what is no error of ours ends the loop.
    """
    while not stop.is_set():
        try:
            pause_seconds = turn()
            link.up()
        except (Unavailable, Refused) as error:
            pause_seconds = link.down(error)
        if pause_seconds > 0:
            stop.wait(pause_seconds)
