"""``offchainvm``: one file a command. A command's room is imported only when the command is asked for.

So ``offchainvm --help`` is quick, and a room that cannot be imported takes no other command with it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from offchainvm import __version__
from offchainvm.errors import OffchainVMError, SettingsError

# Command: its file, which has a function (or a typer.Typer) of the same name, and the line that --help shows.
COMMANDS = {
    "demo": "Run one request all the way on this machine, from the contract to its answer, and show each step.",
    "dev": "Run the whole stack on this machine until Ctrl-C: Coordinator, chain, bridge, workers, status page, Flower.",
    "bridge": "Run the bridge: poll the Coordinator, publish jobs, watch transactions and report outcomes.",
    "monitor": "Run the event monitor: it reads the chain and has the Coordinator create a task for each request.",
    "run": "Run one module here, as an execute worker would, and show what it used of each limit.",
    "build": "Build one commit of a repository here in the sandbox, with live phases and log.",
    "verify": "Build a module again from its provenance, and compare the bytes.",
    "jobs": "List jobs, show one on a time line, or retry, cancel or replay it.",
    "workers": "Show every process of the fleet: what it is doing, when it was last seen, what a vanished one held.",
    "pause": "Stop new work, on the whole fleet or one bridge; accepted jobs go on.",
    "drain": "Stop new work on the whole fleet, and show whether any work is left.",
    "resume": "Let new work in again, after pause or drain.",
    "web": "Run the status page: jobs, fleet, keys and queues in a browser, read-only.",
    "doctor": "Check everything a worker needs, and say what is wrong and how to fix it.",
}
EXIT_FAILED, EXIT_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the program; always ends in SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _program(words)(words)
    except SettingsError as error:
        _say(str(error))
        raise SystemExit(EXIT_USAGE) from None
    except OffchainVMError as error:
        _say(f"{error.sentence}\n{error.remedy}".rstrip())
        raise SystemExit(EXIT_FAILED) from None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _program(words: list[str]) -> typer.Typer:
    program = typer.Typer(
        name="offchainvm",
        help="Runs heavy code off chain for NEAR smart contracts. See it work: offchainvm demo. Find a fault: offchainvm doctor.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    program.callback()(_options)
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, help in COMMANDS.items():
        _register(program, name, help, _load(name) if name == asked else _placeholder)
    return program


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
) -> None:
    """Options that come before the command."""


def _load(name: str) -> Callable[..., Any] | typer.Typer:
    from offchainvm import logs  # noqa: PLC0415 -- structlog is not needed to show --help

    logs.configure(level=_log_level(), format="console")  # on standard error; commands that are processes set their own
    command: Callable[..., Any] | typer.Typer = getattr(importlib.import_module(f"offchainvm.cli.{name}"), name)
    return command


def _log_level() -> str:
    """LOG_LEVEL, where it asks for more or less than usual: the lines of ``info``, its default, do not belong between those of a table."""
    from offchainvm.settings import load_only  # noqa: PLC0415 -- as above

    try:
        level = load_only(["log_level"]).log_level
    except SettingsError:  # the command says so, or does not need them
        return "warn"
    return "warn" if level == "info" else level


def _register(program: typer.Typer, name: str, help: str, command: Callable[..., Any] | typer.Typer) -> None:
    if isinstance(command, typer.Typer):
        program.add_typer(command, name=name, help=help)
    else:
        program.command(name, help=None if command is not _placeholder else help)(command)


def _placeholder() -> None:
    """Stands for a command that was not asked for."""
