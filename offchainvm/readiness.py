"""What a process needs, as named checks: each in a thread of its own, its answer kept for some seconds.

A service that hangs costs one thread and no answer: who asks is told which check has not come back, and no second one is begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from offchainvm.errors import OffchainVMError

KEPT_SECONDS = 10.0
"""How long an answer is given again: several may ask, and what is asked may count its requests."""
FAILURE_KEPT_SECONDS = 2.0
WAIT_SECONDS = 3.0
"""Longest that one asking takes, all checks together."""


@dataclass(frozen=True)
class CheckResult:
    """One named check: ``detail`` says what is wrong, or worth to know, ``remedy`` what to do when it is not ``ok``."""

    name: str
    ok: bool
    detail: str = ""
    remedy: str = ""


class Probe:
    """One check, run by one thread at a time."""

    def __init__(self, name: str, check: Callable[[], object], *, kept_seconds: float) -> None:
        self.name, self._check, self._kept_seconds = name, check, kept_seconds
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._ended.set()
        self._result: CheckResult | None = None
        self._began_at = self._ended_at = float("-inf")

    def begin(self) -> None:
        """Run the check beside this thread, unless it runs already, or its answer is young."""
        with self._lock:
            if not self._ended.is_set() or self._is_young():
                return
            self._ended.clear()
            self._began_at = time.monotonic()
        threading.Thread(target=self._run, name=f"check {self.name}", daemon=True).start()

    def result(self, *, until: float) -> CheckResult:
        """What the check said, waited for until that moment (``time.monotonic``)."""
        if self._ended.wait(max(0.0, until - time.monotonic())) and self._result is not None:
            return self._result
        told = f"It has not answered for {time.monotonic() - self._began_at:.0f} s."
        return CheckResult(self.name, ok=False, detail=told, remedy="What it asks hangs: look at that service, and at the way to it.")

    def _is_young(self) -> bool:
        if self._result is None:
            return False
        kept_seconds = self._kept_seconds if self._result.ok else min(self._kept_seconds, FAILURE_KEPT_SECONDS)
        return time.monotonic() - self._ended_at < kept_seconds

    def _run(self) -> None:
        self._result = _result_of(self.name, self._check)
        self._ended_at = time.monotonic()
        self._ended.set()


class Readiness:
    """The checks of one process, by name: one that is added again takes the place of the earlier one."""

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}

    def add(self, name: str, check: Callable[[], object], *, kept_seconds: float) -> None:
        self._probes[name] = Probe(name, check, kept_seconds=kept_seconds)

    def results(self) -> list[CheckResult]:
        """All checks side by side, within ``WAIT_SECONDS``."""
        probes, until = list(self._probes.values()), time.monotonic() + WAIT_SECONDS
        for probe in probes:
            probe.begin()
        return [probe.result(until=until) for probe in probes]


def _result_of(name: str, check: Callable[[], object]) -> CheckResult:
    try:
        found = check()
    except OffchainVMError as error:
        return CheckResult(name, ok=False, detail=error.sentence, remedy=error.remedy)
    except Exception as error:  # a check that breaks is a check that failed
        return CheckResult(name, ok=False, detail=f"The check broke: {type(error).__name__}.", remedy="See the log of this process.")
    return CheckResult(name, ok=True, detail=found if isinstance(found, str) else "")
