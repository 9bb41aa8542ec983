"""One process under supervision: a clean environment, a log file, a way to know that it is ready, and a sure end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from offchainvm.errors import Unavailable
from offchainvm.processes import bare_environment, bound_command, stat_fields

TAIL_BYTES = 2000
_PAUSE_SECONDS = 0.02

# A host behind a proxy or with its own certificate authority: the fetch phases of a build need these, loopback does not.
_NETWORK = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
_DOCKER = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG")


def clean_environment(given: Mapping[str, str], *, builds: bool = False) -> dict[str, str]:
    """``given`` and what a program needs to run; with ``builds`` also how this host reaches the network and Docker."""
    passed = {name: os.environ[name] for name in (_NETWORK + _DOCKER if builds else ()) if name in os.environ}
    return {**bare_environment(), **passed, "NO_PROXY": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1", "OFFCHAINVM_ENV_FILE": "", **given}


class ManagedProcess:
    """One child process and all that it starts; its output goes into ``log``.

    Args:
        command: the program (an absolute path) and its arguments.
        ready: looks once; true when the process may be used. It may raise Unavailable to say that it never will.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, ready: Callable[[ManagedProcess], bool]
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._environment = dict(environment)
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the process that ran last; minus the signal's number where one ended it."""
        return None if self._process is None else self._process.poll()

    def output(self) -> str:
        """What this run (since the last ``start``) wrote."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", "replace")
        return ""

    def log_tail(self) -> str:
        """The last lines of its log."""
        return self.output()[-TAIL_BYTES:].strip() or "(it wrote nothing)"

    def start(self) -> None:
        """Start it; ``wait_ready`` says when it may be used. One that runs is left alone."""
        if self.running:
            return
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                bound_command(self.command), env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=self.log.parent, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self, seconds: float) -> None:
        """Return when it may be used.

        Raises:
            Unavailable: it ended, or took longer than ``seconds``; with the tail of its log.
        """
        deadline = time.monotonic() + seconds
        while not self._ready(self):
            if not self.running:
                raise Unavailable(
                    self.name, f"The process {self.name} ended with exit code {self.exit_code}. Its log ends:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    self.name, f"The process {self.name} was not ready after {seconds:.0f} s. Its log ends:\n{self.log_tail()}"
                )
            time.sleep(_PAUSE_SECONDS)

    def signal(self, number: int) -> None:
        """Send a signal to the process itself, not to what it started."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or None when it still runs after ``seconds``."""
        if self._process is None:
            return None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace_seconds: float) -> int | None:
        """SIGTERM, then SIGKILL to whatever of its session is left; its exit code."""
        self.signal(signal.SIGTERM)
        return self.end(grace_seconds)

    def end(self, grace_seconds: float) -> int | None:
        """The rest of ``stop``, for a process that was asked already: a second SIGTERM would mean *at once*."""
        code = self.wait(grace_seconds)
        self.sweep()
        return self.wait(10) if code is None else code

    def sweep(self) -> None:
        """SIGKILL to all that is left of its session: pool processes outlive a killed worker."""
        for pid in session_members(self.pid) if self.pid else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def session_members(session: int) -> list[int]:
    """Process ids of the living processes of a session (Linux; elsewhere its leader alone)."""
    if sys.platform != "linux":
        return [session]
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _session_of(int(entry.name)) == session]


def _session_of(pid: int) -> int | None:
    """None where it lives no longer."""
    state, _parent, _group, session, *_ = stat_fields(pid) or ("X", "", "", "")
    return None if state in "ZX" else int(session)
