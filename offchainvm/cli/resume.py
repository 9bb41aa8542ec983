"""``offchainvm resume``: let work in again."""

from __future__ import annotations

import typer

from offchainvm.cli.pause import WORKER, name_of, pauses
from offchainvm.jobs.pauses import FLEET


def resume(worker: str = WORKER) -> None:
    """Let new work in again, after pause or drain."""
    switch = pauses()
    was_paused = switch.resume(worker)
    typer.echo(f"Resumed: {name_of(worker)}." if was_paused else f"It was not paused: {name_of(worker)}.")
    if worker != FLEET and switch.holds(worker):
        typer.echo("The whole fleet is paused still: `offchainvm resume` without --worker.")
