"""Every reply of the local chain's RPC by the models of near-jsonrpc-client, which were made from the node's own OpenAPI.

Two shapes of real nodes are not in those models, and are tested by name: a missing key or a panic is a *result* with an
``error``, and an answer to NONE has a level and nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import near_jsonrpc_models as models
import pytest
from near_jsonrpc_client import NearClientSync, RpcClientError, RpcError

from offchainvm.devnet.borsh import FunctionCall, decode
from offchainvm.devnet.genesis import CLIENT_ID, OPERATOR_ID
from tests.support.strangers import REQUEST, Chain, answer, requested

QUERY, BLOCK, TRANSACTION = (
    "RpcQueryResponseAndRpcQueryError",
    "RpcBlockResponseAndRpcBlockError",
    "RpcTransactionResponseAndRpcTransactionError",
)
CONFIG, HASH = "RpcProtocolConfigResponseAndRpcProtocolConfigError", "CryptoHashAndRpcTransactionError"
STATUS, GAS_PRICE = "RpcStatusResponseAndRpcStatusError", "RpcGasPriceResponseAndRpcGasPriceError"


def valid(reply: dict[str, Any], model: str) -> Any:
    """The parsed ``result`` or ``error``.

    Raises:
        pydantic.ValidationError: the reply is not as a node's.
    """
    parsed = getattr(models, f"JsonRpcResponseFor{model}").model_validate(reply).root
    return parsed.result if hasattr(parsed, "result") else parsed.error


def hash_of(signed: str) -> str:
    return decode(base64.b64decode(signed)).hash


def account(account_id: str) -> dict[str, Any]:
    return {"request_type": "view_account", "finality": "final", "account_id": account_id}


def access_key(public_key: str) -> dict[str, Any]:
    return {"request_type": "view_access_key", "finality": "optimistic", "account_id": OPERATOR_ID, "public_key": public_key}


def view(chain: Chain, method: str, account_id: str = "") -> dict[str, Any]:
    called = {"account_id": account_id or chain.contract_id, "method_name": method, "args_base64": ""}
    return {"request_type": "call_function", "finality": "final", **called}


Case = tuple[str, Callable[[Chain], Any], str]
RESULTS: list[Case] = [
    ("query", lambda _: account(OPERATOR_ID), QUERY),
    ("query", lambda chain: access_key(chain.keys.function_call_keys[0].public_text), QUERY),
    ("query", lambda chain: access_key(chain.keys.full_access_keys[0].public_text), QUERY),
    ("query", lambda _: {**account(OPERATOR_ID), "request_type": "view_access_key_list"}, QUERY),
    ("query", lambda chain: view(chain, "get_config"), QUERY),
    ("block", lambda _: {"finality": "final"}, BLOCK),
    ("block", lambda _: {"finality": "near-final"}, BLOCK),
    ("block", lambda _: {"block_id": 1002}, BLOCK),
    ("block", lambda chain: {"block_id": chain.rpc("block", {"block_id": 1002})["result"]["header"]["hash"]}, BLOCK),
    ("status", lambda _: [], STATUS),
    ("gas_price", lambda _: [None], GAS_PRICE),
    ("EXPERIMENTAL_protocol_config", lambda _: {"finality": "final"}, CONFIG),
    ("health", lambda _: [], "NullableRpcHealthResponseAndRpcStatusError"),
    ("network_info", lambda _: [], "RpcNetworkInfoResponseAndRpcNetworkInfoError"),
    ("broadcast_tx_async", lambda chain: [chain.signed()], HASH),
    ("broadcast_tx_commit", lambda chain: [chain.signed()], TRANSACTION),
    *[
        ("send_tx", lambda chain, level=level: {"signed_tx_base64": chain.signed(), "wait_until": level}, TRANSACTION)
        for level in ("INCLUDED", "EXECUTED_OPTIMISTIC", "INCLUDED_FINAL", "EXECUTED", "FINAL")
    ],
]
ERRORS: list[tuple[str, Callable[[Chain], Any], str, str]] = [
    ("query", lambda _: account("nobody.devnet"), QUERY, "UNKNOWN_ACCOUNT"),
    ("query", lambda chain: view(chain, "get_config", "nobody.devnet"), QUERY, "UNKNOWN_ACCOUNT"),
    ("query", lambda _: {**account(OPERATOR_ID), "block_id": 1}, QUERY, "UNKNOWN_BLOCK"),
    ("block", lambda _: {"block_id": 10**9}, BLOCK, "UNKNOWN_BLOCK"),
    ("block", lambda _: {"finality": "sometime"}, BLOCK, "PARSE_ERROR"),
    ("tx", lambda _: {"tx_hash": "1" * 32, "sender_account_id": CLIENT_ID, "wait_until": "NONE"}, TRANSACTION, "UNKNOWN_TRANSACTION"),
    ("tx", lambda _: {"tx_hash": "not a hash", "sender_account_id": CLIENT_ID}, TRANSACTION, "PARSE_ERROR"),
    ("tx", lambda chain: {"signed_tx_base64": chain.signed(nonce=0), "wait_until": "NONE"}, TRANSACTION, "INVALID_TRANSACTION"),
    ("send_tx", lambda chain: {"signed_tx_base64": chain.signed(nonce=0)}, TRANSACTION, "INVALID_TRANSACTION"),
    ("send_tx", lambda chain: {"signed_tx_base64": chain.signed(block_hash=bytes(32))}, TRANSACTION, "INVALID_TRANSACTION"),
    ("send_tx", lambda _: {"signed_tx_base64": "AAAA"}, TRANSACTION, "PARSE_ERROR"),
    ("broadcast_tx_commit", lambda chain: [chain.signed(nonce=0)], TRANSACTION, "INVALID_TRANSACTION"),
    ("no_such_method", lambda _: [], TRANSACTION, "METHOD_NOT_FOUND"),
]


@pytest.mark.parametrize(("method", "parameters", "model"), RESULTS)
def test_results_are_as_the_models_say(chain: Chain, method: str, parameters: Callable[[Chain], Any], model: str) -> None:
    reply = chain.rpc(method, parameters(chain))
    assert "result" in reply
    valid(reply, model)


@pytest.mark.parametrize(("method", "parameters", "model", "cause"), ERRORS)
def test_errors_are_as_the_models_say(chain: Chain, method: str, parameters: Callable[[Chain], Any], model: str, cause: str) -> None:
    error = valid(chain.rpc(method, parameters(chain)), model)
    told = error.root.cause
    assert getattr(told, "root", told).name == cause


def test_what_became_of_a_transaction_is_as_the_models_say_while_it_waits_for_its_callback(chain: Chain) -> None:
    asked = chain.client.request_execution("https://github.com/a/b", "c" * 40, "wasm32-wasip1", REQUEST["input_data"])
    ask = {"tx_hash": asked.transaction_hash, "sender_account_id": CLIENT_ID, "wait_until": "INCLUDED_FINAL"}
    assert valid(chain.rpc("tx", ask), TRANSACTION).root.final_execution_status.root == "INCLUDED_FINAL"
    with_receipts = valid(chain.rpc("EXPERIMENTAL_tx_status", ask), TRANSACTION).root
    assert {receipt.receiver_id.root for receipt in with_receipts.receipts} == {chain.contract_id}
    waited_too_long = valid(chain.rpc("tx", {**ask, "wait_until": "FINAL"}), TRANSACTION).root.cause.root
    assert (waited_too_long.name, waited_too_long.info.root.cause) == ("TIMEOUT_ERROR", "PENDING")


def test_what_the_models_have_no_place_for_is_as_nodes_answer_it(chain: Chain) -> None:
    assert chain.rpc("send_tx", {"signed_tx_base64": chain.signed(), "wait_until": "NONE"})["result"] == {"final_execution_status": "NONE"}
    missing = chain.rpc("query", access_key(chain.keys.outsider_key.public_text))["result"]
    assert (set(missing), missing["logs"]) == ({"error", "logs", "block_height", "block_hash"}, [])
    assert "MethodNotFound" in chain.rpc("query", view(chain, "no_such_method"))["result"]["error"]


@pytest.fixture
def client(chain: Chain) -> Iterator[NearClientSync]:
    client = NearClientSync(rpc_urls=chain.url)
    yield client
    client.close()


def test_its_own_client_carries_a_request_and_its_answer(client: NearClientSync, chain: Chain) -> None:
    def send(method: str, arguments: dict[str, Any], gas: int, deposit: int, **signer: Any) -> Any:
        call = FunctionCall(method, json.dumps(arguments).encode(), gas, deposit)
        signed = chain.signed(call, receiver_id=chain.contract_id, **signer)
        params = models.RpcSendTransactionRequest.model_validate({"signed_tx_base64": signed, "wait_until": "INCLUDED_FINAL"})
        sent = client.send_tx(params=params).root
        assert sent.transaction.hash.root == hash_of(signed)
        return sent

    asked = send("request_execution", REQUEST, 300 * 10**12, 10**24)
    request_id, data_id = requested([log for one in asked.receipts_outcome for log in one.outcome.logs])
    operator = {"signer_id": OPERATOR_ID, "key": chain.keys.function_call_keys[0]}
    send("resolve_execution", answer(data_id, "42"), 30 * 10**12, 0, **operator)
    assert chain.value_of(request_id) == "42"
    again = send("resolve_execution", answer(data_id, "43"), 30 * 10**12, 0, **operator)
    assert "Unable to resume execution promise" in repr(again.status)


def test_its_own_client_reads_and_tells_what_went_wrong(client: NearClientSync, chain: Chain) -> None:
    assert client.status().chain_id == "devnet"
    with pytest.raises(RpcError) as refused:
        client.send_tx(params=models.RpcSendTransactionRequest(signed_tx_base64=chain.signed(nonce=0)))
    assert "INVALID_TRANSACTION" in repr(refused.value.error)  # the reason is in `data`, which its models leave out
    missing = models.RpcQueryRequest.model_validate(access_key(chain.keys.outsider_key.public_text))
    with pytest.raises(RpcClientError, match="does not exist while viewing"):
        client.query(params=missing)
