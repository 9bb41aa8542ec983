"""The local Coordinator answers as the real one does (wire.md §1)."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from offchainvm.devnet.coordinator import CoordinatorApp

SOURCE = {"type": "GitHub", "repo": "https://github.com/o/n", "commit": "a" * 40, "build_target": "wasm32-wasip1"}
LIMITS = {"max_instructions": 10**9, "max_memory_mb": 128, "max_execution_seconds": 60}
TASK = {"request_id": 7, "data_id": "ab" * 32, "code_source": SOURCE, "resource_limits": LIMITS, "input_data": "ü{}"}
CHECKSUM = hashlib.sha256((SOURCE["repo"] + SOURCE["commit"] + SOURCE["build_target"]).encode()).hexdigest()
Http = Callable[..., urllib3.BaseHTTPResponse]


def _upload(http: Http, wasm: bytes, *, leave_out: str = "") -> urllib3.BaseHTTPResponse:
    fields = {"checksum": CHECKSUM, "repo_url": SOURCE["repo"], "commit_hash": SOURCE["commit"]}
    fields["wasm_file"] = ("m.wasm", wasm, "application/wasm")  # type: ignore[assignment]
    fields.pop(leave_out, None)
    body, content_type = urllib3.encode_multipart_formdata(fields)
    return http("POST", "/wasm/upload", raw=body, **{"content-type": content_type})


def test_everything_but_health_wants_the_token(coordinator: Any) -> None:
    coordinator.token = None
    assert (coordinator("GET", "/health").status, coordinator("GET", "/health").data) == (200, b"OK")
    refused = coordinator("GET", "/tasks/poll?timeout=1")
    assert (refused.status, refused.data) == (401, b"")
    for shown in ("Bearer wrong", "Bearer ", "a-token-of-tests", "Basic a-token-of-tests"):
        assert coordinator("POST", "/tasks/fail", {"request_id": 1, "error": "x"}, authorization=shown).status == 401


def test_a_task_is_handed_out_once_in_the_servers_own_json(coordinator: Http) -> None:
    created = coordinator("POST", "/tasks/create", {**TASK, "unknown": 1})
    assert (created.status, created.data) == (201, b"")
    task = coordinator("GET", "/tasks/poll?timeout=5")
    assert task.headers["content-type"] == "application/json"
    assert task.data == (
        '{"type":"Compile","request_id":7,"data_id":"' + "ab" * 32 + '","code_source":{"type":"GitHub","repo":"https://github.com/o/n","commit":"'
        + "a" * 40 + '","build_target":"wasm32-wasip1"},"resource_limits":{"max_instructions":1000000000,"max_memory_mb":128,'
        '"max_execution_seconds":60},"input_data":"ü{}"}'
    ).encode()  # fmt: skip
    empty = coordinator("GET", "/tasks/poll?timeout=1")
    assert (empty.status, empty.data) == (204, b"")


def test_create_is_not_idempotent(coordinator: Http) -> None:
    for _ in range(2):
        coordinator("POST", "/tasks/create", TASK)
    assert [coordinator("GET", "/tasks/poll?timeout=5").status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("name", TASK)
def test_create_without_a_field_is_refused(coordinator: Http, name: str) -> None:
    refused = coordinator("POST", "/tasks/create", {key: value for key, value in TASK.items() if key != name})
    assert refused.status == 422
    assert f"missing field `{name}`" in refused.data.decode()


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": -1}, {"request_id": "7"}, {"request_id": True}, {"data_id": None}, {"input_data": None}, {"resource_limits": None},
        {"resource_limits": {**LIMITS, "max_memory_mb": None}}, {"resource_limits": {**LIMITS, "max_memory_mb": 2**32}},
        {"code_source": {**SOURCE, "type": "Git"}}, {"code_source": {k: v for k, v in SOURCE.items() if k != "type"}},
        {"code_source": {**SOURCE, "build_target": None}},
    ],
)  # fmt: skip
def test_create_with_a_field_that_does_not_fit_is_refused(coordinator: Http, change: dict[str, Any]) -> None:
    assert coordinator("POST", "/tasks/create", {**TASK, **change}).status == 422


def test_json_is_refused_as_the_servers_library_does(coordinator: Http) -> None:
    assert coordinator("POST", "/tasks/create", raw=b"{", **{"content-type": "application/json"}).status == 400
    assert coordinator("POST", "/tasks/create", raw=b"{}").status == 415
    assert coordinator("POST", "/tasks/create", {**TASK, "input_data": "x" * 2_200_000}).status == 413
    assert coordinator("GET", "/tasks/poll?timeout=-1").status == 400
    assert coordinator("GET", "/tasks/complete").status == 405
    assert coordinator("GET", "/tasks/nothing").status == 404


def test_a_known_source_becomes_an_execute_task(coordinator: Http, coordinator_app: CoordinatorApp) -> None:
    assert _upload(coordinator, b"\0asm\x01\0\0\0").status == 201
    coordinator("POST", "/tasks/create", TASK)
    task = coordinator("GET", "/tasks/poll?timeout=5").json()
    assert list(task) == ["type", "request_id", "data_id", "wasm_checksum", "resource_limits"]
    assert (task["type"], task["wasm_checksum"]) == ("Execute", CHECKSUM)
    coordinator("POST", "/control/settings", {"execute_with_input": True})
    coordinator("POST", "/tasks/create", TASK)
    assert coordinator("GET", "/tasks/poll?timeout=5").json()["input_data"] == "ü{}"
    coordinator("POST", "/control/settings", {"always_compile": True})
    coordinator("POST", "/tasks/create", TASK)
    assert coordinator("GET", "/tasks/poll?timeout=5").json()["type"] == "Compile"


def _waiting(coordinator: Http, count: int) -> None:
    while coordinator("GET", "/control/tasks").json()["waiting_polls"] != count:
        threading.Event().wait(0.01)


def test_waiting_polls_wake_when_tasks_come_and_each_gets_its_own(coordinator: Http) -> None:
    with ThreadPoolExecutor(3) as pool:
        polls = [pool.submit(coordinator, "GET", "/tasks/poll?timeout=120") for _ in range(3)]
        _waiting(coordinator, 3)
        for request_id in (1, 2, 3):
            coordinator("POST", "/tasks/create", {**TASK, "request_id": request_id})
        assert {poll.result().json()["request_id"] for poll in polls} == {1, 2, 3}


@pytest.mark.parametrize("lossy", [False, True])
def test_a_poll_that_went_away_costs_a_task_only_where_the_server_is_lossy(coordinator: Any, lossy: bool) -> None:
    coordinator("POST", "/control/settings", {"lossy_poll": lossy})
    host, _, port = coordinator.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"GET /tasks/poll?timeout=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-of-tests\r\n\r\n")
        _waiting(coordinator, 1)
    if not lossy:
        _waiting(coordinator, 0)
    coordinator("POST", "/tasks/create", TASK)
    assert len(coordinator("GET", "/control/tasks").json()["queued"]) == (0 if lossy else 1)


def test_reports_are_taken_even_for_unknown_ids(coordinator: Http) -> None:
    done = {"request_id": 9, "success": True, "output": [1, 255], "error": None, "execution_time_ms": 3}
    assert coordinator("POST", "/tasks/complete", done).status == 200
    assert coordinator("POST", "/tasks/complete", {"request_id": 9, "success": False, "execution_time_ms": 0}).status == 200
    assert coordinator("POST", "/tasks/fail", {"request_id": 10, "error": "no"}).status == 200
    assert coordinator("POST", "/tasks/complete", {**done, "output": "text"}).status == 422
    assert coordinator("POST", "/tasks/complete", {**done, "output": [256]}).status == 422
    assert coordinator("POST", "/tasks/complete", {**done, "output": [255] * 600_000}).status == 413
    assert coordinator("GET", "/control/reports?request_id=10&wait=5").json() == [{"kind": "fail", "request_id": 10, "error": "no"}]
    assert [report["kind"] for report in coordinator("GET", "/control/reports").json()] == ["complete", "complete", "fail"]


def test_modules_are_kept_under_their_source_key(coordinator: Http) -> None:
    wasm = bytes(range(256)) * 4 + b"\r\n--" + b"\r\n\r\n"
    assert coordinator("GET", f"/wasm/{CHECKSUM}").status == 404
    assert coordinator("GET", f"/wasm/exists/{CHECKSUM}").data == b'{"exists":false}'
    assert _upload(coordinator, wasm).status == 201
    assert coordinator("GET", f"/wasm/exists/{CHECKSUM}").data == b'{"exists":true}'
    assert coordinator("GET", f"/wasm/{CHECKSUM}").data == wasm
    stored = coordinator("GET", "/control/wasm").json()[CHECKSUM]
    assert (stored["repo_url"], stored["commit_hash"], stored["size"]) == (SOURCE["repo"], SOURCE["commit"], len(wasm))


@pytest.mark.parametrize("name", ["checksum", "repo_url", "commit_hash", "wasm_file"])
def test_an_upload_without_a_part_is_refused(coordinator: Http, name: str) -> None:
    assert _upload(coordinator, b"x", leave_out=name).status == 400


def test_an_upload_over_the_limit_is_refused_and_the_limit_is_a_setting(coordinator: Http) -> None:
    assert _upload(coordinator, b"x" * 2_097_152).status == 400
    assert _upload(coordinator, b"x" * 2_096_000).status == 201
    coordinator("POST", "/control/settings", {"body_limit_bytes": 4_000_000})
    assert _upload(coordinator, b"x" * 3_000_000).status == 201
    assert coordinator("POST", "/wasm/upload", raw=b"rubbish", **{"content-type": "text/plain"}).status == 400


def test_locks_have_no_owner_and_their_key_is_one_segment(coordinator: Http) -> None:
    lock = {"lock_key": "compile:https://github.com/o/n:main", "worker_id": "w", "ttl_seconds": 60}
    assert coordinator("POST", "/locks/acquire", lock).data == b'{"acquired":true}'
    assert coordinator("POST", "/locks/acquire", {**lock, "worker_id": "w"}).data == b'{"acquired":false}'
    assert list(coordinator("GET", "/control/locks").json()) == [lock["lock_key"]]
    assert coordinator("DELETE", f"/locks/release/{lock['lock_key']}").status == 404
    assert coordinator("DELETE", "/locks/release/compile%3Ahttps%3A%2F%2Fgithub.com%2Fo%2Fn%3Amain").status == 200
    assert coordinator("DELETE", "/locks/release/never-held").status == 200
    assert coordinator("POST", "/locks/acquire", {**lock, "ttl_seconds": 0}).json() == {"acquired": False}
    assert coordinator("POST", "/locks/acquire", lock).json() == {"acquired": True}


def test_an_expired_lock_is_free(coordinator: Http, coordinator_app: CoordinatorApp) -> None:
    lock = {"lock_key": "k", "worker_id": "w", "ttl_seconds": 60}
    coordinator("POST", "/locks/acquire", lock)
    coordinator_app.locks["k"] = ("w", 0.0)
    assert coordinator("POST", "/locks/acquire", lock).json() == {"acquired": True}


def test_requests_are_recorded_exactly_and_without_the_token(coordinator: Http) -> None:
    body = b'{"request_id": 1,  "error":"\xc3\xbc"}'
    coordinator("POST", "/tasks/fail", raw=body, **{"content-type": "application/json", "x-mine": "1"})
    (record,) = coordinator("GET", "/control/requests?path=/tasks/").json()
    assert base64.b64decode(record["body_base64"]) == body
    assert (record["method"], record["path"], record["status"]) == ("POST", "/tasks/fail", 200)
    assert (record["headers"]["authorization"], record["headers"]["x-mine"]) == ("Bearer ***", "1")
    coordinator("DELETE", "/control/requests")
    assert coordinator("GET", "/control/requests").json() == []


def test_raw_tasks_and_modules_can_be_planted(coordinator: Http) -> None:
    coordinator("POST", "/control/tasks", raw=b'{"type":"Nonsense"')
    assert coordinator("GET", "/tasks/poll?timeout=1").data == b'{"type":"Nonsense"'
    coordinator("PUT", f"/control/wasm/{CHECKSUM}", raw=b"\0asm\x01\0\0\0")
    assert coordinator("GET", f"/wasm/{CHECKSUM}").data == b"\0asm\x01\0\0\0"
    assert coordinator("POST", "/control/settings", {"no_such": 1}).status == 422
    assert coordinator("GET", "/control/no-such").status == 404


def test_faults_hit_what_they_name_as_often_as_they_say(coordinator: Http) -> None:
    fail = {"request_id": 1, "error": "x"}
    coordinator("POST", "/control/faults", {"kind": "status", "path": "/tasks/fail", "status": 503, "body": "busy", "times": 2, "after": 1})
    assert [coordinator("POST", "/tasks/fail", fail).status for _ in range(4)] == [200, 503, 503, 200]
    coordinator("POST", "/control/faults", {"kind": "drop_after", "path": "/tasks/create"})
    coordinator("POST", "/control/faults", {"kind": "drop", "path": "/tasks/create"})
    for _ in range(2):
        with pytest.raises(urllib3.exceptions.ProtocolError):
            coordinator("POST", "/tasks/create", TASK)
    assert len(coordinator("GET", "/control/tasks").json()["queued"]) == 1
    assert coordinator("POST", "/control/faults", {"kind": "nonsense"}).status == 422


def test_a_hanging_request_ends_when_the_faults_are_cleared(coordinator: Http) -> None:
    coordinator("POST", "/control/faults", {"kind": "hang", "path": "/wasm/", "times": 0})
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(coordinator, "GET", f"/wasm/exists/{CHECKSUM}")
        while not coordinator("GET", "/control/faults").json()[0]["hits"]:
            threading.Event().wait(0.01)
        assert not hanging.done()
        coordinator("DELETE", "/control/faults")
        with pytest.raises(urllib3.exceptions.ProtocolError):
            hanging.result()
    assert coordinator("GET", f"/wasm/exists/{CHECKSUM}").status == 200
