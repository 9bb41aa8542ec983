"""The client against the local Coordinator: every endpoint, with its real habits."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from offchainvm.coordinator import Coordinator
from offchainvm.devnet import serve
from offchainvm.devnet.coordinator import CoordinatorApp
from offchainvm.errors import TooLarge, Unauthorized
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, NewTask, ResourceLimits, parse_task

TOKEN = "a-token-of-tests"
TASK = NewTask(
    request_id=1,
    data_id="ab" * 32,
    code_source=CodeSource(repo="https://github.com/a/b", commit="main"),
    resource_limits=ResourceLimits(max_instructions=1, max_memory_mb=2, max_execution_seconds=3),
    input_data='{"text":"ä"}',
)


@pytest.fixture
def app() -> CoordinatorApp:
    return CoordinatorApp(token=TOKEN)


@pytest.fixture
def client(app: CoordinatorApp) -> Iterator[Coordinator]:
    with serve.in_thread(app) as url:
        client = Coordinator(url, SecretStr(TOKEN), worker_id="w")
        yield client
        client.close()


def test_a_created_task_is_polled_once(client: Coordinator) -> None:
    client.health()
    client.create(TASK)
    body = client.poll(1)
    assert body is not None
    task = parse_task(body)
    assert isinstance(task, CompileTask)
    assert (task.data_id, task.input_data, task.code_source) == (TASK.data_id, TASK.input_data, TASK.code_source)
    assert client.poll(1) is None


def test_modules_are_stored_and_refused_over_the_limit_however_the_server_says_it(client: Coordinator) -> None:
    assert client.download("c" * 64, max_bytes=100) is None
    client.upload("c" * 64, "https://github.com/a/b", "d" * 40, b"\0asm" + bytes(90))
    assert client.wasm_exists("c" * 64)
    assert client.download("c" * 64, max_bytes=100) == b"\0asm" + bytes(90)
    with pytest.raises(TooLarge, match="2097153"):
        client.upload("e" * 64, "https://github.com/a/b", "d" * 40, bytes(2 * 1024 * 1024 + 1))
    assert not client.wasm_exists("e" * 64)


def test_a_large_answer_is_reported_without_its_output(app: CoordinatorApp, client: Coordinator) -> None:
    client.complete(ExecutionReport(request_id=5, success=True, output=b"\xff" * 800_000, execution_time_ms=3))
    client.fail(6, "expired: too late")
    first, second = app.reports
    assert (first["kind"], first["success"], first["output"]) == ("complete", True, None)
    assert "800000 bytes left out" in json.dumps(first)
    assert (second["kind"], second["error"]) == ("fail", "expired: too late")


def test_locks_are_taken_once_and_released_by_their_whole_key(app: CoordinatorApp, client: Coordinator) -> None:
    key = "compile:https://github.com/a/b:main"
    assert [client.acquire_lock(key, 60), client.acquire_lock(key, 60)] == [True, False]
    client.release_lock(key)
    client.release_lock(key)
    assert client.acquire_lock(key, 60)
    assert app.locks[key][0] == "w"


def test_a_wrong_token_is_named(app: CoordinatorApp, client: Coordinator) -> None:
    app._bearer = b"Bearer other"
    with pytest.raises(Unauthorized, match="API_AUTH_TOKEN"):
        client.poll(1)
