"""Health and metrics of a process over HTTP, where METRICS_PORT names a port."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from offchainvm import health, metrics
from offchainvm.logs import get_logger

log = get_logger()

_REQUEST_SECONDS = 5.0


class HealthServer:
    """``/health/live`` and ``/health/ready`` on one port: 200 or 503, and JSON with each check; ``/metrics``: Prometheus' text."""

    def __init__(self, port: int, *, name: str) -> None:
        metrics.add_source("live", lambda: {metrics.LIVE: {(): health.is_live()}})
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
        log.warning("No health server: the port is not free. Give this process a METRICS_PORT of its own.",
                    action="serve_health", port=port, error=error.strerror)  # fmt: skip
        return None


class _Handler(BaseHTTPRequestHandler):
    process_name = ""
    timeout = _REQUEST_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            return self._send(200, *metrics.exposition())
        probe = {"/health/live": health.live, "/health/ready": health.ready}.get(path)
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
