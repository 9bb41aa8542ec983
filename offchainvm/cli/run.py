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
from rich.console import Console
from rich.table import Table

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import Status

EXIT_CODES: dict[Status, int] = {
    Status.OK: 0,
    **dict.fromkeys((Status.GUEST_EXIT, Status.TRAP, Status.STACK_OVERFLOW), 10),
    **dict.fromkeys((Status.OUT_OF_FUEL, Status.TIMEOUT, Status.MEMORY_LIMIT, Status.OUTPUT_LIMIT), 11),
    **dict.fromkeys((Status.INVALID_MODULE, Status.UNSUPPORTED_FEATURE, Status.MODULE_TOO_COMPLEX, Status.LINK_ERROR), 12),
    **dict.fromkeys((Status.COMPILE_TIMEOUT, Status.COMPILE_RESOURCE_LIMIT), 12),
    **dict.fromkeys((Status.ENGINE_CRASH, Status.CANCELLED, Status.INTERNAL_ERROR), 13),
}
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0}
_CACHE_BYTES = 256 * MIB


class Metering(str, Enum):
    """What the setting METERING takes."""

    NATIVE = "native"
    INJECTED = "injected"


def parse_count(text: str) -> int:
    """A whole number, also as ``1e9`` or ``10_000``."""
    match = re.fullmatch(r"(\d[\d_]*)(?:\.(\d+))?(?:[eE]\+?(\d{1,2}))?", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a number such as 1000000 or 1e9")
    whole, fraction, exponent = match[1].replace("_", ""), match[2] or "", int(match[3] or 0)
    if len(fraction) > exponent:
        raise typer.BadParameter(f"{text!r} is not a whole number")
    return int(whole + fraction + "0" * (exponent - len(fraction)))


def parse_bytes(text: str) -> int:
    """A size in bytes, such as ``64MiB``, ``1GB`` or ``65536``."""
    match = re.fullmatch(r"([\d_.eE+]+)\s*([a-zA-Z]*)", text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise typer.BadParameter(f"{text!r} is not a size such as 64MiB")
    return parse_count(match[1]) * _UNITS[match[2].lower()]


def parse_seconds(text: str) -> float:
    """A time in seconds, such as ``2s``, ``500ms``, ``1m`` or ``0.5``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if match is None or match[2] not in _SECONDS or float(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is not a time such as 2s or 500ms")
    return float(match[1]) * _SECONDS[match[2]]


def _environment(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not re.fullmatch(r"[^=\0]+=[^\0]*", pair):
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _input(text: str | None, file: Path | None) -> bytes:
    if text is not None and file is not None:
        raise typer.BadParameter("give --input or --input-file, not both")
    if file is not None:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    return (text or "").encode()


def run(
    module: Annotated[Path, typer.Argument(help="The WebAssembly module.", exists=True, dir_okay=False, readable=True)],
    *,
    input: Annotated[str | None, typer.Option(help="Input, as text.")] = None,
    input_file: Annotated[Path | None, typer.Option(help="Input, from a file; - is standard input.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="An environment variable of the program, NAME=VALUE; may be repeated.")] = None,
    max_instructions: Annotated[str, typer.Option(help="Instructions, e.g. 1e9.")] = "1e10",
    max_memory: Annotated[str, typer.Option(help="Linear memory, e.g. 64MiB.")] = "128MiB",
    max_time: Annotated[str, typer.Option(help="Wall time, e.g. 2s or 500ms.")] = "60s",
    max_output: Annotated[str, typer.Option(help="Output, e.g. 1MiB.")] = "1MiB",
    metering: Annotated[Metering, typer.Option(help="How instructions are counted.")] = Metering.INJECTED,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Run one module here, as an execute worker would, and report what it used.

    The exit code tells how it ended: 0 it answered; 10 the program failed (guest_exit, trap, stack_overflow); 11 a limit
    was reached (out_of_fuel, timeout, memory_limit, output_limit); 12 the module cannot be run (invalid_module,
    unsupported_feature, module_too_complex, link_error, compile_timeout, compile_resource_limit); 13 the engine failed
    (engine_crash, cancelled, internal_error); 2 the command was called wrongly.
    """
    limits = Limits(
        instructions=parse_count(max_instructions),
        memory_bytes=parse_bytes(max_memory),
        wall_seconds=parse_seconds(max_time),
        output_bytes=parse_bytes(max_output),
    )
    request = ExecutionRequest(input=_input(input, input_file), limits=limits, environment=_environment(env or []))
    with (
        tempfile.TemporaryDirectory(prefix="offchainvm-run-") as folder,
        Supervisor(cache_folder=Path(folder), cache_max_bytes=_CACHE_BYTES, metering=metering.value) as engine,
    ):
        result = engine.execute(module, request)
    if as_json:
        typer.echo(json.dumps(as_dict(result), indent=2))
    else:
        _print(result, Console())
    raise typer.Exit(EXIT_CODES[result.status])


def as_dict(result: ExecutionResult) -> dict[str, Any]:
    """All fields as JSON values; bytes as text where they are UTF-8, and always as base64."""
    fields = asdict(result)
    fields["status"] = result.status.value
    for name in ("stdout", "stderr"):
        data: bytes = fields.pop(name)
        fields[name] = data.decode(errors="replace")
        fields[f"{name}_base64"] = base64.b64encode(data).decode()
    return fields


def _print(result: ExecutionResult, console: Console) -> None:
    limits = result.limits
    about = "exact" if result.instructions_exact else "last known count"
    compiled = "native code from the cache" if result.cache_hit else f"compiled in {result.compile_ms:.0f} ms"
    table = Table("", "used", "limit", "", title=f"{result.status.value}: {result.message}" if result.message else result.status.value)
    table.add_row("instructions", f"{result.instructions_used:,}", f"{limits.instructions:,}", about)
    table.add_row("peak memory", _mib(result.peak_memory_bytes), _mib(limits.memory_bytes), "linear memory")
    table.add_row(
        "time", f"{result.wall_ms:.1f} ms", f"{limits.wall_seconds * 1000:,.0f} ms", f"processor {result.cpu_ms:.1f} ms, {compiled}"
    )
    table.add_row("output", f"{len(result.stdout):,} B", f"{limits.output_bytes:,} B", _end(result))
    console.print(table)
    for title, data in (("output", result.stdout), ("stderr", result.stderr)):
        if data:
            console.rule(title, align="left")
            console.print(_readable(data), markup=False, highlight=False, soft_wrap=True)


def _mib(size: int) -> str:
    return f"{size / MIB:,.2f} MiB"


def _end(result: ExecutionResult) -> str:
    parts = [f"exit code {result.exit_code}" if result.exit_code is not None else "", f"trap {result.trap}" if result.trap else ""]
    return ", ".join(part for part in (*parts, "cut" if result.stdout_truncated else "") if part)


def _readable(untrusted_data: bytes) -> str:
    """A guest's text without the control characters that could steer a terminal; other bytes as hexadecimal."""
    try:
        text = untrusted_data.decode()
    except UnicodeDecodeError:
        return untrusted_data.hex(" ")
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)
