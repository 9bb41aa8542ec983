"""The RPC client against a real HTTP server that answers as nodes and providers do (wire.md §2)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from offchainvm.near import rpc as rpc_module
from offchainvm.near.rpc import (
    AccessKey,
    InvalidTransaction,
    RecentBlock,
    Rpc,
    RpcRefused,
    RpcTimeout,
    RpcUnavailable,
    UnknownBlock,
    UnknownTransaction,
    ViewFailed,
)
from offchainvm.near.rpc_answers import Refusal
from offchainvm.near.transaction import BlockRef

HASH = "7nsuuitwS7xcdGnD9JgrE22cRB2vf2VS4yh1N9S71F4d"


def rpc_error(cause: str, info: Any = None, data: Any = None, name: str = "HANDLER_ERROR") -> dict[str, Any]:
    error = {"name": name, "cause": {"name": cause, "info": info or {}}, "code": -32000, "message": "Server error", "data": data}
    return {"jsonrpc": "2.0", "id": "offchainvm", "error": error}


def without_method() -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}}


def client(*servers: Any, **options: Any) -> Rpc:
    return Rpc([server.url for server in servers], **{"connect_seconds": 2, "read_seconds": 2, **options})


def test_send_waits_for_nothing_and_sends_exactly_the_signed_bytes(server: Any) -> None:
    server.will_result({"final_execution_status": "NONE"})
    client(server).send_tx(b"\x00signed\xff")
    request = server.seen[0]
    assert (request.method, request.path, request.headers["Content-Type"]) == ("POST", "/", "application/json")
    assert request.json["method"] == "send_tx"
    assert request.json["params"] == {"signed_tx_base64": base64.b64encode(b"\x00signed\xff").decode(), "wait_until": "NONE"}
    assert request.json["jsonrpc"] == "2.0"


def test_transaction_is_asked_by_hash_or_checked_by_its_bytes(server: Any) -> None:
    server.will_result({"final_execution_status": "INCLUDED"})
    rpc = client(server)
    assert rpc.tx(HASH, sender_id="operator.testnet") == {"final_execution_status": "INCLUDED"}
    rpc.tx(b"bytes", sender_id="operator.testnet")
    assert server.seen[0].json["params"] == {"tx_hash": HASH, "sender_account_id": "operator.testnet", "wait_until": "NONE"}
    assert server.seen[1].json["params"] == {"signed_tx_base64": base64.b64encode(b"bytes").decode(), "wait_until": "NONE"}


def test_one_connection_serves_many_calls(server: Any) -> None:
    server.will_result({"chain_id": "localnet"})
    rpc = client(server)
    assert {rpc.chain_id() for _ in range(5)} == {"localnet"}
    assert server.connections == 1


def test_proxies_of_the_environment_are_not_used(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.will_result({"chain_id": "localnet"})
    assert client(server).chain_id() == "localnet"


NONCE_DATA = {"TxExecutionError": {"InvalidTxError": {"InvalidNonce": {"tx_nonce": 5, "ak_nonce": 12}}}}
REFUSALS = [
    (200, rpc_error("UNKNOWN_TRANSACTION", {"requested_transaction_hash": HASH}, f"Transaction {HASH} doesn't exist"), UnknownTransaction),
    (200, rpc_error("INVALID_TRANSACTION", data=NONCE_DATA), InvalidTransaction),
    (422, rpc_error("UNKNOWN_BLOCK", {}, "DB Not Found Error: BLOCK HEIGHT: 7"), UnknownBlock),
    (422, rpc_error("GARBAGE_COLLECTED_BLOCK", {}, "gone"), UnknownBlock),
    (200, rpc_error("CONTRACT_EXECUTION_ERROR", {"vm_error": "panic"}), ViewFailed),
    (400, rpc_error("PARSE_ERROR", {"error_message": "bad"}, name="REQUEST_VALIDATION_ERROR"), RpcRefused),
    (400, rpc_error("METHOD_NOT_FOUND", {"method_name": "x"}, name="REQUEST_VALIDATION_ERROR"), RpcRefused),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS)
def test_no_of_a_node_is_typed_by_its_cause_and_asked_once(server: Any, reply: Any, status: int, body: Any, kind: type) -> None:
    server.will(reply(body, status=status))
    with pytest.raises(RpcRefused) as caught:
        client(server).tx(HASH, sender_id="operator.testnet")
    assert type(caught.value) is kind
    assert caught.value.cause == body["error"]["cause"]["name"]
    assert len(server.seen) == 1


def test_reason_of_an_invalid_transaction_carries_the_keys_nonce(server: Any, reply: Any) -> None:
    server.will(reply(rpc_error("INVALID_TRANSACTION", data=NONCE_DATA)))
    with pytest.raises(InvalidTransaction) as caught:
        client(server).tx(b"x", sender_id="operator.testnet")
    assert (caught.value.reason.refusal, caught.value.reason.ak_nonce) == (Refusal.NONCE_USED, 12)


def test_timeout_of_a_node_tells_how_far_the_transaction_came_and_changes_no_endpoint(start_server: Any, reply: Any) -> None:
    first, second = start_server(), start_server()
    first.will(reply(rpc_error("TIMEOUT_ERROR", {"cause": "NOT_OBSERVED"}), status=408))
    rpc = client(first, second)
    name = rpc.endpoint
    with pytest.raises(RpcTimeout) as caught:
        rpc.tx(HASH, sender_id="operator.testnet", wait_until="FINAL")
    assert caught.value.stage == "NOT_OBSERVED"
    assert (rpc.endpoint, second.seen) == (name, [])


READ_SECONDS = 1.0
AWAY = [
    {"status": 429, "body": b"<html>Too Many Requests</html>"},
    {"status": 502, "body": b"Bad Gateway"},
    {"status": 503, "body": b""},
    {"status": 500, "body": rpc_error("INTERNAL_ERROR", {"error_message": "x"}, name="INTERNAL_ERROR")},
    {"status": 200, "body": rpc_error("NOT_SYNCED_YET")},
    {"status": 401, "body": b"key?"},
    {"status": 200, "body": b"null"},
    {"status": 200, "body": {"jsonrpc": "2.0", "result": None}},
    {"status": 200, "body": b"[" * 100_000},
    {"close": True},
    {"body": {"jsonrpc": "2.0", "result": {"a": "b" * 100}}, "cut": True},
    {"body": {"jsonrpc": "2.0", "result": {}}, "delay_seconds": 2 * READ_SECONDS},
]


@pytest.mark.parametrize("away", AWAY)
def test_what_says_nothing_about_the_chain_is_asked_of_the_next_endpoint(start_server: Any, reply: Any, away: Any) -> None:
    first, second = start_server(), start_server()
    first.will(reply(**away))
    second.will_result({"chain_id": "testnet"})
    rpc = client(first, second, read_seconds=READ_SECONDS)
    assert rpc.chain_id() == "testnet"
    # It stays with the one that answered.
    assert rpc.chain_id() == "testnet"
    assert (len(first.seen), len(second.seen)) == (1, 2)
    assert rpc.endpoint.startswith(second.url)


def test_a_method_that_a_provider_does_not_offer_is_a_refusal(server: Any, reply: Any) -> None:
    server.will(reply(without_method()))
    with pytest.raises(RpcRefused, match="EXPERIMENTAL_protocol_config: METHOD_NOT_FOUND"):
        client(server).protocol_config()


def test_a_provider_that_keeps_the_chains_limits_to_itself_stays_in_use(start_server: Any, reply: Any) -> None:
    first, second = start_server(), start_server()
    first.will(reply(b"", status=403), reply({"jsonrpc": "2.0", "result": {"chain_id": "testnet"}}))
    second.will_result(CONFIG)
    rpc = client(first, second)
    name = rpc.endpoint
    assert rpc.protocol_config().max_actions == 100
    assert (rpc.endpoint, rpc.chain_id()) == (name, "testnet")
    assert [len(first.seen), len(second.seen)] == [2, 1]


def test_all_endpoints_away_is_unavailable_and_recovers_by_itself(start_server: Any, reply: Any) -> None:
    first, second = start_server(), start_server()
    for server in (first, second):
        server.will(reply(b"", status=503), *[reply({"jsonrpc": "2.0", "result": {"chain_id": "back"}})])
    rpc = client(first, second)
    with pytest.raises(RpcUnavailable, match="HTTP 503") as caught:
        rpc.chain_id()
    assert "NEAR_RPC_URL" in str(caught.value)
    assert rpc.chain_id() == "back"


def test_endpoint_that_said_429_is_left_alone_for_the_time_it_named(server: Any, reply: Any) -> None:
    server.will(reply(b"slow down", status=429, headers={"Retry-After": "30"}))
    rpc = client(server)
    for _ in range(3):
        with pytest.raises(RpcUnavailable) as caught:
            rpc.chain_id()
        assert caught.value.retry_after_seconds is not None
        assert 25 < caught.value.retry_after_seconds <= 30
    assert len(server.seen) == 1


def test_unreachable_host_is_told_without_the_path_that_may_hold_a_key() -> None:
    rpc = Rpc(["http://127.0.0.1:1/secret-api-key?token=hidden"], connect_seconds=1)
    with pytest.raises(RpcUnavailable, match="connection refused") as caught:
        rpc.chain_id()
    assert "secret-api-key" not in f"{caught.value} {caught.value.__cause__} {rpc.endpoint}"
    assert "hidden" not in f"{caught.value} {caught.value.__cause__}"


def test_an_endpoint_of_another_network_is_named_and_never_used(start_server: Any, reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(rpc_module.log, "error", lambda sentence, **_: told.append(sentence))
    first, stranger, third = start_server(), start_server(), start_server()
    first.will(reply({"jsonrpc": "2.0", "result": {"chain_id": "testnet"}}), reply(b"", status=503))
    stranger.will_result({"chain_id": "mainnet"})
    third.will_result({"chain_id": "testnet"}, {"header": {"height": 88, "hash": HASH}})
    rpc = client(first, stranger, third)
    assert rpc.chain_id() == "testnet"
    assert rpc.final_block() == BlockRef(88, HASH)
    assert [seen.json["method"] for seen in stranger.seen] == ["status"]
    assert told == ["An RPC endpoint serves another network than the others and is not used. Correct NEAR_RPC_URL."]
    third.will(reply(b"", status=503))
    with pytest.raises(RpcUnavailable, match=r"serves the network mainnet, the others of NEAR_RPC_URL serve testnet"):
        rpc.final_block()


@pytest.mark.parametrize(
    "silent",
    [
        {"status": 403, "body": b"forbidden method"},
        {"body": without_method()},
        {"body": {"jsonrpc": "2.0", "error": {"code": -32600, "message": "method not whitelisted"}}},
        {"body": {"jsonrpc": "2.0", "result": {"node": "of a provider"}}},
        {"status": 400, "body": rpc_error("METHOD_NOT_FOUND", name="REQUEST_VALIDATION_ERROR")},
    ],
    ids=["forbidden", "not offered", "an error of its own", "an answer without it", "refused"],
)
def test_an_endpoint_that_keeps_its_chains_id_to_itself_is_used_all_the_same(start_server: Any, reply: Any, silent: Any) -> None:
    first, second = start_server(), start_server()
    first.will(reply({"jsonrpc": "2.0", "result": {"chain_id": "testnet"}}), reply(b"", status=503))
    second.will(reply(**silent), reply({"jsonrpc": "2.0", "result": {"header": {"height": 88, "hash": HASH}}}))
    rpc = client(first, second)
    assert rpc.chain_id() == "testnet"
    assert [rpc.final_block().height for _ in range(2)] == [88, 88]
    assert [seen.json["method"] for seen in second.seen] == ["status", "block", "block"]


def test_an_endpoint_that_does_not_answer_is_asked_for_nothing_before_it_told_its_chain(start_server: Any, reply: Any) -> None:
    first, second = start_server(), start_server()
    first.will(reply({"jsonrpc": "2.0", "result": {"chain_id": "testnet"}}), reply(b"", status=503))
    second.will(reply(b"", status=503), reply({"jsonrpc": "2.0", "result": {"chain_id": "mainnet"}}))
    rpc = client(first, second)
    rpc.chain_id()
    with pytest.raises(RpcUnavailable, match="HTTP 503"):
        rpc.final_block()
    assert [seen.json["method"] for seen in second.seen] == ["status"]


def test_a_node_that_tells_no_chain_id_is_unavailable_to_who_needs_it(server: Any) -> None:
    server.will_result({"node": "of a provider"})
    with pytest.raises(RpcUnavailable, match="tells no chain_id"):
        client(server).chain_id()


def test_a_method_that_one_endpoint_lacks_is_asked_of_the_next(start_server: Any, reply: Any) -> None:
    first, second = start_server(), start_server()
    first.will(reply(without_method()))
    second.will_result({"final_execution_status": "NONE"})
    rpc = client(first, second)
    rpc.send_tx(b"signed")
    assert [len(first.seen), len(second.seen)] == [1, 1]
    assert rpc.endpoint.startswith(second.url)


def test_a_second_opinion_comes_from_the_same_chain(start_server: Any, reply: Any) -> None:
    first, stranger, dead, third = (start_server() for _ in range(4))
    for server, chain_id in ((first, "testnet"), (stranger, "mainnet"), (third, "testnet")):
        server.will_result({"chain_id": chain_id})
    dead.will(reply(b"", status=503))
    rpc = client(first, stranger, dead, third)
    rpc.chain_id()
    assert rpc.elsewhere().endpoint.startswith(third.url)
    assert rpc.elsewhere().endpoint.startswith(third.url)
    assert len(stranger.seen) == 1
    lonely = client(first, stranger)
    lonely.chain_id()
    assert lonely.elsewhere().endpoint == lonely.endpoint


def test_pinned_client_asks_one_node_only(start_server: Any, reply: Any) -> None:
    first, second = start_server(), start_server()
    first.will(reply(b"", status=502), reply({"jsonrpc": "2.0", "result": {"chain_id": "testnet"}}))
    second.will_result({"chain_id": "testnet"})
    rpc = client(first, second)
    pinned = rpc.pinned()
    with pytest.raises(RpcUnavailable):
        pinned.chain_id()
    assert second.seen == []
    rpc.chain_id()
    assert rpc.pinned().chain_id() == "testnet"
    assert rpc.elsewhere().endpoint == pinned.endpoint
    assert pinned.elsewhere().endpoint == pinned.endpoint


def test_final_block_and_block_by_height(server: Any) -> None:
    server.will_result({"header": {"height": 88, "hash": HASH}, "chunks": []})
    rpc = client(server)
    assert rpc.final_block() == BlockRef(88, HASH)
    rpc.block(80)
    assert [request.json["params"] for request in server.seen] == [{"finality": "final"}, {"block_id": 80}]


def test_full_access_key_and_function_call_key_are_told_apart(server: Any) -> None:
    place = {"block_height": 9, "block_hash": HASH}
    limits = {"allowance": "250000000000000000000000", "receiver_id": "c.near", "method_names": ["resolve_execution"]}
    server.will_result(
        {"nonce": 5, "permission": "FullAccess", **place},
        {"nonce": 6, "permission": {"FunctionCall": limits}, **place},
        {"nonce": 7, "permission": {"FunctionCall": {**limits, "allowance": None, "method_names": []}}, **place},
    )
    rpc = client(server)
    full, narrow, unlimited = (rpc.access_key("operator.testnet", "ed25519:x") for _ in range(3))
    assert full == AccessKey(nonce=5, block_height=9, full_access=True)
    assert narrow is not None
    assert unlimited is not None
    assert (narrow.allowance_yocto, unlimited.allowance_yocto) == (250_000_000_000_000_000_000_000, None)
    assert narrow.may_call("c.near", "resolve_execution")
    assert not narrow.may_call("c.near", "other")
    assert not narrow.may_call("d.near", "resolve_execution")
    assert unlimited.may_call("c.near", "other")
    assert server.seen[0].json["params"] == {
        "request_type": "view_access_key",
        "account_id": "operator.testnet",
        "public_key": "ed25519:x",
        "finality": "final",
    }


@pytest.mark.parametrize(
    "body",
    [
        {"result": {"error": "access key ed25519:x does not exist while viewing", "block_height": 1, "logs": []}},
        rpc_error("UNKNOWN_ACCESS_KEY", {"public_key": "ed25519:x"}),
        rpc_error("UNKNOWN_ACCOUNT", {"requested_account_id": "operator.testnet"}),
    ],
)
def test_absent_key_is_none_in_every_shape_that_nodes_use(server: Any, reply: Any, body: Any) -> None:
    server.will(reply({"jsonrpc": "2.0", **body}))
    assert client(server).access_key("operator.testnet", "ed25519:x") is None


def test_other_error_of_a_key_query_is_no_absence(server: Any) -> None:
    server.will_result({"error": "storage is inconsistent", "block_height": 1})
    with pytest.raises(ViewFailed, match="inconsistent"):
        client(server).access_key("operator.testnet", "ed25519:x")


def test_view_returns_the_bytes_and_a_panic_is_an_error(server: Any) -> None:
    server.will_result(
        {"result": list(b'["owner","operator"]'), "logs": [], "block_height": 1},
        {"error": "wasm execution failed with error: panicked: nope", "logs": [], "block_height": 1},
    )
    rpc = client(server)
    assert json.loads(rpc.view("c.near", "get_config")) == ["owner", "operator"]
    with pytest.raises(ViewFailed, match="nope"):
        rpc.view("c.near", "get_request", {"request_id": 5})
    assert base64.b64decode(server.seen[1].json["params"]["args_base64"]) == b'{"request_id":5}'


CONFIG = {
    "protocol_version": 83,
    "chain_id": "testnet",
    "transaction_validity_period": 86400,
    "runtime_config": {
        "wasm_config": {
            "limit_config": {
                "max_total_prepaid_gas": 10**15,
                "max_actions_per_receipt": 100,
                "max_transaction_size": 1_572_864,
                "max_yield_payload_size": 1024,
                "yield_timeout_length_in_blocks": 200,
            }
        }
    },
}


def test_limits_come_from_the_chain_and_bound_a_batch(server: Any) -> None:
    server.will_result(CONFIG, {**CONFIG, "transaction_validity_period": None})
    rpc = client(server)
    limits = rpc.protocol_config()
    assert (limits.max_resume_bytes, limits.yield_timeout_blocks, limits.transaction_validity_blocks) == (1024, 200, 86400)
    assert limits.resolves_per_transaction(10, gas=30 * 10**12) == 10
    assert limits.resolves_per_transaction(100, gas=30 * 10**12) == 33
    assert limits.resolves_per_transaction(1000, gas=10**12) == 100
    assert limits.resolves_per_transaction(10, gas=2 * 10**15) == 1
    assert limits.resolves_per_transaction(100, gas=10**12, argument_bytes=100_000) == 15
    with pytest.raises(RpcRefused, match="protocol configuration"):
        rpc.protocol_config()


def test_recent_block_is_asked_for_once_in_its_time_and_survives_an_outage(server: Any, reply: Any) -> None:
    block = {"jsonrpc": "2.0", "result": {"header": {"height": 5, "hash": HASH}}}
    older = {"jsonrpc": "2.0", "result": {"header": {"height": 4, "hash": HASH}}}
    server.will(reply(block), reply(b"", status=503), reply(older))
    rpc = client(server)
    recent = RecentBlock(rpc.final_block, refresh_seconds=60)
    assert {recent.get().height for _ in range(5)} == {5}
    assert len(server.seen) == 1
    eager = RecentBlock(rpc.final_block, refresh_seconds=0)
    with pytest.raises(RpcUnavailable):
        eager.get()
    assert eager.get().height == 4


def test_recent_block_never_steps_back_and_serves_on_while_the_chain_is_away(server: Any, reply: Any) -> None:
    answers = [reply({"jsonrpc": "2.0", "result": {"header": {"height": height, "hash": HASH}}}) for height in (5, 4)]
    server.will(*answers, reply(b"", status=503))
    recent = RecentBlock(client(server).final_block, refresh_seconds=0, stale_seconds=600)
    assert [recent.get().height for _ in range(4)] == [5, 5, 5, 5]
    assert len(server.seen) >= 3


def test_recent_block_keeps_block_and_height_together_while_a_height_is_doubted() -> None:
    heights = iter([1000, 9_000_000, 1001, 9_000_000, 9_000_001])
    recent = RecentBlock(lambda: BlockRef(height := next(heights), f"hash of {height}"), refresh_seconds=0)
    assert [recent.get() for _ in range(5)] == [BlockRef(height, f"hash of {height}") for height in (1000, 1000, 1001, 1001, 9_000_001)]


def test_client_without_an_endpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Rpc([])
