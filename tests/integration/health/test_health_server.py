"""The health server of a process, asked over HTTP."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offchainvm import __version__, health
from offchainvm.errors import Unavailable
from offchainvm.health.server import HealthServer, serve
from offchainvm.readiness import Readiness


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthServer]:
    monkeypatch.setenv("OFFCHAINVM_LIVE_DIR", str(tmp_path))
    monkeypatch.setattr(health, "_readiness", Readiness())
    monkeypatch.setattr(health, "_loops", {})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = serve(port, name="bridge")
    assert served is not None
    yield served
    served.stop()


def ask(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) if body else None


def shown(port: int) -> str:
    """What ``/metrics`` answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    text = answer.read().decode()
    connection.close()
    return text


def test_live_and_ready_answer_200_with_each_check(server: HealthServer) -> None:
    health.touch("bridge")
    health.add_check("redis", lambda: True)
    assert ask(server.port, "/health/live") == (
        200,
        {"process": "bridge", "ok": True, "checks": [{"name": "bridge", "ok": True, "detail": "", "remedy": ""}]},
    )
    status, body = ask(server.port, "/health/ready")
    assert (status, [check["name"] for check in body["checks"]]) == (200, ["bridge", "redis"])


def test_not_ready_answers_503_with_the_remedy_and_stays_live(server: HealthServer) -> None:
    def away() -> None:
        raise Unavailable("redis", "Redis does not answer.", remedy="Start it.")

    health.add_check("redis", away)
    status, body = ask(server.port, "/health/ready")
    assert (status, body["ok"], body["checks"][0]["remedy"]) == (503, False, "Start it.")
    assert ask(server.port, "/health/live")[0] == 200


def test_head_has_no_body_and_other_paths_are_told(server: HealthServer) -> None:
    assert ask(server.port, "/health/live", "HEAD") == (200, None)
    assert ask(server.port, "/")[0] == 404


def test_a_port_that_is_taken_ends_nothing(server: HealthServer) -> None:
    assert serve(server.port, name="second") is None


def test_metrics_tell_whether_the_process_is_live(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = health.watch_loop("bridge", health.Loop(patience_seconds=60))
    assert "offchainvm_live 1.0" in shown(server.port)
    monkeypatch.setattr(loop, "_at", float("-inf"))
    assert "offchainvm_live 0.0" in shown(server.port)


def test_metrics_are_on_the_same_port_as_text_of_prometheus(server: HealthServer) -> None:
    assert f'offchainvm_info{{version="{__version__}"}} 1.0' in shown(server.port)
