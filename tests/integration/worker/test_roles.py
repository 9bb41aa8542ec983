"""A Celery worker as its user starts it: which queues it serves, what it refuses, and who holds the operator's key."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import systemd
import urllib3
from celery import Celery
from workers import SECONDS, Worker, command_line, wait_until

from offchainvm.app import _refuse_other_pools
from offchainvm.devnet.embedded_redis import EmbeddedRedis, free_port
from offchainvm.devnet.keys import KeyPair
from offchainvm.settings import Role

KEY = KeyPair.generate().secret_text
DEAD_URL = "http://127.0.0.1:1"
COORDINATOR = {"API_BASE_URL": DEAD_URL, "API_AUTH_TOKEN": "a-token-of-tests"}
CHAIN = {"NEAR_RPC_URL": DEAD_URL, "OFFCHAINVM_CONTRACT_ID": "vm.testnet"}
OPERATOR = {"OPERATOR_ACCOUNT_ID": "operator.testnet", "OPERATOR_PRIVATE_KEY": KEY}


def test_a_queue_that_is_asked_for_is_refused_with_every_need_that_is_not_met(start: Callable[..., Worker]) -> None:
    worker = start(COORDINATOR, "-Q", "resolve", "-P", "solo")
    assert worker.process.wait(SECONDS) == 2, worker.log
    assert "the resolve worker cannot start" in worker.log
    for name in (*CHAIN, *OPERATOR):
        assert f"- {name}: is missing" in worker.log
    assert "API_AUTH_TOKEN" not in worker.log


def test_a_setting_that_no_role_can_do_without_is_told_without_a_traceback(start: Callable[..., Worker]) -> None:
    worker = start({**COORDINATOR, "REDIS_URL": "localhost:6379"}, "-Q", "compile")
    assert worker.process.wait(SECONDS) == 2, worker.log
    assert worker.log.startswith("offchainvm: Celery cannot start.\nThe settings do not hold:\n  - REDIS_URL: must start with redis://")
    assert "Traceback" not in worker.log


def test_without_a_queue_those_are_served_whose_needs_are_met_and_the_others_are_told(start: Callable[..., Worker]) -> None:
    with systemd.manager() as manager:
        worker = start({**COORDINATOR, **CHAIN, "LOG_FORMAT": "json", "NOTIFY_SOCKET": manager.socket_path}, "-c", "1")
        worker.wait_for_log("execute@worker-1 ready")
        assert manager.heard()[:2] == ["READY=1", "WATCHDOG=1"]
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(SECONDS) == 0, worker.log
        assert manager.heard()[-1] == "STOPPING=1"
    # Celery's own word, which no setting keeps back; everything else is an event.
    assert [line for line in worker.log.splitlines() if not line.startswith("{")] == ["", "worker: Warm shutdown (MainProcess)"]
    left_out = [line for line in worker.log.splitlines() if '"action": "leave_out_queue"' in line]
    assert [('"queue": "compile"' in line, '"queue": "resolve"' in line) for line in left_out] == [(True, False), (False, True)]
    assert "Docker" in left_out[0]
    assert "OPERATOR_PRIVATE_KEY: is missing" in left_out[1]


def test_where_nothing_can_be_served_a_worker_says_so(start: Callable[..., Worker]) -> None:
    worker = start({}, "-P", "solo")
    assert worker.process.wait(SECONDS) == 2, worker.log
    assert "no queue can be served here" in worker.log


def test_an_execute_worker_hands_the_key_to_a_resolve_worker_and_forgets_it(start: Callable[..., Worker]) -> None:
    worker = start({**COORDINATOR, **CHAIN, **OPERATOR}, "-Q", "execute", "-c", "1")
    worker.wait_for_log("execute@worker-1 ready")
    worker.wait_for_log("resolve@worker-1 ready")
    holders = {pid for pid, environment in worker.processes().items() if KEY.encode() in environment}
    commands = [line.replace(b"\0", b" ") for pid in sorted(holders) if (line := command_line(pid))]
    assert worker.process.pid not in holders
    assert all(b"offchainvm.resolve_child" in command or b"-Q resolve" in command for command in commands), commands
    assert any(b"-Q resolve" in command for command in commands)
    assert not any(COORDINATOR["API_AUTH_TOKEN"].encode() in worker.processes()[pid] for pid in holders)
    assert KEY not in worker.log
    worker.process.kill()  # kill -9: nobody is left who could stop them
    wait_until(lambda: not any(KEY.encode() in environment for environment in worker.processes().values()), "the key's holders to end")


def test_what_the_resolve_worker_beside_it_counts_an_execute_worker_shows(
    start: Callable[..., Worker], redis_server: EmbeddedRedis
) -> None:
    port = free_port()
    worker = start({**COORDINATOR, **CHAIN, **OPERATOR, "METRICS_PORT": str(port)}, "-Q", "execute", "-c", "1")
    worker.wait_for_log("resolve@worker-1 ready")
    with Celery(broker=redis_server.url, set_as_current=False) as app:
        app.send_task("offchainvm.resolve", args=[{}], queue="resolve")  # after each task it hands over what it counted

    def shown() -> str:
        return urllib3.request("GET", f"http://127.0.0.1:{port}/metrics").data.decode()

    asked = 'offchainvm_rpc_call_seconds_count{method="EXPERIMENTAL_protocol_config",outcome="unavailable"} 1.0'
    wait_until(lambda: asked in shown(), "what the resolve worker asked of the chain, which is away")
    assert 'offchainvm_journal_bytes{role="resolve"}' in shown()
    live = urllib3.request("GET", f"http://127.0.0.1:{port}/health/live").json()
    assert {check["name"]: check["ok"] for check in live["checks"]} == {"execute@worker-1": True, "resolve worker": True}
    assert "No health server" not in worker.log


def test_a_worker_whose_resolve_worker_cannot_come_back_ends_so_that_it_is_started_again(start: Callable[..., Worker]) -> None:
    worker = start({**COORDINATOR, **CHAIN, **OPERATOR, "LOG_FORMAT": "json"}, "-Q", "execute", "-c", "1")
    worker.wait_for_log("execute@worker-1 ready")
    worker.wait_for_log("resolve@worker-1 ready")
    [keeper] = [pid for pid in worker.processes() if b"offchainvm.resolve_child" in command_line(pid)]
    os.kill(keeper, signal.SIGKILL)
    assert worker.process.wait(SECONDS) == 1, worker.log
    [told] = [line for line in worker.log.splitlines() if '"action": "lose_resolve_child"' in line]
    assert '"level": "error"' in told
    assert '"exit_code": -9' in told
    wait_until(lambda: not worker.processes(), "everything of the worker to end")


def test_a_worker_that_is_asked_to_stop_stops_its_resolve_worker(start: Callable[..., Worker]) -> None:
    worker = start({**COORDINATOR, **CHAIN, **OPERATOR}, "-Q", "execute", "-c", "1")
    worker.wait_for_log("resolve@worker-1 ready")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(SECONDS) == 0, worker.log
    assert worker.processes() == {}
    assert "lose_resolve_child" not in worker.log


def test_a_worker_whose_broker_is_away_says_that_it_lives_and_ends_when_it_is_asked(start: Callable[..., Worker], tmp_path: Path) -> None:
    with EmbeddedRedis() as server:
        worker = start({**COORDINATOR, **CHAIN, "REDIS_URL": server.url}, "-Q", "execute", "-c", "1")
        worker.wait_for_log("execute@worker-1 ready")
    worker.wait_for_log("action=wait_for_broker")
    file = tmp_path / "live" / "execute@worker-1"
    for _ in range(2):
        touched_at = file.stat().st_mtime
        wait_until(lambda then=touched_at: file.stat().st_mtime > then, "its liveness file to be touched")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(SECONDS) == 0, worker.log


def test_an_engine_that_cannot_run_here_is_refused_at_the_start(start: Callable[..., Worker]) -> None:
    engine = {"WASM_RUNTIME": "wasmer", "WASMER_PYTHON": "/no/such/python"}
    worker = start({**COORDINATOR, **CHAIN, **engine}, "-Q", "execute", "-c", "1")
    assert worker.process.wait(SECONDS) == 2, worker.log
    assert "the execute worker cannot start" in worker.log
    assert "- WASMER_PYTHON: /no/such/python is no Python 3.10 that can import wasmer" in worker.log


def test_a_pool_whose_jobs_share_a_process_with_the_worker_is_refused(start: Callable[..., Worker]) -> None:
    worker = start({**COORDINATOR, **CHAIN}, "-Q", "execute", "-P", "solo")
    assert worker.process.wait(SECONDS) == 2, worker.log
    assert "the execute worker wants a process for each job: with the pool 'solo'" in worker.log


@pytest.mark.parametrize(
    ("pool", "roles", "refused"),
    [
        ("threads", [Role.COMPILE], True),
        ("gevent", [Role.EXECUTE, Role.RESOLVE], True),
        ("prefork", [Role.COMPILE, Role.EXECUTE], False),
        ("solo", [Role.RESOLVE], False),
    ],
)
def test_only_resolves_take_any_pool(pool: str, roles: list[Role], refused: bool) -> None:
    with pytest.raises(SystemExit) if refused else nullcontext():
        _refuse_other_pools(pool, roles)
