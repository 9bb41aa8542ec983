"""One real job, end to end; and what reaches the contract when something is wrong with it."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from world import TARGET, echo_module, until

from offchainvm.compiler.source import source_key
from offchainvm.devnet import borsh
from offchainvm.devnet.client import Limits
from offchainvm.devnet.genesis import OPERATOR_ID


@pytest.fixture(scope="module")
def world(make_world, builder_image, broker):
    with make_world(settings=broker) as world:
        yield world


def recorded(world, service):
    """Every request that a service received, as exact bytes."""
    told = json.loads((world.coordinator if service == "coordinator" else world.chain)("GET", "requests"))
    return [(one["method"], one["path"], base64.b64decode(one["body_base64"])) for one in told]


def as_json(value, *, compact=False):
    return json.dumps(value, separators=(",", ":") if compact else None).encode()


def multipart(body, fields, file_name, wasm):
    """An upload as RFC 7578 writes it, with the boundary that ``body`` chose."""
    boundary = body.partition(b"\r\n")[0]
    texts = [(f'Content-Disposition: form-data; name="{name}"', value.encode()) for name, value in fields.items()]
    file = (f'Content-Disposition: form-data; name="wasm_file"; filename="{file_name}"\r\nContent-Type: application/wasm', wasm)
    parts = [boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in (*texts, file)]
    return b"".join(parts) + boundary + b"--\r\n"


def signed_anew(world, transaction, arguments):
    """The only bytes that a resolve with ``arguments`` may have, but for its key, nonce and block hash."""
    sent, keys = borsh.decode(transaction), world.stack.keys
    key = next(key for key in (*keys.function_call_keys, *keys.full_access_keys) if key.public_text == sent.public_key_text)
    call = borsh.FunctionCall("resolve_execution", arguments, gas=30 * 10**12, deposit=0)
    place = {"receiver_id": keys.contract_id, "nonce": sent.nonce, "block_hash": sent.block_hash}
    return borsh.sign(key=key, signer_id=OPERATOR_ID, actions=[call], **place)


def test_one_job_walks_the_whole_way_and_every_byte_of_it_is_as_the_wire_contract_says(world, no_sandbox_left):
    sha = world.publish("way")
    world.coordinator("DELETE", "requests")
    world.chain("DELETE", "requests")
    request = world.ask("way", "over the hills", commit=sha)
    result = world.result(request)
    assert (result.state, result.value) == ("succeeded", "over the hills")
    [report] = world.reports(request)

    key = source_key(world.repo("way"), sha, TARGET)
    assert key == hashlib.sha256(f"https://github.com/tests/way{sha}{TARGET}".encode()).hexdigest()
    sent = recorded(world, "coordinator")
    limits = {"max_instructions": 10**10, "max_memory_mb": 128, "max_execution_seconds": 60}
    source = {"type": "GitHub", "repo": world.repo("way"), "commit": sha, "build_target": TARGET}
    [created] = [body for method, path, body in sent if (method, path) == ("POST", "/tasks/create")]
    task = {"request_id": request.request_id, "data_id": request.data_id, "code_source": source, "resource_limits": limits}
    assert created == as_json({**task, "input_data": "over the hills"})
    lock = f"compile:{world.repo('way')}:{sha}"
    [acquired] = [body for method, path, body in sent if path == "/locks/acquire"]
    assert acquired == as_json({"lock_key": lock, "worker_id": world.stack.worker_id("compile"), "ttl_seconds": 360})
    released = f"/locks/release/compile%3Ahttps%3A%2F%2Fgithub.com%2Ftests%2Fway%3A{sha}"
    assert [(method, body) for method, path, body in sent if path == released] == [("DELETE", b"")]
    [upload] = [body for method, path, body in sent if (method, path) == ("POST", "/wasm/upload")]
    wasm = world.coordinator("GET", f"wasm/{key}")
    fields = {"checksum": key, "repo_url": world.repo("way"), "commit_hash": sha}
    assert upload == multipart(upload, fields, f"{key}.wasm", wasm)
    assert {body for method, _, body in sent if method == "GET"} == {b""}

    used = result.response["resources_used"]
    arguments = {
        "data_id": list(bytes.fromhex(request.data_id)),
        "response": {"success": True, "return_value": list(b"over the hills"), "error": None, "resources_used": used},
    }
    calls = [(json.loads(body), body) for method, path, body in recorded(world, "chain") if method == "POST" and path == "/"]
    [sending] = {body for call, body in calls if call["method"] == "send_tx" and call["id"] == "offchainvm"}
    transaction = base64.b64decode(json.loads(sending)["params"]["signed_tx_base64"])
    parameters = {"signed_tx_base64": base64.b64encode(transaction).decode(), "wait_until": "NONE"}
    assert sending == as_json({"jsonrpc": "2.0", "id": "offchainvm", "method": "send_tx", "params": parameters})
    assert transaction == signed_anew(world, transaction, as_json(arguments, compact=True))

    [complete] = [body for method, path, body in sent_to(world, "/tasks/complete", request)]
    answer = {"request_id": request.request_id, "success": True, "output": list(b"over the hills"), "error": None}
    assert complete == as_json({**answer, "execution_time_ms": report["execution_time_ms"]}, compact=True)
    assert used["instructions"] > 0
    assert used["memory_bytes"] % 65536 == 0


def sent_to(world, path, request):
    return [one for one in recorded(world, "coordinator") if one[1] == path and json.loads(one[2])["request_id"] == request.request_id]


def test_a_module_in_the_cache_is_not_built_again(world):
    world.cache("cached", echo_module())
    assert world.result(world.ask("cached", "hello")).value == "hello"


def test_twenty_requests_for_one_source_make_one_build_and_twenty_right_answers(world, no_sandbox_left):
    sha = world.publish("twenty", build_script="fn main() { std::thread::sleep(std::time::Duration::from_secs(3)) }")
    asked = world.ask_all("twenty", "input", 20, commit=sha)
    assert {text: world.result(request).value for text, request in asked.items()} == {text: text for text in asked}
    key = source_key(world.repo("twenty"), sha, TARGET)
    uploads = [body for _, path, body in recorded(world, "coordinator") if path == "/wasm/upload" and key.encode() in body]
    assert len(uploads) == 1
    built = [event for request in asked.values() for event in world.store.history(request.data_id) if event.what == "building"]
    assert len(built) == 1
    assert all(len(world.resolves_of(request)) == 1 for request in asked.values())


def test_a_branch_is_built_at_the_commit_it_stands_at(world, no_sandbox_left):
    sha = world.publish("branch")
    request = world.ask("branch", "on main", commit="main")
    assert world.result(request).value == "on main"
    assert world.store.get(request.data_id).commit_sha == sha


def test_a_compile_error_is_resolved_on_the_contract_and_reported(world, no_sandbox_left):
    sha = world.publish("broken", library="fn execute( {")
    request = world.ask("broken", "", commit=sha)
    result = world.result(request)
    assert result.state == "failed"
    assert re.fullmatch(r"compile_error: The program does not compile: error: .+ \(src/lib\.rs:1:\d+\)", result.response["error"])
    [report] = world.reports(request)
    assert report["success"] is False
    assert report["error"] == result.response["error"]
    assert result.response["resources_used"] == {"instructions": 0, "memory_bytes": 0, "time_seconds": 0}


def test_a_program_that_runs_out_of_instructions_is_charged_for_exactly_its_limit(world):
    world.cache("endless", echo_module(rounds=10**12))
    result = world.result(world.ask("endless", "", limits=Limits(max_instructions=5_000_000)))
    assert result.response["error"].startswith("out_of_fuel: ")
    assert result.response["resources_used"]["instructions"] == 5_000_000


def test_an_output_that_does_not_fit_names_both_sizes(world):
    world.cache("long", echo_module())
    result = world.result(world.ask("long", "x" * 900))
    assert result.state == "failed"
    assert result.response["error"].startswith("output_too_large: the output has 900 bytes")


def test_rubbish_in_the_cache_is_built_again_and_answered(world, no_sandbox_left):
    sha = world.publish("rubbish")
    key = source_key(world.repo("rubbish"), sha, TARGET)
    world.coordinator("PUT", f"wasm/{key}", b"\0asm\1\0\0\0")
    assert world.result(world.ask("rubbish", "still here", commit=sha)).value == "still here"


def test_a_task_that_cannot_be_read_is_set_aside_and_reported(world):
    world.coordinator("POST", "tasks", json.dumps({"type": "Compile", "request_id": 4711}).encode())
    told = until(lambda: json.loads(world.coordinator("GET", "reports?request_id=4711")), "the report of a rejected task")
    assert told[0]["error"].startswith("invalid_request: ")
    assert any(one.request_id == 4711 for one in world.store.rejected(10))


def test_a_settled_task_that_comes_again_is_reported_again_and_not_resolved_again(world):
    world.cache("again", echo_module())
    request = world.ask("again", "once")
    world.result(request)
    before = len(world.reports(request))
    [(_, _, created)] = sent_to(world, "/tasks/create", request)
    world.coordinator("POST", "tasks", json.dumps({"type": "Compile", **json.loads(created)}).encode())
    until(lambda: len(world.reports(request)) > before, "a second report")
    assert len(world.resolves_of(request)) == 1


def test_a_job_tells_its_stages_with_their_times(world):
    world.cache("stages", echo_module())
    request = world.ask("stages", "x")
    world.result(request)
    world.reports(request)
    events = until(lambda: (told := world.store.history(request.data_id))[-1].what == "accepted" and told, "the last event")
    assert [event.what for event in events if event.stage == "execute"][:2] == ["accepted", "claimed"]
    assert [event.at for event in events] == sorted(event.at for event in events)
