"""``offchainvm drain``: let no new work in, and say when nothing is left."""

from __future__ import annotations

import time
from collections.abc import Iterator

import typer
from redis import Redis

from offchainvm.cli.pause import REASON
from offchainvm.errors import Unavailable
from offchainvm.jobs.connection import open_redis
from offchainvm.jobs.journals import Journals
from offchainvm.jobs.pauses import Pauses
from offchainvm.jobs.store import JobStore

LOOK_SECONDS = 1.0
_WAIT = typer.Option(False, "--wait", help="Wait until no work is left, and show each change; the exit code is then 0.")
_TIMEOUT = typer.Option(0.0, "--timeout", min=0, help="With --wait: give up after this many seconds, with exit code 1; 0 = never.")
_NOT_WORK = ("settled", "rejected")
_VANISHED = "vanished bridges"


def drain(wait: bool = _WAIT, timeout: float = _TIMEOUT, reason: str = REASON) -> None:
    """Stop new work on the whole fleet, and show whether any work is left.

    The whole fleet stays paused until `offchainvm resume`.
    Exit code 0: no work is left. 1: some is, namely polls under way, tasks in
    bridges' journals that are no job yet, jobs, transactions in flight, or
    reports that the Coordinator has not taken. A bridge that vanished in the
    last day counts too: nobody knows what its journal holds.
    """
    if timeout and not wait:
        raise typer.BadParameter("--timeout needs --wait.")
    redis = open_redis()
    Pauses(redis).pause(reason=reason or "drained")
    give_up_at, told = time.monotonic() + timeout if timeout else None, ""
    for found in _looks(redis, give_up_at=give_up_at) if wait else [left(redis)]:
        text = ", ".join(f"{count} {name}" for name, count in found.items()) or "nothing"
        if text != told:
            typer.echo(f"Left: {text}.")
            if _VANISHED in found:
                typer.echo("The journal of a vanished bridge may hold tasks: a bridge on its host, with its STATE_DIR, brings them in.")
        told = text
    raise typer.Exit(0 if told == "nothing" else 1)


def left(redis: Redis) -> dict[str, int]:
    """What is not finished, by name; the polls first, then the journals: what they bring is further on before they are over."""
    polls, journals = Pauses(redis).polls(), Journals(redis).held()
    found = {"polls": polls, "journalled": journals.tasks, _VANISHED: journals.vanished, **JobStore(redis).counts()}
    return {name: count for name, count in found.items() if count and name not in _NOT_WORK}


def _looks(redis: Redis, *, give_up_at: float | None) -> Iterator[dict[str, int]]:
    """One look a second, until two in a row found nothing: between two steps a job may be seen in neither."""
    empty = 0
    while empty < 2 and (give_up_at is None or time.monotonic() < give_up_at):
        try:
            found = left(redis)
        except Unavailable as error:
            typer.echo(str(error), err=True)
            empty = 0
        else:
            empty = 0 if found else empty + 1
            yield found
        if empty < 2:
            time.sleep(LOOK_SECONDS)
