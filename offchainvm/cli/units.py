"""Numbers with units, as people write them on a command line."""

from __future__ import annotations

import re

import typer

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0}


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
