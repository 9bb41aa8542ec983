"""``offchainvm pause``: let no new work in."""

from __future__ import annotations

import typer

from offchainvm.jobs.connection import open_redis
from offchainvm.jobs.pauses import FLEET, Pauses

WORKER = typer.Option(FLEET, "--worker", metavar="WORKER_ID", help="Only the bridge with this WORKER_ID; default: the whole fleet.")
REASON = typer.Option("", "--reason", help="Why; `offchainvm doctor` shows it.")


def pauses() -> Pauses:
    """The switch in the Redis that the settings name."""
    return Pauses(open_redis())


def name_of(worker: str) -> str:
    return "the fleet" if worker == FLEET else worker


def pause(worker: str = WORKER, reason: str = REASON) -> None:
    """Stop new work, on the whole fleet or one bridge; accepted jobs go on.

    No bridge polls until `offchainvm resume`, even after restarts.
    """
    pauses().pause(worker, reason=reason)
    typer.echo(f"Paused: {name_of(worker)}. Polls on their way are finished. `offchainvm resume` undoes it.")
