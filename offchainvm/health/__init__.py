"""Is this process alive, and can it work: what its loops and its checks say.

*Live* means the process' own loops turned lately (else: restart it). *Ready* means that what it needs answers (else:
wait, the remedy is elsewhere); each check is named. ``server`` tells both over HTTP; without a port the process' file
says whether it is live (``offchainvm.liveness``).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from offchainvm import notify
from offchainvm.liveness import STALE_SECONDS, liveness_file, living_age_seconds, touch_file
from offchainvm.logs import get_logger
from offchainvm.processes import StopSignal
from offchainvm.readiness import KEPT_SECONDS, CheckResult, Readiness

__all__ = [
    "STALE_SECONDS",
    "Loop",
    "Process",
    "add_check",
    "is_live",
    "live",
    "ready",
    "touch",
    "touch_until_asked",
    "watch_loop",
    "watch_process",
]

log = get_logger()

_TOUCH_EVERY_SECONDS = 5.0


class Process:
    """Another process of this host and user, as a part of this one's health: it hangs when its file grows old."""

    def __init__(self, process_name: str) -> None:
        self._file = liveness_file(process_name)

    def judge(self, name: str) -> CheckResult:
        """The process as a check of that name; one that is not there, or not yet, does not hang."""
        age_seconds = living_age_seconds(self._file) or 0.0
        if age_seconds <= STALE_SECONDS:
            return CheckResult(name, ok=True)
        told = f"The process {self._file.name} hangs: its loop last turned {age_seconds:.0f} s ago."
        return CheckResult(name, ok=False, detail=told, remedy="Restart this process; it starts that one. Its jobs are safe.")


class Loop:
    """When one loop of this process last turned, and how long it may take for a turn."""

    def __init__(self, patience_seconds: float = STALE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self.turned()

    def turned(self) -> None:
        self._at = time.monotonic()

    def judge(self, name: str) -> CheckResult:
        """The loop as a check of that name."""
        age_seconds = time.monotonic() - self._at
        if age_seconds <= self._patience_seconds:
            return CheckResult(name, ok=True)
        told = f"Its loop last turned {age_seconds:.0f} s ago."
        return CheckResult(name, ok=False, detail=told, remedy="Restart the process; its jobs are safe.")


_readiness = Readiness()
_loops: dict[str, Loop] = {}
_beside: dict[str, Process] = {}


def touch(name: str) -> None:
    """Say that the main loop of process ``name`` turned just now. Never raises: a full disk must not end a healthy process.

    systemd's watchdog and the liveness file are fed by the same judgement that ``/health/live`` gives: with one loop
    that hangs, the process is not live.
    """
    watch_loop(name, _loops.get(name) or Loop()).turned()
    if not is_live():
        return
    notify.tell(notify.ALIVE)
    try:
        touch_file(name)
    except OSError as error:
        log.warning("The liveness file cannot be written.", action="touch_liveness", file=str(liveness_file(name)), error=error.strerror)


def touch_until_asked(name: str, asked: StopSignal) -> None:
    """What the main thread of process ``name`` does while others do its work."""
    touch(name)
    while not asked.wait(_TOUCH_EVERY_SECONDS):
        touch(name)


def watch_loop(name: str, loop: Loop) -> Loop:
    """Part of *live* from now on: a loop of this process besides its main one."""
    _loops[name] = loop
    return loop


def watch_process(name: str, process: Process) -> None:
    """Part of *live* from now on: a process that this one has started, and that nobody else looks after."""
    _beside[name] = process


def add_check(name: str, check: Callable[[], object], *, kept_seconds: float = KEPT_SECONDS) -> None:
    """Part of *ready*: ``check`` returns when all is well, and raises what is wrong (OffchainVMError brings its remedy).

    A text that it returns is shown as the check's detail. It is called when somebody asks, in a thread of its own, and its
    answer is given again for ``kept_seconds``.
    """
    _readiness.add(name, check, kept_seconds=kept_seconds)


def live() -> list[CheckResult]:
    """One result for each loop of this process, and for each process that it watches."""
    loops = [loop.judge(name) for name, loop in list(_loops.items())]
    return loops + [process.judge(name) for name, process in list(_beside.items())]


def is_live() -> bool:
    """Whether all of that is well."""
    return all(result.ok for result in live())


def ready() -> list[CheckResult]:
    """Every check that was added, besides those of ``live``; within seconds, whatever hangs."""
    return live() + _readiness.results()
