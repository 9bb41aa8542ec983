"""When the settler calls a transaction dead, and when it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from settling import KEY, World, invalid_in_chunk, pending, succeeded

from offchainvm.bridge import key_holds
from offchainvm.jobs.record import Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.near.rpc import AccessKey, InvalidTransaction, RpcRefused, RpcUnavailable
from offchainvm.near.rpc_answers import invalid_reason


def _kill_by_nonce(world: World) -> None:
    world.rpc.key = AccessKey(nonce=5, block_height=100, full_access=False)


def _kill_by_absence(world: World) -> None:
    world.rpc.key = None


def _kill_by_age(world: World) -> None:
    world.rpc.key = AccessKey(nonce=1, block_height=50 + 1001, full_access=False)


def _kill_by_refusal(world: World) -> None:
    world.rpc.check = InvalidTransaction(invalid_reason("InvalidSignature"))


def _kill_by_allowance(world: World) -> None:
    world.rpc.check = InvalidTransaction(invalid_reason({"InvalidAccessKeyError": {"NotEnoughAllowance": {"allowance": "1", "cost": "2"}}}))


@pytest.mark.parametrize("kill", [_kill_by_nonce, _kill_by_absence, _kill_by_age, _kill_by_refusal, _kill_by_allowance])
def test_dead_only_after_two_looks_with_nothing_sent_in_between(world: World, kill: Callable[[World], None]) -> None:
    world.resolves.add()
    world.turn(0)
    kill(world)
    world.turn()
    assert world.resolves.dead_hashes == []
    world.turn(0.5)
    assert world.resolves.dead_hashes == ["h1"]
    assert world.rpc.sent == []


@pytest.mark.parametrize(
    ("kill", "blamed"),
    [(_kill_by_refusal, "InvalidSignature"), (_kill_by_absence, "the key is gone"), (_kill_by_allowance, "allowance is used up")],
)
def test_a_key_whose_transactions_the_chain_refuses_signs_nothing_more_and_that_is_told_once(
    world: World, kill: Callable[[World], None], blamed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(key_holds.log, "error", lambda sentence, **_: told.append(sentence))
    kill(world)
    for name in ("h1", "h2"):
        world.resolves.add(name)
        for _ in range(3):
            world.turn()
    assert world.resolves.dead_hashes == ["h1", "h2"]
    assert blamed in world.nonces.holds[KEY]
    assert len(told) == 1
    assert "restart the resolve worker" in told[0]


@pytest.mark.parametrize("kill", [_kill_by_nonce, _kill_by_age])
def test_a_key_is_not_blamed_for_a_transaction_that_came_too_late(world: World, kill: Callable[[World], None]) -> None:
    world.resolves.add()
    kill(world)
    for _ in range(3):
        world.turn()
    assert (world.resolves.dead_hashes, world.nonces.holds) == (["h1"], {})


@pytest.mark.parametrize(
    "reason", ["Expired", "ShardStuck", {"NotEnoughBalance": {}}, {"InvalidNonce": {"ak_nonce": 9, "tx_nonce": 5}}, "SomethingNew"]
)
def test_other_refusals_prove_nothing(world: World, reason: Any) -> None:
    world.resolves.add()
    world.rpc.check = InvalidTransaction(invalid_reason(reason))
    for _ in range(4):
        world.turn()
    assert world.resolves.dead_hashes == []
    assert world.rpc.sent


@pytest.mark.parametrize(("nonce", "height"), [(4, 100), (1, 50 + 1000)])
def test_the_nonce_below_and_the_last_block_of_its_validity_prove_nothing(world: World, nonce: int, height: int) -> None:
    world.resolves.add(nonce=5)
    world.rpc.key = AccessKey(nonce=nonce, block_height=height, full_access=False)
    for _ in range(4):
        world.turn()
    assert world.resolves.dead_hashes == []
    assert world.rpc.sent


def test_a_key_that_a_lagging_node_does_not_know_yet_proves_nothing(world: World) -> None:
    world.resolves.add()
    world.rpc.key, world.rpc.head = None, 50
    for _ in range(4):
        world.turn()
    assert world.resolves.dead_hashes == []


def test_two_endpoints_do_not_confirm_each_other(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    _kill_by_nonce(world)
    for number in range(4):
        world.rpc.endpoint = f"http://node#{number}"
        world.turn()
    assert world.resolves.dead_hashes == []


def test_a_node_that_stepped_back_does_not_confirm(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    for height in (100, 99, 98):
        world.rpc.key = AccessKey(nonce=5, block_height=height, full_access=False)
        world.turn()
    assert world.resolves.dead_hashes == []


def test_stale_evidence_marks_nothing_dead(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    _kill_by_nonce(world)
    world.turn()
    world.resolves.attempted("h1")
    world.turn(0.5)
    assert world.resolves.dead_hashes == []


def test_what_is_found_after_the_nonce_passed_was_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.resolves.add()
    world.turn(0)
    _kill_by_nonce(world)
    world.turn()
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    assert world.resolves.dead_hashes == []
    assert world.resolves.settled["h1"] == [RowOutcome(Verdict.ACCEPTED)]


def test_one_found_invalid_in_a_chunk_is_as_if_unseen_and_raises_the_floor(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = invalid_in_chunk()
    world.turn(0)
    world.turn()
    assert world.rpc.sent == [b"h1"]
    assert world.nonces.floors == [77]
    _kill_by_nonce(world)
    world.turn()
    world.turn()
    assert world.resolves.dead_hashes == ["h1"]


def test_an_allowance_is_not_used_up_while_what_the_key_has_in_a_block_may_give_some_back(world: World) -> None:
    world.resolves.add("h0", nonce=5)
    world.resolves.add("h1", nonce=6)
    world.rpc.answers["h0"] = pending()
    world.rpc.key = AccessKey(nonce=5, block_height=100, full_access=False)
    _kill_by_allowance(world)
    for _ in range(4):
        world.turn()
    assert world.resolves.dead_hashes == []
    world.rpc.answers["h0"] = succeeded()
    for _ in range(3):
        world.turn()
    assert world.resolves.dead_hashes == ["h1"]


@pytest.mark.parametrize("error", [RpcRefused("no", cause="METHOD_NOT_FOUND"), RpcUnavailable("http://node#1", "HTTP 403")])
def test_a_provider_that_tells_no_limits_stops_no_sending_and_is_not_asked_each_time(world: World, error: Exception) -> None:
    world.rpc.config_error = error
    world.resolves.add()
    for _ in range(4):
        world.turn()
    assert world.rpc.sent == [b"h1"] * 3
    assert world.rpc.calls.count("protocol_config") == 1
    _kill_by_nonce(world)
    world.turn()
    world.turn(0.5)
    assert world.resolves.dead_hashes == ["h1"]


def test_bytes_about_which_no_evidence_can_be_had_are_sent_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> AccessKey:
        raise RpcUnavailable("http://node#1", "HTTP 403")

    monkeypatch.setattr(world.rpc, "access_key", away)
    world.resolves.add()
    world.turn(0)
    world.turn()
    assert world.rpc.sent == [b"h1"]
