"""Files that several processes of this host share: they appear whole or not at all, and the least recently used make room."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears by rename: no reader ever sees half of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def mark_used(path: Path) -> None:
    """Note that a file was used now; one that another process has just removed stays removed."""
    with suppress(OSError):
        os.utime(path)


def last_use(path: Path) -> float:
    """When a file was last used, as seconds since 1970; 0 for one that is gone."""
    stat = _stat(path)
    return stat.st_mtime if stat else 0.0


def make_room(files: Iterable[Path], *, max_bytes: int, spare_seconds: float = 0.0) -> None:
    """Remove the least recently used of ``files`` beyond ``max_bytes``, but none that was used within ``spare_seconds``."""
    found = [(stat.st_mtime, stat.st_size, path) for path in files if (stat := _stat(path))]
    total, before = sum(size for _, size, _ in found), time.time() - spare_seconds
    for used_at, size, path in sorted(found):
        if total <= max_bytes or used_at > before:
            return
        path.unlink(missing_ok=True)
        total -= size


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
