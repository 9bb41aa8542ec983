"""Runs the parts of the bridge as threads of one process, until a signal says stop.

The first SIGTERM or SIGINT stops polling: the polls in hand are finished, since the server hands a task out only once, and
their tasks brought in; then everything else stops. The second signal ends the process at once: nothing is lost by it but
what a poll had not yet brought.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from offchainvm import health, notify
from offchainvm.errors import OffchainVMError
from offchainvm.logs import get_logger
from offchainvm.processes import StopSignal

log = get_logger()

_LONGEST_RESTART_SECONDS = 30.0
_GRACE_SECONDS = 8.0
_MANY_DEATHS = 3


@dataclass(frozen=True)
class Part:
    """One thread of the process: ``run`` returns when the event is set."""

    name: str
    run: Callable[[threading.Event], None]
    intake: bool = False
    """It brings work in: it stops first."""
    grace_seconds: float = _GRACE_SECONDS
    """How long it may take to stop."""
    patience_seconds: float = health.STALE_SECONDS
    """A part whose loop does not turn for so long, and its grace, hangs: the process is not live any more."""


class _Stop(threading.Event):
    """What tells one part to stop. A part asks it, or waits for it, in each turn: so it is known whether the part hangs."""

    def __init__(self, loop: health.Loop) -> None:
        super().__init__()
        self.loop = loop

    def is_set(self) -> bool:
        self.loop.turned()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        self.loop.turned()
        try:
            return super().wait(timeout)
        finally:
            self.loop.turned()


class _Deaths:
    """How often in a row one part died, and of what; one that has worked for a while since is well again."""

    def __init__(self) -> None:
        self._count, self._cause, self._began_at = 0, "", 0.0

    def begin(self) -> None:
        self._began_at = time.monotonic()

    def note(self, error: Exception) -> float:
        """The pause before it is started again, in seconds."""
        self._count = 1 if self._has_worked else self._count + 1
        self._cause = type(error).__name__
        return min(_LONGEST_RESTART_SECONDS, 0.5 * 2.0**self._count)

    def __str__(self) -> str:
        """Empty while it is well."""
        return "" if self._count < _MANY_DEATHS or self._has_worked else f"{self._count} times in a row, last of {self._cause}"

    @property
    def _has_worked(self) -> bool:
        return time.monotonic() - self._began_at > _LONGEST_RESTART_SECONDS


class Service:
    """Runs parts side by side. One that dies of an unexpected error is started again, after a growing pause."""

    def __init__(self, parts: Sequence[Part], *, name: str, on_stop: Sequence[Callable[[], None]] = ()) -> None:
        self._parts, self._name, self._on_stop = parts, name, on_stop
        self._stops = {part.name: _Stop(health.Loop(part.patience_seconds + part.grace_seconds)) for part in parts}
        self._deaths = {part.name: _Deaths() for part in parts}
        self._threads: dict[str, threading.Thread] = {}

    def run(self) -> int:
        """Work until a signal; the exit code."""
        asked = StopSignal()
        self.start()
        health.touch_until_asked(self._name, asked)
        self._tell_stopping(asked.number)
        self.stop()
        return 0

    def start(self) -> None:
        """Start every part."""
        health.add_check("parts", self._check_parts, kept_seconds=0.0)
        for part in self._parts:
            health.watch_loop(part.name, self._stops[part.name].loop)
            thread = threading.Thread(target=self._supervise, args=(part,), name=part.name, daemon=True)
            self._threads[part.name] = thread
            thread.start()
        log.info("started", action="service_start", service=self._name, parts=[part.name for part in self._parts])

    def stop(self) -> None:
        """Stop what brings work in, then the rest; return when all has ended, or its grace is over."""
        for intake in (True, False):
            parts = [part for part in self._parts if part.intake is intake]
            for part in parts:
                self._stops[part.name].set()
            began = time.monotonic()
            for part in parts:
                self._join(part, until=began + part.grace_seconds)
        for close in self._on_stop:
            close()
        log.info("stopped", action="service_stop", service=self._name)

    def _join(self, part: Part, *, until: float) -> None:
        thread = self._threads[part.name]
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            log.warning("a part did not stop in time", action="service_stop_late", part=part.name)

    def _tell_stopping(self, number: int) -> None:
        notify.tell(notify.STOPPING)
        patience = max((part.grace_seconds for part in self._parts if part.intake), default=0.0)
        log.info(
            "stopping: polls in hand are finished; a second signal ends at once",
            action="service_stopping",
            signal=signal.Signals(number).name,
            at_most_seconds=round(patience),
        )

    def _check_parts(self) -> None:
        told = [f"{name} died {deaths}" for name, deaths in self._deaths.items() if str(deaths)]
        if told:
            raise OffchainVMError(f"{'; '.join(told)}.", remedy="See the log of this process (restart_part), and report it.")

    def _supervise(self, part: Part) -> None:
        stop, deaths = self._stops[part.name], self._deaths[part.name]
        while not stop.is_set():
            deaths.begin()
            try:
                part.run(stop)
            except Exception as error:
                pause_seconds = deaths.note(error)
                log.exception("a part died and is started again", action="restart_part", part=part.name, pause_seconds=pause_seconds)
                stop.wait(pause_seconds)
