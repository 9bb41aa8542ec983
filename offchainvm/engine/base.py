"""What the rooms above see of an engine: a request, a result, and an ``Executor``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from offchainvm.cancellation import Cancellation
from offchainvm.engine.limits import Limits
from offchainvm.engine.outcome import Outcome
from offchainvm.errors import ExecutionError, Status

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Cancellation", "ExecutionRequest", "ExecutionResult", "Executor", "Limits"]


@dataclass(frozen=True)
class ExecutionRequest:
    """One execution: ``input`` for the guest, its limits, and the environment variables that it may read.

    ``entry`` is ``execute`` or ``_start`` where one of them is wanted; ``auto`` takes the first that the module has.
    """

    input: bytes
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)
    entry: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ExecutionResult(Outcome):
    """How an execution ended, and what it used; metrics are kept on failure too.

    ``stdout`` has at most ``limits.output_bytes``; ``stderr`` at most ``limits.stderr_bytes``.
    ``entry`` is the way in that was taken: ``execute``, ``_start``, or a component's ``wasi:cli/run``; empty where nothing ran.
    """

    limits: Limits
    entry: str = ""
    meter_version: str = ""
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    compile_ms: float = 0.0
    cache_hit: bool = False
    engine: str = ""
    engine_version: str = ""
    module_sha256: str = ""

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    def raise_for_status(self) -> None:
        """Raises ``ExecutionError`` unless the execution gave an answer."""
        if not self.ok:
            raise ExecutionError(self.status, self.message or self.status.value)


class Executor(ABC):
    """Runs modules. One job at a time; a context manager."""

    @abstractmethod
    def execute(self, module: Path, request: ExecutionRequest, *, cancellation: Cancellation | None = None) -> ExecutionResult:
        """Run the module in the file ``module``, until it ends or ``cancellation`` ends it (status CANCELLED).

        Whatever the module does is a status of the result, never an exception.
        """

    def close(self) -> None:
        """Give back every process and descriptor. Closing twice is fine."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
