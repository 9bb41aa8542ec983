"""What is kept of builds under STATE_DIR/builds: for each its log, and its provenance where there is a module.

Everything is bounded: a log keeps its head and its tail, the folder its newest files. A disk that takes nothing
costs the record, never the build.
"""

from __future__ import annotations

import contextlib
import glob
import json
import threading
from collections import deque
from pathlib import Path
from typing import Any

from offchainvm.logs import get_logger

log = get_logger()
FOLDER = "builds"
HEAD_CHARS, TAIL_CHARS = 64 * 1024, 192 * 1024
MAX_FILES, MAX_BYTES = 400, 64 * 2**20


class BuildLog:
    """Lines of a build, sanitised before they come here: the first ones and the last ones. Safe to share between threads."""

    def __init__(self, *, head_chars: int = HEAD_CHARS, tail_chars: int = TAIL_CHARS) -> None:
        self._head_chars, self._tail_chars = head_chars, tail_chars
        self._head: list[str] = []
        self._tail = deque[str]()
        self._left_out = 0
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        size = len(line) + 1
        with self._lock:
            if not self._tail and size <= self._head_chars:
                self._head.append(line)
                self._head_chars -= size
                return
            self._tail.append(line)
            self._tail_chars -= size
            while self._tail_chars < 0:
                self._tail_chars += len(self._tail.popleft()) + 1
                self._left_out += 1

    def text(self) -> str:
        """All that is kept, one line each, with a note where lines were left out."""
        with self._lock:
            gap = [f"... {self._left_out} lines are not kept ..."] if self._left_out else []
            return "".join(f"{line}\n" for line in (*self._head, *gap, *self._tail))


class Records:
    """The folder of records. Several processes may share it."""

    def __init__(self, folder: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_files = max_files
        self._max_bytes = max_bytes

    def write(self, name: str, *, text: str, provenance: dict[str, Any] | None) -> Path | None:
        """Keep one build; where its log is, None where the disk did not take it. The oldest files make room."""
        path = self._folder / f"{name}.log"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text(text, encoding="utf-8")
            if provenance is not None:
                (self._folder / f"{name}.provenance.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
            self._make_room(name)
        except OSError as error:
            log.warning("The log of a build could not be kept.", action="keep_build_log", path=str(path), error=str(error))
            return None
        return path

    def newest_log(self, name: str, *, most_chars: int = TAIL_CHARS) -> str | None:
        """The end of the log kept last of the builds called ``name.…``; None where this host has none."""
        logs = sorted(self._folder.glob(f"{glob.escape(name)}.*.log"), key=_written_at)
        try:
            return logs[-1].read_text(encoding="utf-8", errors="replace")[-most_chars:] if logs else None
        except OSError:  # another process made room, or it is not ours to read
            return None

    def _make_room(self, newest: str) -> None:
        found = []
        for file in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process made room too
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_size, file))
        found.sort(reverse=True)
        total = 0
        for count, (_, size, file) in enumerate(found, 1):
            total += size
            if (count > self._max_files or total > self._max_bytes) and not file.name.startswith(newest):
                file.unlink(missing_ok=True)


def _written_at(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
