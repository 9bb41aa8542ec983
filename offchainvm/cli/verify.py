"""``offchainvm verify``: does the source that a provenance names give the module's bytes?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import typer

from offchainvm.cli.build import SETTINGS, Screen, run_build
from offchainvm.compiler import provenance
from offchainvm.errors import OffchainVMError
from offchainvm.settings import load_only

EXIT_DIFFERENT, EXIT_USAGE, EXIT_NOT_BUILT = 1, 2, 3
_FILE = typer.Argument(metavar="FILE", help="The module. Its provenance is expected in FILE.provenance.json.", exists=True, dir_okay=False)
_PROVENANCE = typer.Option(None, "--provenance", help="The provenance, if it is in another file.", dir_okay=False)
_LOG = typer.Option(False, "--log", help="Also show the log of the build.")
_AS_JSON = typer.Option(False, "--json", help="Print the result as JSON.")


def verify(file: Path = _FILE, *, provenance_file: Path | None = _PROVENANCE, log: bool = _LOG, as_json: bool = _AS_JSON) -> None:
    """Build a module again from its provenance, and compare the bytes.

    Exit code 0: the same bytes. 1: the provenance or the rebuild has other bytes.
    2: the provenance cannot be read. 3: the source could not be built again.
    """
    claim = _read(provenance_file or _beside(file))
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != claim.sha256:
        _tell({"verdict": "different", "claimed": claim.sha256, "file": found}, "The file is not the one of its provenance.", as_json)
        raise typer.Exit(EXIT_DIFFERENT)
    # Building twice would prove less than this comparison does.
    settings = load_only(SETTINGS).model_copy(update={"verify_builds": "off"})
    try:
        _, built = run_build(settings, claim.source, Screen(quiet=not log, silent=as_json), lockfile=claim.lockfile)
    except OffchainVMError as error:
        _tell({"verdict": "not_built", "code": error.code, "claimed": claim.sha256}, f"{error.code}: {error.sentence}", as_json)
        if error.remedy and not as_json:
            typer.echo(error.remedy, err=True)
        raise typer.Exit(EXIT_NOT_BUILT) from None
    now = provenance.circumstances(built.provenance)
    others = [name for name, value in claim.circumstances.items() if now[name] != value]
    same = built.sha256 == claim.sha256
    sentence = "The source gives the same bytes." if same else "The source gives OTHER bytes."
    if provenance.made_lockfile(built.provenance):
        sentence += " The repository has no Cargo.lock: the one that the provenance holds was used."
    if others:
        sentence += f" Not as in the provenance: {', '.join(others)}."
    verdict = "same" if same else "different"
    _tell({"verdict": verdict, "claimed": claim.sha256, "file": found, "rebuilt": built.sha256, "differs_in": others}, sentence, as_json)
    raise typer.Exit(0 if same else EXIT_DIFFERENT)


def _beside(file: Path) -> Path:
    """``x.wasm.provenance.json``, or ``x.provenance.json`` as beside the prebuilt example."""
    usual = file.with_name(f"{file.name}.provenance.json")
    short = file.with_name(f"{file.stem}.provenance.json")
    return short if short.is_file() and not usual.is_file() else usual


def _read(path: Path) -> provenance.Claim:
    try:
        with path.open("rb") as opened:
            return provenance.read_claim(opened.read(provenance.LIMIT_BYTES))
    except OSError as error:
        typer.echo(f"{path} cannot be read: {error.strerror}.", err=True)
    except OffchainVMError as error:
        typer.echo(f"{path}: {error.sentence}\n{error.remedy}".rstrip(), err=True)
    raise typer.Exit(EXIT_USAGE)


def _tell(result: dict[str, object], sentence: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**result, "sentence": sentence}))
        return
    typer.echo()
    for name in ("claimed", "file", "rebuilt"):
        if name in result:
            typer.echo(f"{name:<9} sha256 {result[name]}")
    colour = "green" if result["verdict"] == "same" else "red"
    typer.echo(typer.style(sentence, fg=colour), err=result["verdict"] == "not_built")
