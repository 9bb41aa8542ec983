"""``offchainvm doctor``: the view from outside. Each row says what is wrong, and what to do about it."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from offchainvm.cli import report
from offchainvm.cli.checks import CHECKS
from offchainvm.cli.checks.needs import NotLookedAt
from offchainvm.compiler import engine, reaper
from offchainvm.errors import OffchainVMError, SettingsError
from offchainvm.logs import get_logger
from offchainvm.settings import Role, load

log = get_logger()

_ROLES = typer.Option(None, "--role", help="Check only what this role needs; may be repeated. Default: all.")
_REAP = typer.Option(False, "--reap", help="Do not check; remove what dead builds left in the container engine, and list it.")
_AS_JSON = typer.Option(False, "--json", help="Print JSON instead of a table.")


@dataclass(frozen=True)
class Row:
    """One line of the examination; ``ok`` is None where it could not be looked at."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def doctor(roles: list[Role] | None = _ROLES, *, reap: bool = _REAP, as_json: bool = _AS_JSON) -> None:
    """Check everything a worker needs, and say what is wrong and how to fix it."""
    if reap:
        _reap(as_json=as_json)
        return
    rows = list(examine(roles or [role for role in Role if role not in {Role.MONITOR, Role.WEB}]))
    wrong = [row for row in rows if row.ok is False]
    if as_json:
        typer.echo(json.dumps({"ok": not wrong, "checks": [asdict(row) for row in rows]}))
    else:
        console = report.console()
        console.print(report.checks_table((row.ok, row.name, row.detail, row.remedy) for row in rows))
        console.print(f"\n{len(wrong)} of {len(rows)} are wrong." if wrong else "\nNothing is wrong.")
    raise typer.Exit(1 if wrong else 0)


def _reap(*, as_json: bool) -> None:
    """Builds past their deadline, and those whose process on this host has ended; a live one is never touched."""
    with contextlib.closing(engine.connect()) as client:
        removed = reaper.reap(client)
    lines = [*(f"removed {name}" for name in removed), f"{len(removed)} containers and volumes of dead builds are removed."]
    typer.echo(json.dumps({"removed": removed}) if as_json else "\n".join(lines))


def examine(roles: Sequence[Role]) -> Iterator[Row]:
    """All rows, one after the other."""
    yield _settings_row(roles)
    asked = set(roles)
    for needed_by, name, check in CHECKS:
        if asked & needed_by:
            yield _row(name, check)


def _settings_row(roles: Sequence[Role]) -> Row:
    """One row for all roles: they share most settings, and a problem is told once."""
    complete, problems = [], dict[str, None]()
    for role in roles:
        found = _problems_of(role)
        problems.update(dict.fromkeys(found))
        if not found:
            complete.append(role.value)
    ready = f"complete for: {', '.join(complete)}" if complete else "complete for no role"
    if not problems:
        return Row("settings", ok=True, detail=ready)
    return Row(
        "settings", ok=False, detail="\n".join([*problems, ready]), remedy="See docs/settings.md; `--role` names what this machine serves."
    )


def _problems_of(role: Role) -> list[str]:
    try:
        load([role])
    except SettingsError as error:
        return error.problems
    return []


def _row(name: str, check: Callable[[], str]) -> Row:
    try:
        return Row(name, ok=True, detail=check())
    except NotLookedAt as error:
        return Row(name, ok=None, detail=str(error))
    except SettingsError as error:
        return Row(name, ok=False, detail="\n".join(error.problems))
    except OffchainVMError as error:
        return Row(name, ok=False, detail=error.sentence, remedy=error.remedy)
    except Exception as error:  # an examination that stops half way helps nobody
        # The way to it, without its text: that may hold a secret.
        way = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
        log.debug("A check broke.", action="examine", check=name, error=type(error).__name__, way=" > ".join(way))
        remedy = "Please report this, with what LOG_LEVEL=debug shows of it."
        return Row(name, ok=False, detail=f"The check itself broke: {type(error).__name__}.", remedy=remedy)
