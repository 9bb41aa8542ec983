"""``offchainvm build``: one build in the sandbox, its phases and its log as they happen."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import typer

from offchainvm.compiler.base import BuildEvent, BuildRequest, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.source import Resolver, parse_source, source_key
from offchainvm.errors import BuildError
from offchainvm.models import DEFAULT_BUILD_TARGET, CodeSource
from offchainvm.settings import Settings, load_only
from offchainvm.times import duration

SETTINGS = (
    "state_dir",
    "worker_id",
    "ca_bundle",
    "docker_image",
    "builder_image",
    "docker_runtime",
    "compile_timeout_seconds",
    "compile_memory_limit_mb",
    "compile_cpu_limit",
    "build_disk_mb",
    "source_mirror_url",
    "crates_mirror_url",
    "crate_cache_max_mb",
    "build_network",
    "require_lockfile",
    "verify_builds",
)
PHASES = {"fetch": "Dependencies", "compile": "Compile", "verify": "Compile again"}
_REPO = typer.Argument(metavar="REPO", help="https://github.com/OWNER/NAME, or OWNER/NAME.")
_COMMIT = typer.Argument(metavar="COMMIT", help="A branch, a tag, or the full SHA of a commit.")
_TARGET = typer.Option(DEFAULT_BUILD_TARGET, help="wasm32-wasip1 for a command, or wasm32-unknown-unknown for a reactor.")
_OUTPUT = typer.Option(None, "--output", "-o", help="Where to write the module; default: its own name, in this folder.", dir_okay=False)
_TIMEOUT = typer.Option(None, min=1, max=3600, help="Seconds for all phases together; default: COMPILE_TIMEOUT_SECONDS.")
_QUIET = typer.Option(False, "--quiet", "-q", help="Show only the phases, not the log.")
_AS_JSON = typer.Option(False, "--json", help="Print the result or the error as JSON; the log is kept in STATE_DIR only.")


def build(
    repo: str = _REPO,
    commit: str = _COMMIT,
    *,
    target: str = _TARGET,
    output: Path | None = _OUTPUT,
    timeout_seconds: int | None = _TIMEOUT,
    quiet: bool = _QUIET,
    as_json: bool = _AS_JSON,
) -> None:
    """Build one commit of a repository here in the sandbox, with live phases and log."""
    given = {"compile_timeout_seconds": timeout_seconds} if timeout_seconds else {}
    settings = load_only(SETTINGS).model_copy(update=given)
    _check_writable(output)
    try:
        key, built = run_build(settings, CodeSource(repo=repo, commit=commit, build_target=target), Screen(quiet=quiet, silent=as_json))
    except BuildError as error:
        _fail(error, with_log=quiet, as_json=as_json)
    file, provenance = _write(built, output)
    result = {
        "file": str(file),
        "provenance": str(provenance),
        "log": str(built.log_path or ""),
        "sha256": built.sha256,
        "size": built.size,
    }
    if as_json:
        typer.echo(json.dumps({**result, "source_key": key, "seconds": round(built.seconds, 3)}))
        return
    typer.echo(f"\n{file}: {built.size} bytes in {duration(built.seconds)}\n  sha256      {built.sha256}")
    typer.echo(f"  source key  {key}\n  provenance  {provenance}")


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.provenance.json")


def _write(built: BuiltModule, output: Path | None) -> tuple[Path, Path]:
    """The module, by its own name where no other is wanted, and its provenance beside it."""
    file = output or Path(built.provenance["subject"][0]["name"])
    provenance = _beside(file)
    try:
        file.write_bytes(built.wasm)
        provenance.write_text(json.dumps(built.provenance, indent=1) + "\n")
    except OSError as error:
        raise _unwritable(error.filename or file, error.strerror) from None
    return file, provenance


def _check_writable(output: Path | None) -> None:
    """Before the build, which takes its time; the module's own name is known after it only."""
    folder = output.parent if output else Path()
    files = [file for file in (output, _beside(output)) if file.exists()] if output else []
    for path in (folder, *files):
        if not os.access(path, os.W_OK):
            raise _unwritable(path, "" if path.exists() else "it does not exist")


def _unwritable(path: object, reason: str | None) -> typer.BadParameter:
    return typer.BadParameter(f"{path} cannot be written{f' ({reason})' if reason else ''}.", param_hint="--output")


def run_build(settings: Settings, code_source: CodeSource, on_event: Screen, *, lockfile: str = "") -> tuple[str, BuiltModule]:
    """Resolve and build ``code_source``, with ``lockfile`` where it has none: its source key, and the module."""
    source = parse_source(code_source, mirror_url=settings.source_mirror_url)
    commit_sha = Resolver(ca_bundle=settings.ca_bundle).resolve(source)
    request = BuildRequest(source, commit_sha, BuildLimits.from_settings(settings), settings.require_lockfile, lockfile)
    with SandboxBuilder.from_settings(settings) as builder:
        builder.check()
        built = builder.build(request, on_event=on_event)
    return source_key(source.repo, commit_sha, source.target), built


class Screen:
    """Shows events: a heading for each phase with the time so far, its lines below, and always where the log is kept."""

    def __init__(self, *, quiet: bool, silent: bool) -> None:
        self._quiet = quiet
        self._silent = silent
        self._phase = ""
        self._started = time.monotonic()

    def __call__(self, event: BuildEvent) -> None:
        if self._silent:
            return
        if event.phase != self._phase:
            self._phase = event.phase
            at = duration(time.monotonic() - self._started)
            typer.echo(f"{typer.style(PHASES.get(event.phase, event.phase.capitalize()), bold=True):<24} {typer.style(at, dim=True)}")
        if not self._quiet or event.phase == "record":
            typer.echo(f"  {event.text}")


def _fail(error: BuildError, *, with_log: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"code": error.code, "error": error.sentence, "remedy": error.remedy, "log_tail": error.log_tail}))
        raise typer.Exit(1)
    if with_log and error.log_tail:
        typer.echo(error.log_tail, err=True)
    typer.echo(f"{typer.style(error.code, fg='red', bold=True)}: {error.sentence}", err=True)
    if error.remedy:
        typer.echo(error.remedy, err=True)
    raise typer.Exit(1)
