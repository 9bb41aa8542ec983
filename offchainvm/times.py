"""How people are told of times: the commands and the pages write them alike."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo


def moment(at: float, zone: tzinfo | None = None) -> str:
    """Day and time of day of ``at`` (seconds since 1970); where no ``zone`` is given, in this host's."""
    return datetime.fromtimestamp(at, timezone.utc).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """A length of time, short."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
