"""The whole room on the local chain: an event is read, its answer signed, sent, watched and settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from offchainvm.devnet import serve
from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.genesis import OPERATOR_ID, Keys, genesis
from offchainvm.devnet.node import NodeApp
from offchainvm.models import RESOLVE_METHOD, ExecutionResponse, ResourcesUsed
from offchainvm.near.blocks import Block, BlockService, NoBlock
from offchainvm.near.events import requests_in
from offchainvm.near.heights import HeightService
from offchainvm.near.nonces import Nonces
from offchainvm.near.outcome import ActionVerdict, TransactionOutcome, TransactionState, look_up
from offchainvm.near.payload import fit
from offchainvm.near.rpc import Rpc
from offchainvm.near.rpc_answers import Refusal
from offchainvm.near.signer import OperatorKey
from offchainvm.near.transaction import SignedTransaction

T = TypeVar("T")


def until(ask: Callable[[], T | None]) -> T:
    """What ``ask`` gives, once it gives something; the deadline only ends a test that would hang."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (found := ask()) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing came within 30 s")


class Operator:
    """One operator's key and what it signs and watches with."""

    def __init__(self, rpc: Rpc, nonces: Nonces, key: OperatorKey, contract_id: str) -> None:
        self.rpc, self.nonces, self.key, self.contract_id = rpc, nonces, key, contract_id

    def sign(self, *arguments: bytes, gas: int = 30 * 10**12) -> SignedTransaction:
        block = self.rpc.final_block()
        on_chain = self.rpc.access_key(OPERATOR_ID, self.key.public_key)
        assert on_chain is not None
        with self.nonces.lock(self.key.public_key) as lease:
            nonce = self.nonces.next(lease, floor=on_chain.nonce, final_height=block.height)
        return self.key.sign_resolves(arguments, operator_id=OPERATOR_ID, contract_id=self.contract_id, nonce=nonce, block=block, gas=gas)

    def look(self, transaction: SignedTransaction, actions: int = 1) -> TransactionOutcome:
        return look_up(self.rpc, transaction.hash, sender_id=OPERATOR_ID, actions=actions)

    def settled(self, transaction: SignedTransaction, actions: int = 1) -> TransactionOutcome:
        return until(lambda: outcome if (outcome := self.look(transaction, actions)).final else None)


@pytest.fixture
def keys() -> Keys:
    return Keys.generate(function_call=1, full_access=1)


@pytest.fixture
def chain_url(keys: Keys) -> Iterator[str]:
    with serve.in_thread(NodeApp(genesis(keys), keys, block_time_seconds=0.05)) as url:
        yield url


@pytest.fixture
def client(chain_url: str, keys: Keys) -> Iterator[DevnetClient]:
    client = DevnetClient(chain_url, keys)
    yield client
    client.close()


@pytest.fixture
def operators(chain_url: str, keys: Keys, redis_client: Any) -> tuple[Operator, Operator]:
    """One with a function-call key, one with a full-access key."""
    rpc = Rpc([chain_url])
    nonces = Nonces(redis_client, network=rpc.chain_id(), account_id=OPERATOR_ID)
    secrets = (keys.function_call_keys[0].secret_text, keys.full_access_keys[0].secret_text)
    narrow, full = (Operator(rpc, nonces, OperatorKey(SecretStr(secret)), keys.contract_id) for secret in secrets)
    return narrow, full


def answer(data_id: str, output: bytes = b"42") -> bytes:
    used = ResourcesUsed(instructions=1_000_000, memory_bytes=1 << 20, time_seconds=1)
    return fit(data_id, ExecutionResponse(success=True, return_value=output, resources_used=used)).arguments


def ask(client: DevnetClient) -> Any:
    return client.request_execution("owner/name", "main", "wasm32-wasip1", '{"n":1}')


def test_request_is_read_from_its_block_and_its_answer_reaches_the_callback(
    chain_url: str, client: DevnetClient, operators: tuple[Operator, Operator], keys: Keys
) -> None:
    operator, asked = operators[0], ask(client)
    blocks = BlockService(f"{chain_url}/v0/block")

    def found_at(height: int) -> Block:
        block = until(lambda: None if (got := blocks.block(height)) is NoBlock.NOT_YET else got)
        assert isinstance(block, Block)
        return block

    events = requests_in(found_at(asked.height), keys.contract_id, "near-offshore")
    assert [(event.data_id, event.request.request_id, event.request.input_data) for event in events.requests] == [
        (asked.data_id, asked.request_id, '{"n":1}')
    ]
    sent = operator.sign(answer(asked.data_id))
    operator.rpc.send_tx(sent.signed)
    assert operator.settled(sent).verdicts == (ActionVerdict.ACCEPTED,)
    result = client.result(asked.request_id)
    assert (result.state, result.value) == ("succeeded", "42")
    assert result.resolved_by == sent.hash


def test_answer_of_the_largest_size_is_taken_by_the_contract(client: DevnetClient, operators: tuple[Operator, Operator]) -> None:
    asked = ask(client)
    output = "x" * 222
    sent = operators[0].sign(answer(asked.data_id, output.encode()))
    operators[0].rpc.send_tx(sent.signed)
    assert operators[0].settled(sent).state is TransactionState.SUCCEEDED
    assert client.result(asked.request_id).value == output


def test_second_answer_to_a_settled_request_is_unable_to_resume(client: DevnetClient, operators: tuple[Operator, Operator]) -> None:
    operator, asked = operators[0], ask(client)
    for verdict in (ActionVerdict.ACCEPTED, ActionVerdict.UNABLE_TO_RESUME):
        sent = operator.sign(answer(asked.data_id))
        operator.rpc.send_tx(sent.signed)
        assert operator.settled(sent).verdicts == (verdict,)


def test_batch_of_a_full_access_key_is_all_or_nothing_and_blames_its_offender(
    client: DevnetClient, operators: tuple[Operator, Operator]
) -> None:
    full, asked = operators[1], [ask(client) for _ in range(2)]
    stranger = "ee" * 32
    texts = [answer(data_id) for data_id in (asked[0].data_id, stranger, asked[1].data_id)]
    failed = full.sign(*texts)
    full.rpc.send_tx(failed.signed)
    nothing = ActionVerdict.NOT_APPLIED
    assert full.settled(failed, 3).verdicts == (nothing, ActionVerdict.UNABLE_TO_RESUME, nothing)
    again = full.sign(texts[0], texts[2])
    full.rpc.send_tx(again.signed)
    assert full.settled(again, 2).verdicts == (ActionVerdict.ACCEPTED,) * 2
    assert {client.result(item.request_id).resolved_by for item in asked} == {again.hash}


def test_same_bytes_sent_many_times_resolve_once(client: DevnetClient, operators: tuple[Operator, Operator]) -> None:
    operator, asked = operators[0], ask(client)
    sent = operator.sign(answer(asked.data_id))
    for _ in range(5):
        operator.rpc.send_tx(sent.signed)
    assert operator.settled(sent).state is TransactionState.SUCCEEDED
    assert len(client.resolves()) == 1


def test_unseen_transaction_is_checked_by_its_bytes_and_not_sent(client: DevnetClient, operators: tuple[Operator, Operator]) -> None:
    narrow, full = operators
    asked = ask(client)
    unseen = narrow.sign(answer(asked.data_id))
    assert narrow.look(unseen).state is TransactionState.UNKNOWN
    checked = look_up(narrow.rpc, unseen.signed, sender_id=OPERATOR_ID, actions=1)
    assert checked.state is TransactionState.UNKNOWN
    two = narrow.sign(answer(asked.data_id), answer(asked.data_id))
    refused = look_up(narrow.rpc, two.signed, sender_id=OPERATOR_ID, actions=2)
    assert refused.reason is not None
    assert (refused.reason.name, refused.reason.refusal) == ("RequiresFullAccess", Refusal.FOR_GOOD)
    later = narrow.sign(answer(asked.data_id))
    narrow.rpc.send_tx(later.signed)
    assert narrow.settled(later).state is TransactionState.SUCCEEDED
    dead = look_up(narrow.rpc, unseen.signed, sender_id=OPERATOR_ID, actions=1)
    assert dead.reason is not None
    assert (dead.reason.name, dead.reason.ak_nonce) == ("InvalidNonce", later.nonce)
    assert [item["transaction_hash"] for item in client.resolves()] == [later.hash]
    assert full.rpc.endpoint == narrow.rpc.endpoint


def test_contract_that_knows_another_operator_refuses_by_name(client: DevnetClient, operators: tuple[Operator, Operator]) -> None:
    operator, asked = operators[0], ask(client)
    client.control("contract", {"operator_id": "somebody.devnet"})
    sent = operator.sign(answer(asked.data_id))
    operator.rpc.send_tx(sent.signed)
    outcome = operator.settled(sent)
    assert outcome.verdicts == (ActionVerdict.ONLY_OPERATOR,)
    assert outcome.verdicts[0].alert


def test_keys_limits_and_heights_are_as_the_chain_says(chain_url: str, operators: tuple[Operator, Operator], keys: Keys) -> None:
    rpc = operators[0].rpc
    narrow, full = (rpc.access_key(OPERATOR_ID, operator.key.public_key) for operator in operators)
    assert narrow is not None
    assert full is not None
    assert (narrow.full_access, full.full_access) == (False, True)
    assert narrow.may_call(keys.contract_id, RESOLVE_METHOD)
    assert rpc.access_key(OPERATOR_ID, "ed25519:11111111111111111111111111111111") is None
    both = [operator.key.public_key for operator in operators]
    nonces = rpc.key_nonces(OPERATOR_ID, both)
    assert set(nonces) == set(both)
    assert nonces == {key: rpc.key_nonces(OPERATOR_ID, [key])[key] for key in both}
    assert rpc.key_nonces(OPERATOR_ID, ["ed25519:11111111111111111111111111111111"]) == {}
    limits = rpc.protocol_config()
    assert (limits.max_resume_bytes, limits.max_actions, limits.transaction_validity_blocks) == (1024, 100, 86_400)
    assert limits.resolves_per_transaction(10, gas=30 * 10**12) == 10
    assert int(rpc.view_account(OPERATOR_ID)["amount"]) > 0
    height = HeightService(f"{chain_url}/status").newest_height()
    assert height <= BlockService(f"{chain_url}/v0/block").last_final_height() <= rpc.final_block().height
