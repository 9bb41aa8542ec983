"""Is this process alive, and can it work: a liveness file, and an HTTP server where METRICS_PORT names a port.

The server shows the process' metrics too, at ``/metrics``.

*Live* means the process' own loop turned lately (else: restart it). *Ready* means that what it needs answers (else:
wait, the remedy is elsewhere); each check is named. Without HTTP, ``python -m offchainvm.health`` judges the liveness
files of this host's user, as a container's health check does.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from offchainvm import metrics, notify
from offchainvm.logs import get_logger
from offchainvm.readiness import KEPT_SECONDS, CheckResult, Readiness

log = get_logger()

STALE_SECONDS = 60.0
"""A loop that did not turn for so long hangs, unless one turn of it may last longer."""
_REQUEST_SECONDS = 5.0


class Loop:
    """When one loop of this process last turned, and how long it may take for a turn."""

    def __init__(self, patience_seconds: float = STALE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self.turned()

    def turned(self) -> None:
        self._at = time.monotonic()

    def judge(self, name: str) -> CheckResult:
        """The loop as a check of that name."""
        age_seconds = time.monotonic() - self._at
        if age_seconds <= self._patience_seconds:
            return CheckResult(name, ok=True)
        told = f"Its loop last turned {age_seconds:.0f} s ago."
        return CheckResult(name, ok=False, detail=told, remedy="Restart the process; its jobs are safe.")


_readiness = Readiness()
_loops: dict[str, Loop] = {}


def liveness_folder() -> Path:
    """Where the liveness files of this user's processes are: OFFCHAINVM_LIVE_DIR, else below the temporary folder."""
    named = os.environ.get("OFFCHAINVM_LIVE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"offchainvm-live-{os.getuid()}"


def liveness_file(name: str) -> Path:
    """The file of the process ``name`` (any text: what no file name can hold is replaced)."""
    return liveness_folder() / re.sub(r"[^A-Za-z0-9@._-]|^\.+", "_", name)


def touch(name: str) -> None:
    """Say that the main loop of process ``name`` turned just now. Never raises: a full disk must not end a healthy process.

    systemd's watchdog and the liveness file are fed by the same judgement that ``/health/live`` gives: with one loop
    that hangs, the process is not live.
    """
    watch_loop(name, _loops.get(name) or Loop()).turned()
    if not is_live():
        return
    notify.tell(notify.ALIVE)
    file = liveness_file(name)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(_identity(os.getpid()))
    except OSError as error:
        log.warning("The liveness file cannot be written.", action="touch_liveness", file=str(file), error=error.strerror)


def watch_loop(name: str, loop: Loop) -> Loop:
    """Part of *live* from now on: a loop of this process besides its main one."""
    _loops[name] = loop
    return loop


def add_check(name: str, check: Callable[[], object], *, kept_seconds: float = KEPT_SECONDS) -> None:
    """Part of *ready*: ``check`` returns when all is well, and raises what is wrong (OffchainVMError brings its remedy).

    A text that it returns is shown as the check's detail. It is called when somebody asks, in a thread of its own, and its
    answer is given again for ``kept_seconds``.
    """
    _readiness.add(name, check, kept_seconds=kept_seconds)


def live() -> list[CheckResult]:
    """One result for each loop of this process."""
    return [loop.judge(name) for name, loop in list(_loops.items())]


def is_live() -> bool:
    """Whether every loop of this process turned lately."""
    return all(result.ok for result in live())


def ready() -> list[CheckResult]:
    """Every check that was added, besides those of ``live``; within seconds, whatever hangs."""
    return live() + _readiness.results()


class HealthServer:
    """``/health/live`` and ``/health/ready`` on one port: 200 or 503, and JSON with each check; ``/metrics``: Prometheus' text."""

    def __init__(self, port: int, *, name: str) -> None:
        handler = type("Handler", (_Handler,), {"process_name": name})
        self._server = ThreadingHTTPServer(("", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(port: int, *, name: str) -> HealthServer | None:
    """Serve the health of this process on ``port``; 0 means not at all.

    A port that is taken is no reason to stop working: several processes of a host may share one configuration.
    """
    if not port:
        return None
    try:
        return HealthServer(port, name=name)
    except OSError as error:
        log.warning("No health server: the port cannot be had. Give this process a METRICS_PORT of its own.",
                    action="serve_health", port=port, error=error.strerror)  # fmt: skip
        return None


class _Handler(BaseHTTPRequestHandler):
    process_name = ""
    timeout = _REQUEST_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            return self._send(200, *metrics.exposition())
        probe = {"/health/live": live, "/health/ready": ready}.get(path)
        if probe is None:
            return self._answer(404, {"error": "There are /health/live, /health/ready and /metrics."})
        results = probe()
        ok = all(result.ok for result in results)
        body = {"process": self.process_name, "ok": ok, "checks": [vars(result) for result in results]}
        return self._answer(200 if ok else 503, body)

    do_HEAD = do_GET  # noqa: N815 -- the name that http.server looks for

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, text: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a probe every few seconds is no event."""


def _identity(pid: int) -> str:
    """``pid start-time``: a process id alone comes again, in a container that restarts most of all. Empty when there is none."""
    try:
        # The name of the program stands in parentheses and may hold spaces; the start time is the 20th field after it.
        return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{pid} -" if not Path("/proc/self").exists() else ""


def _problems_of_this_host() -> list[str]:
    now, problems, living = time.time(), [], 0
    for file in liveness_folder().glob("*"):
        pid = file.read_text().partition(" ")[0]
        if not pid.isdigit() or _identity(int(pid)) != file.read_text():
            continue  # an earlier process that was killed left it
        living += 1
        age_seconds = now - file.stat().st_mtime
        if age_seconds > STALE_SECONDS:
            problems.append(f"{file.name}: its loop last turned {age_seconds:.0f} s ago")
    return problems if living else [f"no living process has a file in {liveness_folder()}"]


def main() -> int:
    """Exit code 0 when processes of this host's user live and each one's loop turns; else 1 and a line that says which does not."""
    problems = _problems_of_this_host()
    if problems:
        print("; ".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
