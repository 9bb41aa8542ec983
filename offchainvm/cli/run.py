"""``offchainvm run``: one local execution, and what it used against each limit."""

from __future__ import annotations

import base64
import json
import re
import sys
import tempfile
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from offchainvm.cli import report
from offchainvm.cli.units import parse_bytes, parse_count, parse_seconds
from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.identity import WASMER, WASMTIME
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import Status
from offchainvm.settings import load_only

EXIT_CODES: dict[Status, int] = {
    Status.OK: 0,
    **dict.fromkeys((Status.GUEST_EXIT, Status.TRAP, Status.STACK_OVERFLOW), 10),
    **dict.fromkeys((Status.OUT_OF_FUEL, Status.TIMEOUT, Status.MEMORY_LIMIT, Status.OUTPUT_LIMIT), 11),
    **dict.fromkeys((Status.INVALID_MODULE, Status.UNSUPPORTED_FEATURE, Status.MODULE_TOO_COMPLEX, Status.LINK_ERROR), 12),
    **dict.fromkeys((Status.COMPILE_TIMEOUT, Status.COMPILE_RESOURCE_LIMIT), 12),
    **dict.fromkeys((Status.ENGINE_CRASH, Status.CANCELLED, Status.INTERNAL_ERROR), 13),
}
_CACHE_BYTES = 256 * MIB


class Name(str, Enum):
    """What the setting WASM_RUNTIME takes."""

    WASMTIME = WASMTIME
    WASMER = WASMER


class Metering(str, Enum):
    """What the setting METERING takes."""

    NATIVE = "native"
    INJECTED = "injected"


class Entry(str, Enum):
    """How a program is entered: ``auto`` is ``execute`` where a module exports that with a memory, else ``_start``."""

    AUTO = "auto"
    EXECUTE = "execute"
    START = "_start"


def _environment(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not re.fullmatch(r"[^=\0]+=[^\0]*", pair):
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _input(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"{text[1:]} cannot be read ({error.strerror}); a text that begins with @ is given by - or in a file"
        ) from None


def run(
    module: Annotated[Path, typer.Argument(help="The WebAssembly module.", exists=True, dir_okay=False, readable=True)],
    *,
    input: Annotated[str, typer.Option(help="The program's input: a text, @FILE, or - for standard input.")] = "",
    env: Annotated[list[str] | None, typer.Option(help="Environment of the program, NAME=VALUE; may be repeated.")] = None,
    entry: Annotated[Entry, typer.Option(help="Which function to call; auto prefers execute.")] = Entry.AUTO,
    engine: Annotated[Name, typer.Option(help="The engine; wasmer needs WASMER_PYTHON, see docs/engines.md.")] = Name.WASMTIME,
    metering: Annotated[Metering, typer.Option(help="Who counts: the engine, or the module (always on wasmer).")] = Metering.INJECTED,
    max_instructions: Annotated[str, typer.Option(help="Limit of instructions, e.g. 1e9.")] = "1e10",
    max_memory: Annotated[str, typer.Option(help="Limit of linear memory, e.g. 64MiB.")] = "128MiB",
    max_time: Annotated[str, typer.Option(help="Limit of wall time, e.g. 2s or 500ms.")] = "60s",
    max_output: Annotated[str, typer.Option(help="Limit of output, e.g. 1MiB.")] = "1MiB",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Run one module here, as an execute worker would, and show what it used of each limit.

    The exit code tells how the run ended:

    0: it answered.

    2: the command line was wrong, or the engine cannot be used here.

    10: the program failed (guest_exit, trap, stack_overflow).

    11: it reached a limit (out_of_fuel, timeout, memory_limit, output_limit).

    12: the module cannot be run (invalid_module, unsupported_feature,
    module_too_complex, link_error, compile_timeout, compile_resource_limit).

    13: the engine failed (engine_crash, cancelled, internal_error).
    """
    try:
        limits = Limits(
            instructions=parse_count(max_instructions),
            memory_bytes=parse_bytes(max_memory),
            wall_seconds=parse_seconds(max_time),
            output_bytes=parse_bytes(max_output),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    request = ExecutionRequest(input=_input(input), limits=limits, environment=_environment(env or []), entry=entry.value)
    with tempfile.TemporaryDirectory(prefix="offchainvm-run-") as folder, _supervisor(Path(folder), engine, metering) as supervisor:
        result = supervisor.execute(module, request)
    if as_json:
        typer.echo(json.dumps(as_dict(result), indent=2))
    else:
        show(result)
    raise typer.Exit(EXIT_CODES[result.status])


def _supervisor(folder: Path, engine: Name, metering: Metering) -> Supervisor:
    python = load_only(["wasmer_python"]).wasmer_python if engine is Name.WASMER else None
    return Supervisor(cache_folder=folder, cache_max_bytes=_CACHE_BYTES, metering=metering.value, engine=engine.value, wasmer_python=python)


def as_dict(result: ExecutionResult) -> dict[str, Any]:
    """All fields as JSON values; bytes as text where they are UTF-8, and always as base64."""
    fields = asdict(result)
    fields["status"] = result.status.value
    for name in ("stdout", "stderr"):
        data: bytes = fields.pop(name)
        fields[name] = data.decode(errors="replace")
        fields[f"{name}_base64"] = base64.b64encode(data).decode()
    return fields


def show(result: ExecutionResult) -> None:
    """Print what an execution used, then its output and what it wrote beside."""
    console = report.console()
    console.print(report.execution_table(result))
    for title, data in (("output", result.stdout), ("stderr", result.stderr)):
        if data:
            console.rule(title, align="left")
            console.print(_readable(data), markup=False, highlight=False, soft_wrap=True)


def _readable(untrusted_data: bytes) -> str:
    """A guest's text without the control characters that could steer a terminal; other bytes as hexadecimal."""
    try:
        text = untrusted_data.decode()
    except UnicodeDecodeError:
        return untrusted_data.hex(" ")
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)
