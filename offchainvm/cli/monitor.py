"""``offchainvm monitor``: the event monitor as a process of its own."""

from __future__ import annotations

from offchainvm.bridge.service import Service
from offchainvm.cli.bridge import run_service
from offchainvm.settings import Role, Settings


def monitor() -> None:
    """Run the event monitor: it reads the chain and has the Coordinator create a task for each request.

    Start several for one contract: one is active, the others stand by.
    """
    run_service([Role.MONITOR], _monitor_service)


def _monitor_service(settings: Settings) -> Service:
    from offchainvm.bridge.assembly import monitor_service  # noqa: PLC0415 - as in ``bridge``

    return monitor_service(settings)
