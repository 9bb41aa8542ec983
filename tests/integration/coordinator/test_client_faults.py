"""What the Coordinator's client sends, and what it makes of every way in which a server can fail."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from offchainvm import coordinator as client_module
from offchainvm.coordinator import Coordinator
from offchainvm.errors import Refused, TooLarge, Unauthorized, Unavailable
from offchainvm.models import CodeSource, ExecutionReport, NewTask, ResourceLimits

TOKEN = "s3cret-token"
MIB = 1024 * 1024
REPORT = ExecutionReport(request_id=7, success=True, output=b"\x00\xff", execution_time_ms=12)
TASK = NewTask(
    request_id=1,
    data_id="ab" * 32,
    code_source=CodeSource(repo="https://github.com/a/b", commit="main"),
    resource_limits=ResourceLimits(max_instructions=1, max_memory_mb=2, max_execution_seconds=3),
    input_data="{}",
)


class Server:
    """Answers what the test says, remembers what came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.cut_above_bytes: int | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                if server.cut_above_bytes is not None and length > server.cut_above_bytes:
                    self.rfile.read(min(length, 1000))
                    server.seen.append((self.command, self.path, {}, b""))
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.connection.close()
                    self.close_connection = True
                    return
                server.seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
                status, body, headers = server.answers.pop(0) if server.answers else (200, b"", {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the base class's names

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                """A connection that the test cut."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.answers.append((status, body, headers))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    monkeypatch.setattr(client_module, "REPEAT_DELAYS_SECONDS", (0.0, 0.0))
    client = Coordinator(server.url + "/", SecretStr(TOKEN), worker_id="worker-1")
    yield client
    client.close()


def test_poll_asks_at_most_120_seconds_and_never_0(server: Server, client: Coordinator) -> None:
    for asked in (300, 60, 0, -1):
        server.answer(204)
        assert client.poll(asked) is None
    assert [path for _, path, _, _ in server.seen] == [f"/tasks/poll?timeout={seconds}" for seconds in (120, 60, 1, 1)]
    assert server.seen[0][2]["Authorization"] == f"Bearer {TOKEN}"


def test_poll_gives_the_body_as_it_came(server: Server, client: Coordinator) -> None:
    server.answer(200, b'{"type": "Compile" ...')
    assert client.poll(1) == b'{"type": "Compile" ...'


def test_complete_writes_compact_json(server: Server, client: Coordinator) -> None:
    client.complete(REPORT)
    method, path, headers, body = server.seen[0]
    assert (method, path, headers["Content-Type"]) == ("POST", "/tasks/complete", "application/json")
    assert body == b'{"request_id":7,"success":true,"output":[0,255],"error":null,"execution_time_ms":12}'


def test_complete_that_is_too_large_is_repeated_without_the_output(server: Server, client: Coordinator) -> None:
    server.answer(413)
    client.complete(REPORT)
    said = json.loads(server.seen[1][3])
    assert said["output"] is None
    assert said["success"] is True
    assert "output of 2 bytes left out" in said["error"]
    assert str(2 * MIB) in said["error"]


def test_fail_and_create_bodies(server: Server, client: Coordinator) -> None:
    client.fail(9, "expired: too late")
    client.create(TASK)
    assert json.loads(server.seen[0][3]) == {"request_id": 9, "error": "expired: too late"}
    assert json.loads(server.seen[1][3]) == {
        "request_id": 1,
        "data_id": "ab" * 32,
        "code_source": {"type": "GitHub", "repo": "https://github.com/a/b", "commit": "main", "build_target": "wasm32-wasip1"},
        "resource_limits": {"max_instructions": 1, "max_memory_mb": 2, "max_execution_seconds": 3},
        "input_data": "{}",
    }


def test_create_and_acquire_are_never_repeated_and_the_others_are(server: Server, client: Coordinator) -> None:
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: client.create(TASK), 1),
        (lambda: client.acquire_lock("k", 60), 1),
        (lambda: client.complete(REPORT), 3),
        (lambda: client.fail(1, "x"), 3),
        (lambda: client.wasm_exists("k"), 3),
        (lambda: client.release_lock("k"), 3),
        (lambda: client.download("k", max_bytes=10), 3),
        (lambda: client.upload("k", "r", "c", b"w"), 3),
    ]
    for call, tries in calls:
        server.seen.clear()
        server.answers = [(500, b"database is away\n", {})] * tries
        with pytest.raises(Unavailable, match="HTTP 500: database is away"):
            call()
        assert len(server.seen) == tries


def test_a_lock_key_is_one_segment(server: Server, client: Coordinator) -> None:
    client.release_lock("compile:https://github.com/a/b:main")
    assert server.seen[0][:2] == ("DELETE", "/locks/release/compile%3Ahttps%3A%2F%2Fgithub.com%2Fa%2Fb%3Amain")


@pytest.mark.parametrize(("answer", "acquired"), [(b'{"acquired":true}', True), (b'{"acquired":false}', False), (b"[]", False)])
def test_a_lock_is_asked_for_in_our_name(server: Server, client: Coordinator, answer: bytes, acquired: bool) -> None:
    server.answer(200, answer)
    assert client.acquire_lock("compile:a", 360) is acquired
    assert json.loads(server.seen[0][3]) == {"lock_key": "compile:a", "worker_id": "worker-1", "ttl_seconds": 360}


def test_upload_is_multipart_with_four_parts(server: Server, client: Coordinator) -> None:
    server.answer(201)
    client.upload("c" * 64, "https://github.com/a/b", "d" * 40, b"\0asm")
    _, path, headers, body = server.seen[0]
    assert path == "/wasm/upload"
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
    for part in (b'name="checksum"', b'name="repo_url"', b'name="commit_hash"', b'name="wasm_file"', b"application/wasm", b"\0asm"):
        assert part in body


def test_an_upload_over_the_limit_is_too_large_also_as_400_and_as_a_cut_connection(server: Server, client: Coordinator) -> None:
    large = b"x" * (2 * MIB + 1)
    server.answer(400)
    with pytest.raises(TooLarge, match=rf"{len(large)} bytes.*{2 * MIB} bytes"):
        client.upload("k", "r", "c", large)
    server.cut_above_bytes = MIB
    with pytest.raises(TooLarge, match=str(2 * MIB)):
        client.upload("k", "r", "c", large)
    with pytest.raises(TooLarge, match=str(2 * MIB)):
        client.complete(REPORT.model_copy(update={"output": None, "error": "x" * (2 * MIB)}))


def test_a_small_body_that_is_cut_off_is_a_server_that_is_away(server: Server, client: Coordinator) -> None:
    server.cut_above_bytes = 10
    with pytest.raises(Unavailable, match="API_BASE_URL"):
        client.upload("k", "r", "c", b"small")
    with pytest.raises(Unavailable, match="API_BASE_URL"):
        client.complete(REPORT)


def test_a_400_of_a_small_upload_is_refused(server: Server, client: Coordinator) -> None:
    server.answer(400, b"missing part")
    with pytest.raises(Refused, match="HTTP 400: missing part"):
        client.upload("k", "r", "c", b"small")


def test_downloads_are_bounded_and_absence_is_none(server: Server, client: Coordinator) -> None:
    server.answer(200, b"12345")
    assert client.download("k", max_bytes=5) == b"12345"
    server.answer(404)
    assert client.download("k", max_bytes=5) is None
    server.answer(200, b"123456")
    with pytest.raises(TooLarge, match="more than the 5 bytes"):
        client.download("k", max_bytes=5)


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"exists":"yes"}'])
def test_a_stranger_behind_the_url_is_named(server: Server, client: Coordinator, body: bytes) -> None:
    server.answer(200, body)
    with pytest.raises(Refused, match="API_BASE_URL"):
        client.wasm_exists("k")


def test_a_wrong_token_names_the_setting_and_no_error_or_repr_the_token(server: Server, client: Coordinator) -> None:
    server.answers = [(401, b"", {})] * 3
    for call in (lambda: client.poll(1), lambda: client.create(TASK), lambda: client.fail(1, "x")):
        with pytest.raises(Unauthorized, match="API_AUTH_TOKEN") as raised:
            call()
        assert TOKEN not in str(raised.value) + repr(client) + repr(vars(client))


def test_a_redirect_is_not_followed_with_the_token(server: Server, client: Coordinator) -> None:
    for call in (lambda: client.poll(1), lambda: client.create(TASK)):
        server.seen.clear()
        server.answer(302, Location=f"{server.url}/elsewhere")
        with pytest.raises(Refused, match="HTTP 302"):
            call()
        assert len(server.seen) == 1


def test_the_wish_to_wait_is_handed_on(server: Server, client: Coordinator) -> None:
    server.answer(429, **{"Retry-After": "17"})
    with pytest.raises(Unavailable) as raised:
        client.poll(1)
    assert raised.value.retry_after_seconds == 17


def test_an_unreachable_server_names_the_setting(server: Server, client: Coordinator) -> None:
    server.http.shutdown()
    server.http.server_close()
    for call in (lambda: client.poll(1), lambda: client.create(TASK), client.health):
        with pytest.raises(Unavailable, match=r"Connection refused.*API_BASE_URL"):
            call()


def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client = Coordinator(server.url, SecretStr(TOKEN))
    server.answer(204)
    client.poll(1)
    client.health()
    client.close()
    assert len(server.seen) == 2
