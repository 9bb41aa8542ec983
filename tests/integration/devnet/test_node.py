"""The node's RPC and block service over HTTP: results, errors and status codes in their exact shapes (wire.md §2, §3)."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from offchainvm.devnet.borsh import Action, FunctionCall, Transfer, decode, sign
from offchainvm.devnet.client import DevnetClient, Limits
from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID, Keys
from offchainvm.devnet.node import NodeApp
from offchainvm.errors import Refused, Unavailable

CONTRACT = "offchainvm.devnet"


def _rpc(node: Any, method: str, params: Any, path: str = "/") -> tuple[int, Any]:
    reply = node("POST", path, {"jsonrpc": "2.0", "id": "7", "method": method, "params": params})
    told = reply.json()
    assert (told["jsonrpc"], told["id"]) == ("2.0", "7")
    return reply.status, told.get("result", told.get("error"))


def _signed(
    app: NodeApp, keys: Keys, nonce: int, *actions: Action, receiver: str = CONTRACT, limited: bool = False, block_hash: bytes | None = None
) -> str:
    key = (keys.function_call_keys if limited else keys.full_access_keys)[0]
    block_hash = block_hash or app.chain.node().final.digest
    fields = {"signer_id": OPERATOR_ID, "nonce": nonce, "receiver_id": CONTRACT, "block_hash": block_hash}
    return base64.b64encode(sign(key=key, actions=list(actions) or [Transfer(1)], **fields)).decode()  # type: ignore[arg-type]


def _hash(signed: str) -> str:
    return decode(base64.b64decode(signed)).hash


def _invalid(reason: Any) -> tuple[int, Any]:
    data = {"TxExecutionError": {"InvalidTxError": reason}}
    cause = {"info": {}, "name": "INVALID_TRANSACTION"}
    return 200, {"name": "HANDLER_ERROR", "cause": cause, "code": -32000, "message": "Server error", "data": data}


def test_send_tx_with_none_validates_nothing_and_answers_at_once(node: Any, node_app: NodeApp, keys: Keys) -> None:
    rubbish = _signed(node_app, keys, 10**18, block_hash=bytes(32))
    assert _rpc(node, "send_tx", {"signed_tx_base64": rubbish, "wait_until": "NONE"}) == (200, {"final_execution_status": "NONE"})
    assert _rpc(node, "broadcast_tx_async", [rubbish]) == (200, _hash(rubbish))


def test_bytes_that_are_no_transaction_are_a_parse_error(node: Any, node_app: NodeApp, keys: Keys) -> None:
    signed = base64.b64decode(_signed(node_app, keys, 1)) + b"\0"
    for text in (base64.b64encode(signed).decode(), "AAAA", "not base64!"):
        status, error = _rpc(node, "send_tx", {"signed_tx_base64": text, "wait_until": "NONE"})
        assert (status, error["name"], error["cause"]["name"], error["code"]) == (400, "REQUEST_VALIDATION_ERROR", "PARSE_ERROR", -32700)


def test_a_waiting_send_refuses_what_is_invalid_with_status_200(node: Any, node_app: NodeApp, keys: Keys) -> None:
    expired = _signed(node_app, keys, 5, block_hash=bytes(32))
    assert _rpc(node, "send_tx", {"signed_tx_base64": expired, "wait_until": "INCLUDED"}) == _invalid("Expired")
    nonce_used = _signed(node_app, keys, 0)
    assert _rpc(node, "send_tx", {"signed_tx_base64": nonce_used}) == _invalid({"InvalidNonce": {"tx_nonce": 0, "ak_nonce": 0}})


def test_tx_with_bytes_checks_an_unseen_transaction_and_by_hash_does_not(node: Any, node_app: NodeApp, keys: Keys) -> None:
    bad, good = _signed(node_app, keys, 0), _signed(node_app, keys, 9)
    assert _rpc(node, "tx", {"signed_tx_base64": bad, "wait_until": "NONE"}) == _invalid({"InvalidNonce": {"tx_nonce": 0, "ak_nonce": 0}})
    for params, transaction_hash in (
        ({"tx_hash": _hash(bad), "sender_account_id": OPERATOR_ID, "wait_until": "NONE"}, _hash(bad)),
        ({"signed_tx_base64": good, "wait_until": "NONE"}, _hash(good)),
        ([_hash(bad), OPERATOR_ID], _hash(bad)),
    ):
        cause = {"info": {"requested_transaction_hash": transaction_hash}, "name": "UNKNOWN_TRANSACTION"}
        data = f"Transaction {transaction_hash} doesn't exist"
        error = {"name": "HANDLER_ERROR", "cause": cause, "code": -32000, "message": "Server error", "data": data}
        assert _rpc(node, "tx", params) == (200, error)
    assert node_app.chain.pool == {}, "a check is only a check"


def test_a_wait_that_takes_too_long_is_a_408(node: Any, node_app: NodeApp, keys: Keys) -> None:
    signed = _signed(node_app, keys, 1)
    _rpc(node, "send_tx", {"signed_tx_base64": signed, "wait_until": "NONE"})
    node("POST", "/control/produce")
    status, error = _rpc(node, "tx", {"tx_hash": _hash(signed), "sender_account_id": OPERATOR_ID, "wait_until": "FINAL"})
    assert (status, error["cause"]["name"]) == (408, "TIMEOUT_ERROR")


def test_the_levels_of_a_transaction_over_http(node: Any, node_app: NodeApp, keys: Keys) -> None:
    signed = _signed(node_app, keys, 1)
    _rpc(node, "send_tx", {"signed_tx_base64": signed, "wait_until": "NONE"})
    seen = []
    for _ in range(4):
        node("POST", "/control/produce")
        status, told = _rpc(node, "tx", {"tx_hash": _hash(signed), "sender_account_id": OPERATOR_ID, "wait_until": "NONE"})
        assert status == 200
        seen.append((told["final_execution_status"], told["status"]))
    assert [level for level, _ in seen] == ["INCLUDED", "EXECUTED_OPTIMISTIC", "EXECUTED", "FINAL"]
    assert (seen[0][1], seen[-1][1]) == ("Started", {"SuccessValue": ""})
    assert told["transaction"]["hash"] == told["transaction_outcome"]["id"] == _hash(signed)
    assert told["transaction_outcome"]["outcome"]["receipt_ids"] == [told["receipts_outcome"][0]["id"]]
    status, more = _rpc(node, "EXPERIMENTAL_tx_status", {"tx_hash": _hash(signed), "sender_account_id": OPERATOR_ID})
    assert more["receipts"][0]["receipt_id"] == told["receipts_outcome"][0]["id"]


def test_access_keys_are_told_as_of_the_block_and_a_missing_one_is_a_result(node: Any, node_app: NodeApp, keys: Keys) -> None:
    text = keys.function_call_keys[0].public_text
    ask = {"request_type": "view_access_key", "finality": "final", "account_id": OPERATOR_ID, "public_key": text}
    permission = {"FunctionCall": {"allowance": None, "receiver_id": CONTRACT, "method_names": ["resolve_execution"]}}
    final = node_app.chain.node().final
    assert _rpc(node, "query", ask) == (200, {"nonce": 0, "permission": permission, "block_height": final.height, "block_hash": final.hash})
    call = FunctionCall("resolve_execution", b"{}", 10**13, 0)
    _rpc(node, "send_tx", {"signed_tx_base64": _signed(node_app, keys, 44, call, limited=True), "wait_until": "NONE"})
    node("POST", "/control/produce")
    assert _rpc(node, "query", ask)[1]["nonce"] == 0
    assert _rpc(node, "query", {**ask, "finality": "optimistic"})[1]["nonce"] == 44
    missing = _rpc(node, "query", {**ask, "public_key": keys.client_key.public_text})
    assert missing[0] == 200
    assert missing[1]["error"] == f"access key {keys.client_key.public_text} does not exist while viewing"


def test_views_of_the_contract(node: Any) -> None:
    def view(method: str, **arguments: Any) -> Any:
        encoded = base64.b64encode(json.dumps(arguments).encode()).decode()
        ask = {"request_type": "call_function", "finality": "final", "account_id": CONTRACT, "method_name": method, "args_base64": encoded}
        return _rpc(node, "query", ask)[1]

    assert json.loads(bytes(view("get_config")["result"])) == ["owner.devnet", OPERATOR_ID]
    assert bytes(view("is_paused")["result"]) == b"false"
    assert json.loads(bytes(view("get_pricing")["result"])) == [str(10**22), str(10**15), str(10**20), str(10**21)]
    assert bytes(view("get_stats")["result"]) == b'[0,"0"]'
    assert bytes(view("get_request", request_id=3)["result"]) == b"null"
    assert view("no_such")["error"] == "wasm execution failed with error: MethodResolveError(MethodNotFound)"


def test_blocks_and_heights(node: Any, node_app: NodeApp) -> None:
    node("POST", "/control/produce", {"skip": 2})
    head, final = node_app.chain.head, node_app.chain.node().final
    assert _rpc(node, "block", {"finality": "final"})[1]["header"]["hash"] == final.hash
    by_height = _rpc(node, "block", {"block_id": head.height})[1]["header"]
    assert (by_height["hash"], by_height["prev_height"]) == (head.hash, head.height - 3)
    assert _rpc(node, "block", {"block_id": head.hash})[1]["header"]["height"] == head.height
    for height in (head.height - 1, head.height + 1):
        status, error = _rpc(node, "block", {"block_id": height})
        assert (status, error["cause"]["name"]) == (422, "UNKNOWN_BLOCK")
    assert _rpc(node, "status", [])[1]["sync_info"]["latest_block_height"] == head.height
    assert _rpc(node, "gas_price", [None])[1] == {"gas_price": "100000000"}
    config = _rpc(node, "EXPERIMENTAL_protocol_config", {"finality": "final"})[1]
    limits = config["runtime_config"]["wasm_config"]["limit_config"]
    assert config["transaction_validity_period"] == 86_400
    assert (limits["max_total_prepaid_gas"], limits["max_yield_payload_size"], limits["yield_timeout_length_in_blocks"]) == (
        10**15,
        1024,
        200,
    )
    status, error = _rpc(node, "no_such_method", {})
    assert (status, error["cause"]) == (400, {"info": {"method_name": "no_such_method"}, "name": "METHOD_NOT_FOUND"})
    account = _rpc(node, "query", {"request_type": "view_account", "finality": "final", "account_id": "nobody"})
    assert (account[0], account[1]["cause"]["name"]) == (200, "UNKNOWN_ACCOUNT")


def test_the_block_service_tells_skipped_missing_and_wrong_heights_apart(node: Any, node_app: NodeApp) -> None:
    node("POST", "/control/produce", {"skip": 2, "blocks": 3})
    final = node_app.chain.node().final
    skipped = node("GET", f"/v0/block/{final.height - 1}")
    assert (skipped.status, skipped.data) == (200, b"null")
    block = node("GET", f"/v0/block/{final.height}").json()
    assert (block["block"]["header"]["hash"], block["block"]["header"]["prev_hash"]) == (final.hash, final.prev_hash)
    last = node("GET", "/v0/last_block/final?apiKey=k")
    assert (last.status, last.headers["location"]) == (302, f"/v0/block/{final.height}?apiKey=k")
    assert node("GET", "/status").json()["sync_block_height"] == final.height
    node("POST", "/control/chain", {"long_poll": False, "archive_below": final.height})
    ahead = node("GET", f"/v0/block/{final.height + 1}")
    assert (ahead.status, ahead.json()["type"]) == (404, "BLOCK_DOES_NOT_EXIST")
    assert node("GET", "/v0/block/1").json()["type"] == "BLOCK_HEIGHT_TOO_LOW"
    assert node("GET", "/v0/block/99999999999").json()["type"] == "BLOCK_HEIGHT_TOO_HIGH"
    archived = node("GET", f"/v0/block/{final.prev_height}")
    assert archived.status == 302
    assert node("GET", archived.headers["location"]).json()["block"]["header"]["height"] == final.prev_height


def test_the_block_service_has_faults_of_its_own_and_keeps_to_a_ration(node: Any, node_app: NodeApp) -> None:
    final = f"/v0/block/{node_app.chain.node().final.height}"
    node("POST", "/control/faults", {"kind": "status", "path": "/v0/block", "status": 500})
    assert [node("GET", final).status for _ in range(2)] == [500, 200]
    node("POST", "/control/chain", {"service_requests_per_minute": 3})
    answers = [node("GET", final) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert node("GET", "/status").status == 200


def test_the_block_service_waits_for_a_block_that_is_near(node: Any, node_app: NodeApp) -> None:
    wanted = node_app.chain.node().final.height + 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(node, "GET", f"/v0/block/{wanted}")
        while not node("GET", "/control/requests?path=/v0/").json():
            pass
        assert not waiting.done()
        node("POST", "/control/produce")
        assert waiting.result().json()["block"]["header"]["height"] == wanted


def test_a_request_shows_in_its_block_and_in_the_fault_of_its_receipt_too(node: Any, node_app: NodeApp) -> None:
    asked = node("POST", "/control/executions", {"repo": "o/n", "commit": "main", "input_data": "x"}).json()
    poor = node("POST", "/control/executions", {"repo": "o/n", "commit": "main", "deposit_yocto": 5}).json()
    node("POST", "/control/produce", {"blocks": 4})
    found = {}
    for height in range(node_app.chain.node().final.height - 3, node_app.chain.node().final.height + 1):
        for shard in (node("GET", f"/v0/block/{height}").json() or {"shards": []})["shards"]:
            found |= {one["tx_hash"]: one for one in shard["receipt_execution_outcomes"]}
    good, failed = found[asked["transaction_hash"]], found[poor["transaction_hash"]]
    assert good["receipt"]["receiver_id"] == CONTRACT
    assert good["receipt"]["receipt_id"] == good["execution_outcome"]["id"]
    assert good["execution_outcome"]["outcome"]["logs"][0].startswith('EVENT_JSON:{"standard":"near-offshore"')
    assert "Failure" in failed["execution_outcome"]["outcome"]["status"]


def test_faults_of_the_rpc(node: Any, node_app: NodeApp, keys: Keys) -> None:
    signed = _signed(node_app, keys, 1)
    send = {"signed_tx_base64": signed, "wait_until": "NONE"}
    ask = {"tx_hash": _hash(signed), "sender_account_id": OPERATOR_ID, "wait_until": "NONE"}
    node("POST", "/control/faults", {"kind": "drop_after", "rpc_method": "send_tx"})
    with pytest.raises(urllib3.exceptions.ProtocolError):
        _rpc(node, "send_tx", send)
    assert list(node_app.chain.pool) == [_hash(signed)], "accepted, although the reply was dropped"
    node("POST", "/control/produce")
    node("POST", "/control/faults", {"kind": "unknown", "rpc_method": "tx", "times": 2})
    node(
        "POST",
        "/control/faults",
        {"kind": "status", "rpc_method": "tx", "status": 429, "body": "slow down", "headers": {"Retry-After": "3"}},
    )
    assert [_rpc(node, "tx", ask)[1]["cause"]["name"] for _ in range(2)] == ["UNKNOWN_TRANSACTION"] * 2
    limited = node("POST", "/", {"jsonrpc": "2.0", "id": 1, "method": "tx", "params": ask})
    assert (limited.status, limited.data, limited.headers["retry-after"]) == (429, b"slow down", "3")
    assert _rpc(node, "tx", ask)[1]["final_execution_status"] == "INCLUDED"
    node("POST", "/control/forget", {"hash": _hash(signed)})
    assert _rpc(node, "tx", ask)[1]["cause"]["name"] == "UNKNOWN_TRANSACTION"


def test_the_second_node_lags(node: Any, node_app: NodeApp, keys: Keys) -> None:
    node("POST", "/control/chain", {"lag_blocks": {"lagging": 3}})
    signed = _signed(node_app, keys, 1)
    _rpc(node, "send_tx", {"signed_tx_base64": signed, "wait_until": "NONE"}, "/lagging")
    node("POST", "/control/produce", {"blocks": 2})
    ask = {"tx_hash": _hash(signed), "sender_account_id": OPERATOR_ID, "wait_until": "NONE"}
    assert _rpc(node, "tx", ask, "/lagging")[1]["cause"]["name"] == "UNKNOWN_TRANSACTION"
    assert _rpc(node, "tx", ask)[1]["final_execution_status"] == "EXECUTED_OPTIMISTIC"
    newest = _signed(node_app, keys, 2, block_hash=node_app.chain.head.digest)
    assert _rpc(node, "tx", {"signed_tx_base64": newest, "wait_until": "NONE"}, "/lagging") == _invalid("Expired")
    node("POST", "/control/produce", {"blocks": 2})
    assert _rpc(node, "tx", ask, "/lagging") == (200, {"final_execution_status": "INCLUDED"})
    node("POST", "/control/produce", {"blocks": 3})
    assert _rpc(node, "tx", ask, "/lagging")[1]["status"] == {"SuccessValue": ""}


def test_switches_that_do_not_exist_are_refused(node: Any) -> None:
    assert node("POST", "/control/chain", {"no_such": 1}).status == 422
    assert node("POST", "/control/contract", {"no_such": 1}).status == 422
    assert node("POST", "/control/executions", {}).status == 422
    assert node("GET", "/control/executions/5").status == 404
    assert node("GET", "/").status == 405


def test_the_client_asks_and_gets_what_the_callback_got(live: DevnetClient, keys: Keys) -> None:
    asked = live.request_execution("o/n", "main", "wasm32-wasip1", "in", Limits(max_memory_mb=64))
    assert (asked.request_id, len(asked.data_id)) == (0, 64)
    with pytest.raises(Unavailable):
        live.result(asked.request_id, timeout_seconds=0.05)
    used = {"instructions": 2_000_000, "memory_bytes": 0, "time_seconds": 0}
    response = {"success": True, "return_value": list(b"out"), "error": None, "resources_used": used}
    call = FunctionCall(
        "resolve_execution", json.dumps({"data_id": list(bytes.fromhex(asked.data_id)), "response": response}).encode(), 3 * 10**13, 0
    )
    import base58

    head = live.rpc("block", {"finality": "final"})["header"]["hash"]
    fields = {"signer_id": OPERATOR_ID, "nonce": 1, "receiver_id": CONTRACT, "block_hash": base58.b58decode(head)}
    signed = sign(key=keys.function_call_keys[0], actions=[call], **fields)
    sent = live.rpc("send_tx", {"signed_tx_base64": base64.b64encode(signed).decode(), "wait_until": "EXECUTED"})
    assert sent["status"] == {"SuccessValue": ""}
    got = live.result(asked.request_id, timeout_seconds=20)
    assert (got.state, got.value, got.response, got.resolved_by) == ("succeeded", "out", response, sent["transaction"]["hash"])
    assert (got.charged_yocto, got.charged_yocto + got.refund_yocto) == (10**22 + 2 * 10**15, 10**24)
    assert [one["accepted"] for one in live.resolves()] == [True]
    final = live.rpc("tx", {"tx_hash": asked.transaction_hash, "sender_account_id": CLIENT_ID, "wait_until": "FINAL"})
    assert base64.b64decode(final["status"]["SuccessValue"]) == b'"out"'


def test_the_client_tells_why_a_request_was_refused(live: DevnetClient) -> None:
    with pytest.raises(Refused, match="Insufficient payment"):
        live.request_execution("o/n", "main", "wasm32-wasip1", "in", deposit_yocto=1)
