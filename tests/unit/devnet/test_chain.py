"""The chain takes, refuses, orders and forgets transactions as the real one does (near.md)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from offchainvm.devnet.borsh import AddKey, CreateAccount, DeleteKey, FunctionCall, Permission, Transfer
from offchainvm.devnet.chain import GENESIS_HEIGHT
from offchainvm.devnet.genesis import OPERATOR_ID, Keys
from offchainvm.devnet.keys import KeyPair
from offchainvm.devnet.records import Level

TRANSFER = Transfer(1)


def _level(world: Any, transaction: Any) -> Level:
    return world.record(transaction).level(world.chain.node().final_height)


def test_a_transaction_walks_through_the_levels_block_by_block(world: Any) -> None:
    sent = world.send(TRANSFER)
    assert world.chain.node().record(sent.hash) is None
    levels = []
    for _ in range(4):
        world.blocks(1)
        levels.append(_level(world, sent).name)
    assert levels == ["INCLUDED", "EXECUTED_OPTIMISTIC", "EXECUTED", "FINAL"]


def test_in_instant_mode_all_of_it_is_there_at_once_and_heights_stand_still(instant_world: Any) -> None:
    head = instant_world.chain.head.height
    sent = instant_world.send(TRANSFER)
    assert _level(instant_world, sent) is Level.FINAL
    assert instant_world.chain.head.height == head
    instant_world.blocks(1)
    assert instant_world.chain.by_height[head + 1].transactions == [instant_world.record(sent)]


def test_blocks_form_a_chain_over_skipped_heights(world: Any) -> None:
    before = world.chain.head
    world.chain.produce(skip_heights=3)
    after = world.chain.head
    assert (after.height, after.prev_height, after.prev_hash) == (before.height + 4, before.height, before.hash)
    assert before.height + 1 not in world.chain.by_height
    assert world.chain.node().final.ordinal == after.ordinal - 2


def test_nonces_rise_and_a_higher_one_that_lands_first_kills_the_lower(world: Any) -> None:
    key = world.keys.full_access_keys[0]
    low, high = world.send(TRANSFER, nonce=5), world.send(TRANSFER, nonce=6)
    world.blocks(1)
    assert {low.hash, high.hash} <= set(world.chain.transactions), "one block takes several, in nonce order"
    world.chain.faults.reorder = True
    low, high = world.send(TRANSFER, nonce=7), world.send(TRANSFER, nonce=8)
    world.blocks(1)
    assert low.hash not in world.chain.transactions
    assert high.hash in world.chain.transactions
    assert world.chain.invalid(low) == {"InvalidNonce": {"tx_nonce": 7, "ak_nonce": 8}}
    assert world.chain.ledger.accounts[OPERATOR_ID].keys[key.public_text].nonce == 8


def test_a_nonce_too_large_passes_the_check_and_is_dropped_without_a_word(world: Any) -> None:
    limit = (world.chain.head.height + 1) * 1_000_000
    sent = world.send(TRANSFER, nonce=limit)
    assert world.chain.invalid(sent) is None
    world.blocks(1)
    assert sent.hash not in world.chain.transactions
    assert sent.hash not in world.chain.pool
    fits = world.send(TRANSFER, nonce=limit)
    world.blocks(1)
    assert fits.hash in world.chain.transactions


def test_the_same_bytes_apply_at_most_once(world: Any) -> None:
    sent = world.send(TRANSFER, receiver=OPERATOR_ID)
    world.chain.submit(sent)
    world.blocks(3)
    nonces = world.chain.ledger.accounts[OPERATOR_ID].keys[sent.public_key_text].nonces
    world.chain.submit(sent)
    world.blocks(1)
    assert len(nonces) == 2


def test_what_makes_a_transaction_invalid_is_told_in_the_nodes_words(world: Any) -> None:
    stranger = KeyPair.generate()
    full, limited = world.keys.full_access_keys[0], world.keys.function_call_keys[0]
    call = FunctionCall("resolve_execution", b"{}", 10**12, 0)

    def reason(*actions: Any, **more: Any) -> Any:
        return world.chain.invalid(world.send(*actions, **more))

    assert reason(TRANSFER, block_hash=bytes(32)) == "Expired"
    assert reason(TRANSFER, signer="nobody.devnet") == {"SignerDoesNotExist": {"signer_id": "nobody.devnet"}}
    missing = {"account_id": OPERATOR_ID, "public_key": stranger.public_text}
    assert reason(TRANSFER, key=stranger) == {"InvalidAccessKeyError": {"AccessKeyNotFound": missing}}
    assert reason(call, call, key=limited) == {"InvalidAccessKeyError": "RequiresFullAccess"}
    assert reason(TRANSFER, key=limited) == {"InvalidAccessKeyError": "RequiresFullAccess"}
    assert reason(dataclasses.replace(call, deposit=1), key=limited) == {"InvalidAccessKeyError": "DepositWithFunctionCall"}
    other = {"tx_receiver": OPERATOR_ID, "ak_receiver": world.chain.contract_id}
    assert reason(call, key=limited, receiver=OPERATOR_ID) == {"InvalidAccessKeyError": {"ReceiverMismatch": other}}
    renamed = dataclasses.replace(call, method_name="other")
    assert reason(renamed, key=limited) == {"InvalidAccessKeyError": {"MethodNameMismatch": {"method_name": "other"}}}
    assert "NotEnoughBalance" in reason(Transfer(2**127))
    assert "TotalNumberOfActionsExceeded" in reason(*[TRANSFER] * 101)["ActionsValidation"]
    assert "TotalPrepaidGasExceeded" in reason(dataclasses.replace(call, gas=10**15 + 1))["ActionsValidation"]
    assert reason(dataclasses.replace(call, gas=0)) == {"ActionsValidation": "FunctionCallZeroAttachedGas"}
    assert "TransactionSizeExceeded" in reason(dataclasses.replace(call, args=bytes(1_572_864)))
    sent = world.send(TRANSFER, key=full)
    assert world.chain.invalid(dataclasses.replace(sent, signature=bytes(64))) == "InvalidSignature"


def test_a_block_hash_is_good_for_its_validity_period(world: Any) -> None:
    world.chain.protocol.validity_period_blocks = 5
    sent = world.send(TRANSFER)
    world.chain.pool.clear()
    world.chain.produce(skip_heights=2)
    assert world.chain.invalid(sent) is None
    world.blocks(1)
    assert world.chain.invalid(sent) == "Expired"


def test_an_allowance_is_spent_and_bounds_the_key(world: Any) -> None:
    bounded = KeyPair.generate()
    permission = Permission(world.chain.contract_id, ("resolve_execution",), 4 * 10**21)
    world.send(AddKey(bounded.public_text, permission), receiver=OPERATOR_ID)
    world.blocks(2)
    key = world.chain.ledger.accounts[OPERATOR_ID].keys[bounded.public_text]
    first_nonce = key.nonce + 1
    assert first_nonce > 1_000_000 * (GENESIS_HEIGHT - 1), "a new key starts above every nonce of an earlier one"
    world.send(world.call(world.requested()), key=bounded, nonce=first_nonce)
    world.blocks(2)
    spent = 4 * 10**21 - key.allowance
    assert 0 < spent < 10**21, "unburnt gas comes back to the allowance"
    too_dear = world.send(world.call(bytes(32), gas=100 * 10**12), key=bounded, nonce=first_nonce + 1)
    assert "NotEnoughAllowance" in world.chain.invalid(too_dear)["InvalidAccessKeyError"]


def test_keys_come_and_go_and_older_blocks_remember(world: Any) -> None:
    fresh = KeyPair.generate()
    world.send(AddKey(fresh.public_text, None), receiver=OPERATOR_ID)
    world.blocks(2)
    key = world.chain.ledger.accounts[OPERATOR_ID].keys[fresh.public_text]
    added = world.chain.head.height
    world.send(DeleteKey(fresh.public_text), receiver=OPERATOR_ID)
    world.blocks(2)
    assert [key.exists_at(height) for height in (added - 1, added, world.chain.head.height)] == [False, True, False]
    gone = world.send(TRANSFER, key=fresh, nonce=added * 1_000_000)
    assert "AccessKeyNotFound" in world.chain.invalid(gone)["InvalidAccessKeyError"]
    twice = world.send(DeleteKey(fresh.public_text), receiver=OPERATOR_ID)
    world.blocks(2)
    assert "DeleteKeyDoesNotExist" in world.record(twice).status()["Failure"]["ActionError"]["kind"]


def test_a_failed_transaction_gives_its_deposit_back(world: Any) -> None:
    before = world.chain.ledger.accounts[OPERATOR_ID].balance
    sent = world.send(CreateAccount(), Transfer(10**24), receiver="new.devnet")
    failing = world.send(Transfer(10**24), CreateAccount())
    world.blocks(2)
    assert world.chain.ledger.accounts["new.devnet"].balance == 10**24
    assert world.record(failing).status()["Failure"]["ActionError"]["index"] == 1
    burnt = sum(one.outcome.tokens_burnt + one.outcomes[0].tokens_burnt for one in map(world.record, (sent, failing)))
    assert before - world.chain.ledger.accounts[OPERATOR_ID].balance == 10**24 + burnt


def test_a_node_that_lags_knows_neither_the_newest_blocks_nor_their_nonces(world: Any) -> None:
    sent = world.send(TRANSFER, nonce=9)
    world.blocks(3)
    lagging = world.chain.node(lag_blocks=3)
    assert world.chain.node().record(sent.hash) is not None
    assert lagging.record(sent.hash) is None
    assert lagging.nonce_floor(sent) == 0
    newest = world.send(TRANSFER, block_hash=world.chain.head.digest)
    assert world.chain.invalid(newest, lagging) == "Expired", "it does not know the block hash yet"


def test_faults_of_the_network(world: Any) -> None:
    world.chain.faults.drop_next = 1
    dropped, kept = world.send(TRANSFER), world.send(TRANSFER)
    world.blocks(1)
    assert (dropped.hash in world.chain.transactions, kept.hash in world.chain.transactions) == (False, True)
    world.chain.faults.invalid_next = 1
    nonce = world.chain.ledger.accounts[OPERATOR_ID].keys[kept.public_key_text].nonce
    invalid = world.send(TRANSFER)
    world.blocks(1)
    assert "InvalidTxError" in world.record(invalid).status()["Failure"]
    assert world.chain.ledger.accounts[OPERATOR_ID].keys[kept.public_key_text].nonce == nonce
    assert world.chain.forget(kept.hash)
    assert world.chain.node().record(kept.hash) is None


@pytest.mark.parametrize("name", ["world", "instant_world"])
def test_a_held_pool_lets_go_when_released(name: str, request: pytest.FixtureRequest) -> None:
    held = request.getfixturevalue(name)
    held.chain.faults.hold = True
    sent = held.send(TRANSFER)
    held.blocks(2)
    assert sent.hash not in held.chain.transactions
    held.chain.release()
    held.blocks(1)
    assert sent.hash in held.chain.transactions


def test_congestion_delays_receipts(world: Any) -> None:
    world.chain.faults.receipt_gas_per_block = 0
    sent = world.send(TRANSFER)
    world.blocks(5)
    assert _level(world, sent) is Level.INCLUDED_FINAL
    world.chain.faults.receipt_gas_per_block = None
    world.blocks(3)
    assert _level(world, sent) is Level.FINAL


def test_a_keys_file_gives_the_same_keys_again_and_is_private(tmp_path: Any) -> None:
    keys = Keys.generate(function_call=2, full_access=1)
    keys.save(tmp_path / "keys.json")
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert Keys.load(tmp_path / "keys.json").as_json() == keys.as_json()
    assert keys.client_key.secret_text not in repr(keys)


def test_a_congested_shard_refuses_who_asks_drops_who_does_not_and_recovers(world: Any) -> None:
    before = world.send(TRANSFER)
    world.chain.faults.shard_congested = True
    refused = world.send(TRANSFER)
    world.blocks(2)
    assert world.chain.invalid(refused) == {"ShardCongested": {"shard_id": 0, "congestion_level": 1.0}}
    assert [one.hash in world.chain.transactions for one in (before, refused)] == [False, False]
    world.chain.faults.shard_congested = False
    world.chain.submit(refused)
    world.blocks(2)
    assert [one.hash in world.chain.transactions for one in (before, refused)] == [True, True]
