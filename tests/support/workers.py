"""Celery workers as their users start them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 60


class Worker:
    """One ``celery worker``, its output in a file; in a session of its own."""

    def __init__(self, folder: Path, settings: dict[str, str], *words: str) -> None:
        self.marker = str(folder)
        self._log = folder / "log"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "STATE_DIR": str(folder / "state"),
            "OFFCHAINVM_LIVE_DIR": str(folder / "live"),
            "OFFCHAINVM_ENV_FILE": "",
            "DOCKER_HOST": "tcp://127.0.0.1:1",
            "WORKER_ID": "worker-1",
            **settings,
        }
        command = [sys.executable, "-m", "celery", "-A", "offchainvm", "worker", "--without-gossip", "--without-mingle", *words]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: text in self.log or self.process.poll() is not None, f"{text!r} in the log")
        assert text in self.log, self.log

    def processes(self) -> dict[int, bytes]:
        """Environments, by process id, of all that this worker started, and its own."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
            except OSError:  # it ended meanwhile
                continue
            if self.marker.encode() in environment:
                found[int(entry.name)] = environment
        return found


def command_line(pid: int) -> bytes:
    """Of a process; empty where it has ended, or is just ending."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited {SECONDS} s for {what}"
        time.sleep(0.05)
