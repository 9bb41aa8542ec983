"""What a builder takes and gives: one source at one commit in, one checked module out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from offchainvm.cancellation import Cancellation
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.source import Source


@dataclass(frozen=True)
class BuildRequest:
    """One build to make."""

    source: Source
    commit_sha: str
    """Full SHA of the commit: 40 lower-case hex characters."""
    limits: BuildLimits = field(default_factory=BuildLimits)
    require_lockfile: bool = False
    """Refuse a repository without a Cargo.lock, instead of making one."""
    lockfile: str = field(default="", repr=False)
    """Content of the Cargo.lock for a repository without one: a rebuild uses that of the provenance."""


@dataclass(frozen=True)
class BuildEvent:
    """A line of a build as it happens: sanitised text, safe for a terminal."""

    phase: str
    """``source``, ``inspect``, ``fetch``, ``compile``, ``verify``, ``check`` or ``record``."""
    text: str


@dataclass(frozen=True)
class BuiltModule:
    """A module that a build gave, checked by the engine."""

    wasm: bytes = field(repr=False)
    sha256: str
    size: int
    """Bytes."""
    seconds: float
    """Wall time of the whole build."""
    log_tail: str = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)
    """An in-toto Statement v1 with a SLSA provenance v1 predicate, ready for JSON."""
    log_path: Path | None = None
    """Where this host keeps the log."""


OnEvent = Callable[[BuildEvent], None]


def ignore_event(event: BuildEvent) -> None:
    """The listener of those who do not listen."""


class Builder(ABC):
    """Makes modules from sources. One builder may serve many builds, one after the other or at once."""

    @abstractmethod
    def build(self, request: BuildRequest, *, on_event: OnEvent = ignore_event, cancellation: Cancellation | None = None) -> BuiltModule:
        """Build ``request``; ``on_event`` gets each line, from any thread; ``cancellation`` ends the phase at work.

        Raises:
            BuildError: what the repository did, or the sandbox around it.
            Unavailable: the container engine is away (service ``docker``).
            Cancelled: at the wish of ``cancellation``.
        """

    def close(self) -> None:  # noqa: B027 - most builders hold nothing
        """Give back what the builder holds; it is not used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
