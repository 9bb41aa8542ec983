"""Whether this host holds a guest that broke out of the engine."""

from __future__ import annotations

from offchainvm.engine import probe


def check_confinement() -> str:
    """The kernel leaves a guest's process nothing but its memory and its one socket."""
    return probe.report()
