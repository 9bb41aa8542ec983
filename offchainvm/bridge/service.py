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
from offchainvm.logs import get_logger
from offchainvm.processes import StopSignal

log = get_logger()

_TOUCH_EVERY_SECONDS = 5.0
_LONGEST_RESTART_SECONDS = 30.0
_GRACE_SECONDS = 8.0


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


class Service:
    """Runs parts side by side. One that dies of an unexpected error is started again, after a growing pause."""

    def __init__(self, parts: Sequence[Part], *, name: str, on_stop: Sequence[Callable[[], None]] = ()) -> None:
        self._parts, self._name, self._on_stop = parts, name, on_stop
        self._stops = {part.name: _Stop(health.Loop(part.patience_seconds + part.grace_seconds)) for part in parts}
        self._threads: dict[str, threading.Thread] = {}

    def run(self) -> int:
        """Work until a signal; the exit code."""
        asked = StopSignal()
        self.start()
        health.touch(self._name)
        while not asked.wait(_TOUCH_EVERY_SECONDS):
            health.touch(self._name)
        self._tell_stopping(asked.number)
        self.stop()
        return 0

    def start(self) -> None:
        """Start every part."""
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

    def _supervise(self, part: Part) -> None:
        stop = self._stops[part.name]
        failures = 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                part.run(stop)
            except Exception:
                failures = 1 if time.monotonic() - began > _LONGEST_RESTART_SECONDS else failures + 1
                pause_seconds = min(_LONGEST_RESTART_SECONDS, 0.5 * 2.0**failures)
                log.exception("a part died and is started again", action="restart_part", part=part.name, pause_seconds=pause_seconds)
                stop.wait(pause_seconds)
