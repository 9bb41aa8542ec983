"""`offchainvm web` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import systemd
import urllib3
from redis import Redis
from world import until

from offchainvm.devnet.embedded_redis import EmbeddedRedis, free_port
from offchainvm.fleet import Registry

TOKEN = "correct horse battery staple"


def command(folder: Path, *words: str, **settings: str) -> subprocess.Popen[str]:
    passed_on = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**passed_on, "HOME": str(folder), "COLUMNS": "200", "OFFCHAINVM_ENV_FILE": "", "PYTHONUNBUFFERED": "1", **settings}
    arguments = [sys.executable, *words] if words[0] == "-c" else [sys.executable, "-m", "offchainvm", "web", *words]
    return subprocess.Popen(arguments, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_serves_tells_its_health_is_registered_keeps_its_token_and_ends_at_a_signal(
    redis_server: EmbeddedRedis, redis_client: Redis, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    port, health = free_port(), free_port()
    settings = {"REDIS_URL": redis_server.url, "WEB_TOKEN_FILE": str(tmp_path / "token"), "METRICS_PORT": str(health), "WORKER_ID": "page"}
    everywhere = ("--host", "0.0.0.0", "--port", str(port))  # noqa: S104 a token guards it
    registry = Registry(redis_client)
    with systemd.manager() as manager, command(tmp_path, *everywhere, **settings, NOTIFY_SOCKET=manager.socket_path) as process:
        assert process.stdout is not None
        assert f":{port}/" in process.stdout.readline()
        assert urllib3.request("GET", f"http://127.0.0.1:{port}/", redirect=False).status == 303
        shown = urllib3.request("GET", f"http://127.0.0.1:{port}/queues", headers={"Authorization": f"Bearer {TOKEN}"})
        assert shown.status == 200
        for probe in ("live", "ready"):
            assert urllib3.request("GET", f"http://127.0.0.1:{health}/health/{probe}").status == 200
        assert TOKEN not in Path(f"/proc/{process.pid}/environ").read_text()
        until(lambda: [one.member.id for one in registry.alive("web")] == ["web@page"], "the page to be registered")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (manager.heard()[0], manager.heard()[-1]) == ("READY=1", "STOPPING=1")
    assert (process.returncode, TOKEN in out + err) == (0, False)
    assert registry.sightings() == []


def test_a_second_signal_ends_it_at_once_where_redis_holds_it_up(tmp_path: Path) -> None:
    with EmbeddedRedis() as server, systemd.manager() as manager:
        settings = {"REDIS_URL": server.url, "NOTIFY_SOCKET": manager.socket_path}
        with command(tmp_path, "--port", str(free_port()), **settings) as process:
            until(lambda: "READY=1" in manager.heard(), "the page to be there")
            os.kill(server.pid or 0, signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            until(lambda: "STOPPING=1" in manager.heard(), "the first signal to be heard")
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=2)
        os.kill(server.pid or 0, signal.SIGCONT)
    assert code == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--host", "0.0.0.0"), 2, "WEB_TOKEN: is missing, and other machines reach 0.0.0.0. Set WEB_TOKEN"),  # noqa: S104 refused
        (("--port", "TAKEN"), 1, ": Address already in use.\nName another WEB_PORT."),
        (("--help",), 0, "openssl rand -hex 24"),
        (("-c", "import sys; sys.modules['jinja2'] = None; from offchainvm.cli import main; main(['web'])"), 1, "offchainvm[web]"),
    ],
)
def test_what_hinders_it_is_said_with_the_remedy(
    redis_server: EmbeddedRedis, tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    taken = redis_server.url.rpartition(":")[2].partition("/")[0]
    with command(tmp_path, *(taken if word == "TAKEN" else word for word in words), REDIS_URL=redis_server.url) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, told in out + err, "Traceback" in err) == (code, True, False), out + err
