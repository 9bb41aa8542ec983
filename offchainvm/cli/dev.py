"""``offchainvm dev``: the whole world on this machine, kept running."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path

import typer
from rich.console import Console

from offchainvm.cli import report, world
from offchainvm.cli.stack import DEFAULT_ROLES, Stack, StackOptions
from offchainvm.compiler.local import BRANCH
from offchainvm.devnet.client import Limits

_HAS_PAGES = importlib.util.find_spec("jinja2") is not None
_LOOK_SECONDS = 0.5
_WORDS = "A request of the development stack, number {number}."
_LIMITS = Limits(max_instructions=1_000_000_000, max_memory_mb=64, max_execution_seconds=10)

_FOLDER = typer.Option(Path(".state/dev"), "--folder", help="Folder for the logs, the state and the settings of the stack.")
_EVERY = typer.Option(0.0, "--every", min=0.0, help="Seconds between example requests; 0 = only one, at the start.")
_FLOWER = typer.Option(True, "--flower/--no-flower", help="Whether to run Flower, Celery's dashboard.")


def dev(folder: Path = _FOLDER, every: float = _EVERY, flower: bool = _FLOWER) -> None:
    """Run the whole stack on this machine until Ctrl-C: Coordinator, chain, bridge, workers, status page, Flower."""
    console = report.console()
    folder = folder.resolve()
    _forget_the_last_world(folder)
    example = world.publish_example(folder / "mirror")
    why_not = world.why_not_build(folder / "state", lambda line: console.print(line, soft_wrap=True))
    roles = [role for role in DEFAULT_ROLES if not (why_not and role == "compile")] + (["flower"] if flower else []) + ["web"] * _HAS_PAGES
    if why_not:
        console.print(
            f"No build here ({why_not}). Sources of your own cannot be built; the example's prebuilt module runs.", soft_wrap=True
        )
    options = StackOptions(roles=roles, settings={**example.settings, "TASK_EVENTS": "true"}, redis_persistence=True)
    with world.ending_in_order(), Stack(options, folder=folder) as stack:
        if why_not:
            world.upload_prebuilt(stack, example)
        stack.environment_file(folder / "env")
        _explain(console, stack, folder)
        try:
            _keep_running(console, stack, every)
        except KeyboardInterrupt:
            console.print("\nStopping …")


def _forget_the_last_world(folder: Path) -> None:
    """The chain lives in memory and begins at its first block: jobs, nonces and cursors of the last one would not fit it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("logs", "live", "redis", "state"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _explain(console: Console, stack: Stack, folder: Path) -> None:
    for name, place in stack.describe().items():
        console.print(f"[bold]{name:<12}[/] {place}", soft_wrap=True)
    console.print("\nIn another terminal:", soft_wrap=True)
    for command in ("offchainvm jobs", "offchainvm jobs show 0", "offchainvm doctor"):
        console.print(f"  OFFCHAINVM_ENV_FILE={folder / 'env'} {command}", soft_wrap=True)
    console.print("\nCtrl-C stops everything.", soft_wrap=True)


def _keep_running(console: Console, stack: Stack, every: float) -> None:
    number, next_at = 0, time.monotonic()
    while True:
        stack.check()
        if time.monotonic() >= next_at:
            hash = stack.client.send_request(world.REPOSITORY, BRANCH, world.TARGET, _WORDS.format(number=number), _LIMITS)
            console.print(f"request {number} sent to the contract: transaction {hash}", soft_wrap=True)
            number, next_at = number + 1, time.monotonic() + every if every else float("inf")
        time.sleep(_LOOK_SECONDS)
