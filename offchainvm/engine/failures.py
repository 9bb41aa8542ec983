"""Compilations that failed and would fail again, so that no module holds a compiler for ever. Of one process, never on disk."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from offchainvm.engine.limits import CompileLimits
from offchainvm.engine.process import Ending
from offchainvm.errors import ExecutionError, Status

_KEPT_MAX = 256
_AGAIN_SECONDS = 300.0
_BUSY_SHARE = 0.8
"""Of its time a compiler has had the processor, or its lateness is the host's."""
_FAILS_AGAIN = (Status.INVALID_MODULE, Status.UNSUPPORTED_FEATURE, Status.MODULE_TOO_COMPLEX, Status.LINK_ERROR)


class Failures:
    """The failures that were met last, by key."""

    def __init__(self, limits: CompileLimits) -> None:
        self._limits, self._kept = limits, OrderedDict[str, tuple[ExecutionError, float]]()

    def check(self, key: str) -> None:
        """Raises ExecutionError: it would not compile now either."""
        error, until = self._kept.get(key, (None, 0.0))
        if error is not None and time.monotonic() < until:
            self._kept.move_to_end(key)
            raise ExecutionError(error.status, error.sentence)

    def put(self, key: str, error: ExecutionError, ending: Ending) -> None:
        """Remember it where the module alone decides, for some minutes where it most likely did, else not."""
        seconds = self._seconds(error.status, ending)
        if not seconds:
            return
        self._kept[key] = error, time.monotonic() + seconds
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)

    def _seconds(self, status: Status, ending: Ending) -> float:
        if status in _FAILS_AGAIN:
            return math.inf
        busy = (ending.cpu_ms or 0.0) >= _BUSY_SHARE * self._limits.wall_seconds * 1000
        told = status is Status.COMPILE_RESOURCE_LIMIT and bool(ending.head)
        return _AGAIN_SECONDS if told or (status is Status.COMPILE_TIMEOUT and busy) else 0.0
