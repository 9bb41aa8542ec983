"""Submit and settle on the local chain, in one process: whatever goes wrong, one resolve lands for each request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3
from redis import Redis
from resolving import DEADLINE_BLOCKS, Room, until

from offchainvm.bridge import settler as settler_module
from offchainvm.cli.checks import chain as checks
from offchainvm.devnet.genesis import OPERATOR_ID
from offchainvm.errors import OffchainVMError
from offchainvm.jobs.record import Verdict
from offchainvm.jobs.resolves import JournalAwaited
from offchainvm.near.nonces import KeyLease, Nonces
from offchainvm.tasks.submit import Submitter


@pytest.fixture
def room(redis_client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    # Everything at the pace of a chain with blocks of 0.05 s.
    monkeypatch.setattr(settler_module, "_FIRST_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(settler_module, "_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(settler_module, "_UNSEEN_SECONDS", 2.0)
    with ExitStack() as stack:
        room = Room(redis_client, tmp_path, stack)
        yield room
        room.is_left_clean()


def test_ten_requests_are_resolved_by_one_transaction_of_a_full_access_key(room: Room) -> None:
    ids = room.answered(10)
    room.settle()
    assert room.submitter(full_access=True, batch=10).submit() == 1
    assert room.settled(ids) == [Verdict.ACCEPTED] * 10
    assert sorted(room.accepted()) == sorted(ids)
    assert len({call["transaction_hash"] for call in room.client.resolves()}) == 1


def test_a_function_call_key_resolves_them_one_by_one(room: Room) -> None:
    ids = room.answered(10)
    room.settle()
    submitter = room.submitter(batch=10)
    assert submitter.submit() == 8
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 10
    assert len({call["transaction_hash"] for call in room.client.resolves()}) == 10


def test_a_batch_whose_third_action_is_refused_settles_that_row_and_resolves_the_others(room: Room) -> None:
    first, second, *others = room.answered(4)
    stranger = "ee" * 32
    # Between the second and the third, by its deadline.
    room.answer(999, stranger, room.store.get(second).deadline_height - DEADLINE_BLOCKS)  # type: ignore[union-attr,operator]
    room.settle()
    submitter = room.submitter(full_access=True, batch=10)
    assert submitter.submit() == 1
    [flight] = room.resolves.in_flight()
    ids = list(flight.data_ids)
    assert len(ids) == 5
    verdicts = dict(zip(ids, room.settled(ids, submitter), strict=True))
    assert verdicts == {stranger: Verdict.RESOLVED_ELSEWHERE, **dict.fromkeys((first, second, *others), Verdict.ACCEPTED)}
    assert sorted(room.accepted()) == sorted((first, second, *others))


def test_a_reply_that_is_lost_after_acceptance_is_no_second_resolve(room: Room) -> None:
    ids = room.answered(2)
    room.settle()
    room.fault(kind="drop_after", rpc_method="send_tx", times=2)
    submitter = room.submitter()
    submitter.submit()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 2
    assert sorted(room.accepted()) == sorted(ids)


def test_one_dropped_without_a_word_is_sent_again_as_it_was(room: Room) -> None:
    ids = room.answered(1)
    room.client.control("chain", {"drop_next": 2})
    room.settle()
    room.submitter().submit()
    [flight] = room.resolves.in_flight()
    assert room.settled(ids) == [Verdict.ACCEPTED]
    assert [call["transaction_hash"] for call in room.client.resolves()] == [flight.hash]


def test_a_nonce_too_large_is_dropped_without_a_word_and_lands_as_it_was(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a wrong height can bring it about, since our rule stays below; the chain takes it when it has come so far."""
    ids, give, ahead = room.answered(1), Nonces.next, 40

    def too_large(nonces: Nonces, lease: KeyLease, *, final_height: int, floor: int = 0) -> int:
        return give(nonces, lease, floor=floor, final_height=final_height + ahead)

    submitter = room.submitter()
    with monkeypatch.context() as patched:
        patched.setattr(Nonces, "next", too_large)
        submitter.submit()
    [flight], height = room.resolves.in_flight(), room.rpc().final_block().height
    room.settle()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED]
    assert room.rpc().final_block().height > height + ahead // 2, "it was not taken at once"
    assert [call["transaction_hash"] for call in room.client.resolves()] == [flight.hash]


def test_one_that_a_higher_nonce_overtook_is_marked_dead_and_replaced(room: Room) -> None:
    ids = room.answered(3)
    room.client.control("chain", {"drop_next": 1})
    submitter = room.submitter()
    assert submitter.submit() == 3
    lowest, *_ = room.resolves.in_flight()
    room.settle()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 3
    hashes = [call["transaction_hash"] for call in room.client.resolves()]
    assert (len(hashes), lowest.hash in hashes) == (3, False)


def test_all_of_a_window_that_the_pool_takes_in_the_wrong_order_is_resolved_once(room: Room) -> None:
    ids = room.answered(5)
    room.client.control("chain", {"reorder": True, "hold": True})
    submitter = room.submitter()
    submitter.submit()
    room.client.control("chain", {"hold": False})
    room.settle()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 5
    assert sorted(room.accepted()) == sorted(ids)


@pytest.mark.parametrize("times", [2, 12])
def test_unknown_and_then_found_is_one_resolve(room: Room, times: int) -> None:
    """Denied for long enough it is marked dead and replaced; the replacement is refused, and the first one found to be ours."""
    ids = room.answered(1)
    room.fault(kind="unknown", rpc_method="tx", times=times)
    room.settle()
    submitter = room.submitter()
    submitter.submit()
    [first] = room.resolves.in_flight()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED]
    assert room.accepted() == ids
    assert [call["transaction_hash"] for call in room.client.resolves() if call["accepted"]] == [first.hash]


def test_a_node_that_does_not_know_our_block_hash_yet_marks_nothing_dead(room: Room) -> None:
    """To a node 40 blocks behind, a transaction that names a new block looks Expired."""
    room.client.control("chain", {"lag_blocks": {"lagging": 40}})
    ids = room.answered(1)
    room.client.control("chain", {"drop_next": 1})
    room.settle(rpc=room.rpc("/lagging"))
    submitter = room.submitter()
    submitter.submit()
    [flight] = room.resolves.in_flight()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED]
    assert [call["transaction_hash"] for call in room.client.resolves()] == [flight.hash]


def test_two_workers_on_one_key_share_no_row_and_no_nonce(room: Room) -> None:
    ids = room.answered(12)
    room.settle()
    submitters, signed = [room.submitter(window=4), room.submitter(window=4)], set()

    def work(submitter: Submitter) -> None:
        while room.resolves.waiting_count():
            with suppress(JournalAwaited):  # the other one has just come, and has not replayed its journal yet
                submitter.submit()
            signed.update((flight.hash, flight.nonce) for flight in room.resolves.in_flight())

    threads = [threading.Thread(target=work, args=(submitter,)) for submitter in submitters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert room.settled(ids, submitters[0]) == [Verdict.ACCEPTED] * 12
    assert sorted(room.accepted()) == sorted(ids)
    assert len({nonce for _, nonce in signed}) == len(signed)


def test_two_settlers_at_once_settle_each_once(room: Room) -> None:
    ids = room.answered(6)
    room.client.control("chain", {"drop_next": 2})
    room.settle()
    room.settle()
    submitter = room.submitter()
    submitter.submit()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 6
    assert sorted(room.accepted()) == sorted(ids)


def test_a_key_that_is_deleted_is_not_signed_with_for_ever_and_the_doctor_names_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.answered(1)
    submitter, key = room.submitter(), room.key()
    submitter._keyring.look(key.public_key)
    room.node.chain.ledger.accounts[OPERATOR_ID].keys.pop(key.public_key)
    room.settle()
    submitter.submit()
    held = until(lambda: room.nonces.held() or None)
    assert held == {key.public_key: "refused: the key is gone"}
    until(lambda: True if room.resolves.waiting_count() == 1 else None)
    assert submitter.submit() == 0
    monkeypatch.setattr(checks, "rpc_with", lambda *_: (room.rpc(), type("S", (), {"operator_account_id": OPERATOR_ID, "redis_url": ""})))
    monkeypatch.setattr(checks, "connect", lambda _url: Redis(connection_pool=room.redis.connection_pool))
    with pytest.raises(OffchainVMError, match="the key is gone"):
        checks.check_held_keys()


def test_what_was_signed_by_keys_that_the_chain_refuses_goes_to_the_key_that_is_left(room: Room) -> None:
    """Keys of both kinds, and fewer of them than jobs."""
    ids = room.answered(9)
    *refused, good = keys = [*(room.key(number=number) for number in range(3)), room.key(full_access=True)]
    poor, deleted, narrowed = (key.public_key for key in refused)
    submitter = room.submitter(*keys, batch=3, window=2)
    for key in keys:
        submitter._keyring.look(key.public_key)
    on_chain = room.node.chain.ledger.accounts[OPERATOR_ID].keys
    on_chain[poor].allowance = 1
    on_chain[narrowed].permission = replace(on_chain[narrowed].permission, receiver_id="another.devnet")  # type: ignore[type-var]
    on_chain.pop(deleted)
    submitter.submit()
    assert {flight.public_key for flight in room.resolves.in_flight()} == {poor, deleted, narrowed, good.public_key}
    room.settle()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 9
    assert sorted(room.accepted()) == sorted(ids)
    assert room.nonces.held() == {
        poor: "refused: its key's allowance is used up",
        deleted: "refused: the key is gone",
        narrowed: "refused: the chain refuses it for good: ReceiverMismatch",
    }
    assert room.resolves.in_flight() == []


def test_one_that_is_unseen_until_its_block_is_too_old_is_marked_dead_and_replaced(room: Room) -> None:
    room.node.chain.protocol.validity_period_blocks = 70
    ids = room.answered(1)
    room.client.control("chain", {"drop_next": 1})
    submitter = room.submitter()
    submitter.submit()
    [dead] = room.resolves.in_flight()
    until(lambda: room.node.chain.node().final.height > dead.block_height + 70 or None)
    room.settle()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED]
    assert [call["transaction_hash"] for call in room.client.resolves()] == room.resolves.hashes(ids[0])[1:]
    assert ("dead", dead.hash) in [(event.what, event.detail) for event in room.store.history(ids[0])]
    assert room.nonces.held() == {}


def test_a_chain_that_is_away_for_a_minute_is_one_resolve_each_and_leaves_no_key_stuck(room: Room) -> None:
    """A minute in blocks. And longer than any time-out, pause, lock or hold that these settings have."""
    *before, during = room.asked(5)
    ids = [room.answer(*asked) for asked in before]
    submitter = room.submitter()
    submitter._keyring.look(room.key().public_key)
    submitter._recent_block.get()
    room.fault(kind="status", status=503, method="POST", path="/", times=0)
    room.settle()
    submitter.submit()
    ids.append(room.answer(*during))
    submitter.submit()
    assert len(room.resolves.in_flight()) == 5
    back_at = room.node.chain.head.height + 100
    until(lambda: room.node.chain.head.height >= back_at or None)
    assert urllib3.request("DELETE", f"{room.url}/control/faults").status < 300
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 5
    assert sorted(room.accepted()) == sorted(ids)
    assert {sum(event.what == "signed" for event in room.store.history(data_id)) for data_id in ids} == {1}
    assert room.settled(room.answered(1), submitter) == [Verdict.ACCEPTED]
    assert room.nonces.held() == {}


def test_a_key_whose_endpoint_changed_signs_nothing_until_its_window_is_empty(room: Room) -> None:
    rpc = room.rpc("", "/lagging")
    submitter = room.submitter(rpc=rpc)
    *before, after = room.asked(3)
    ids = [room.answer(*asked) for asked in before]
    room.client.control("chain", {"hold": True})
    assert submitter.submit() == 2
    room.fault(kind="status", status=503, rpc_method="block")
    rpc.final_block()
    ids.append(room.answer(*after))
    assert submitter.submit() == 0
    assert room.nonces.held() == {room.key().public_key: "settler: another RPC endpoint took over"}
    room.client.control("chain", {"hold": False})
    room.settle()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 3
    assert (sorted(room.accepted()), room.nonces.held()) == (sorted(ids), {})


def test_a_worker_that_died_between_send_and_settle_is_not_missed(room: Room) -> None:
    ids = room.answered(3)
    room.submitter().submit()
    until(lambda: room.accepted() if len(room.accepted()) == 3 else None)
    room.settle()
    assert room.settled(ids) == [Verdict.ACCEPTED] * 3
    assert (sorted(room.accepted()), room.resolves.in_flight()) == (sorted(ids), [])


def test_a_key_that_another_program_uses_too_loses_no_job(room: Room) -> None:
    """Its nonces are above ours: InvalidNonce, without end unless ours rise above them."""
    ids = room.answered(2)
    submitter = room.submitter()
    submitter._keyring.look(room.key().public_key)
    room.client.control("chain", {"hold": True})
    submitter.submit()
    newest = max(flight.nonce for flight in room.resolves.in_flight())
    room.on_chain(room.key()).nonce = newest + 1000
    room.client.control("chain", {"hold": False})
    room.settle()
    assert room.settled(ids, submitter) == [Verdict.ACCEPTED] * 2
    assert sorted(room.accepted()) == sorted(ids)
