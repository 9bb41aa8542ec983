"""``offchainvm bridge``: polls, publishes, watches transactions, reports. Runs until a signal stops it."""

from __future__ import annotations

from collections.abc import Callable

import typer

from offchainvm import logs
from offchainvm.bridge.service import Service
from offchainvm.errors import OffchainVMError, SettingsError
from offchainvm.settings import Role, Settings, load


def bridge() -> None:
    """Run the bridge: poll the Coordinator, publish jobs, watch transactions and report outcomes.

    Stops on SIGTERM or Ctrl-C when the polls in hand are finished; at once on a second signal.
    """
    run_service([Role.BRIDGE], _bridge_service)


def run_service(roles: list[Role], make: Callable[[Settings], Service]) -> None:
    """Load the settings of ``roles``, say clearly what is wrong with them, and run what ``make`` puts together."""
    try:
        settings = load(roles)
        logs.configure(level=settings.log_level, format=settings.log_format, node=settings.node_name)
        service = make(settings)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except (OffchainVMError, OSError) as error:
        typer.echo(f"offchainvm cannot start: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(service.run())


def _bridge_service(settings: Settings) -> Service:
    # Late: it brings in Celery, which `--help` and the other commands do not need.
    from offchainvm.bridge.assembly import Bridge  # noqa: PLC0415

    return Bridge(settings).service()
