"""``offchainvm workers``: every process of the fleet, as the registry in Redis knows it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import typer

from offchainvm.cli import report
from offchainvm.errors import Unavailable
from offchainvm.fleet import ALIVE_SECONDS, Registry, Sighting
from offchainvm.jobs.connection import open_redis

WATCH_SECONDS = 2.0
_AS_JSON = typer.Option(False, "--json", help="Print JSON instead of a table; with --watch, one line per look.")
_WATCH = typer.Option(False, "--watch", help="Refresh every two seconds, until Ctrl-C.")
_NOBODY = "No process is registered. Start them: offchainvm bridge; celery -A offchainvm worker"


def workers(as_json: bool = _AS_JSON, watch: bool = _WATCH) -> None:
    """Show every process of the fleet: what it is doing, when it was last seen, what a vanished one held.

    A process that stops properly disappears from the list. "gone": it vanished;
    it is shown for a day with the jobs it held, which others take over.
    "hung": it is there, but one of its loops does not run; restart it.
    """
    registry = Registry(open_redis())
    if not watch:
        _show(registry.sightings(), as_json=as_json)
        return
    try:
        _watch(registry, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _watch(registry: Registry, *, as_json: bool) -> None:
    console = report.console()
    while True:
        try:
            found = registry.sightings()
        except Unavailable as error:
            typer.echo(str(error), err=True)
        else:
            if not as_json:
                console.clear()
            _show(found, as_json=as_json)
        time.sleep(WATCH_SECONDS)


def _show(found: list[Sighting], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([as_values(one) for one in found]))
    elif found:
        report.console().print(report.workers_table(found))
        if any(one.gone for one in found):
            typer.echo(f"\ngone: not seen for {ALIVE_SECONDS:.0f} s. Its jobs are taken over by others when their leases have run out.")
    else:
        typer.echo(_NOBODY)


def as_values(one: Sighting) -> dict[str, Any]:
    """A process as JSON values."""
    return {
        **asdict(one.member),
        "state": one.state,
        "seen_seconds_ago": round(one.age_seconds, 1),
        "jobs": [asdict(job) for job in one.jobs],
    }
