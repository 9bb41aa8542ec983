"""Submit against a real Redis and a real journal; the RPC alone is scripted, so that each line can be the last one."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from offchainvm.errors import Unavailable
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.record import Stage, Verdict
from offchainvm.jobs.resolves import JournalAwaited
from offchainvm.jobs.rows import RowOutcome, Transaction, parse_journal_body
from offchainvm.models import ExecutionResponse
from offchainvm.near import keyring, payload
from offchainvm.near.nonces import Nonces
from offchainvm.near.transaction import BlockRef
from offchainvm.tasks import resolve, signed, submit


class Died(BaseException):
    """The process ends here."""


def test_each_waiting_row_is_sent_once_with_its_exact_arguments(house) -> None:
    house.window = 8
    ids = [house.waiting(number) for number in range(3)]
    assert house.submitter().submit() == 3
    assert house.submitter().submit() == 0
    for data_id in ids:
        arguments = payload.fit(data_id, ExecutionResponse(success=True, return_value=b"42")).arguments
        assert sum(arguments in signed for signed in house.rpc.sent) == 1


def test_no_key_has_more_in_flight_than_its_window(house) -> None:
    for number in range(5):
        house.waiting(number)
    assert house.submitter().submit() == 2
    assert house.resolves.waiting_count() == 3


def test_a_window_that_was_full_and_empties_rings_again(house) -> None:
    for number in range(5):
        house.waiting(number)
    submitter = house.submitter()
    submitter.submit()
    house.waiting(5)  # its ring is heard while the window is full
    assert submitter.submit() == 0
    outbox = Outbox(house.redis)
    outbox.done([message.entry_id for message in outbox.read(100, 0, "relay")])
    [first, _] = house.resolves.in_flight()
    house.resolves.settle(first.hash, [RowOutcome(Verdict.ACCEPTED)])
    assert [message.stage for message in outbox.read(100, 0, "relay")] == [Stage.RESOLVE]


def test_what_a_block_holds_takes_no_slot_of_the_window_and_rings(house) -> None:
    for number in range(3):
        house.waiting(number)
    submitter = house.submitter()
    assert submitter.submit() == 2
    lowest, _ = house.resolves.in_flight()
    house.redis.delete("ovm:bell")
    assert [house.resolves.mark_included(lowest.hash), house.resolves.mark_included(lowest.hash), house.resolves.mark_included("none")] == [
        True,
        False,
        False,
    ]
    assert house.redis.exists("ovm:bell")
    assert (submitter.submit(), len(house.resolves.in_flight())) == (1, 3)
    house.resolves.settle(lowest.hash, [RowOutcome(Verdict.ACCEPTED)])
    assert house.resolves.in_flight_count(house.keys[0].public_key) == 2


def test_more_keys_carry_more(house) -> None:
    house.keys = [house.new_key(), house.new_key(), house.new_key()]
    for number in range(6):
        house.waiting(number)
    assert house.submitter().submit() == 6
    assert {len(house.resolves.in_flight(key.public_key)) for key in house.keys} == {2}


def test_nonces_of_a_key_rise_above_the_chains(house) -> None:
    house.rpc.key_nonce = house.height * 10**6 + 50
    for number in range(2):
        house.waiting(number)
    house.submitter().submit()
    assert [tx.nonce for tx in house.resolves.in_flight()] == [house.height * 10**6 + 51, house.height * 10**6 + 52]


def test_bytes_are_in_redis_and_in_the_journal_before_the_first_is_sent(house) -> None:
    data_id, submitter = house.waiting(1), house.submitter()
    seen = []

    def look() -> None:
        [stored] = house.resolves.in_flight()
        [(_, key, body)] = submitter._signed._journal.entries()
        seen.append((stored.data_ids, key == stored.hash, parse_journal_body(body)[0].signed == stored.signed))

    house.rpc.before_send = look
    submitter.submit()
    assert seen == [((data_id,), True, True)]


def test_death_between_store_and_send_leaves_bytes_for_the_settler_and_signs_nothing_new(house) -> None:
    house.waiting(1)
    house.rpc.fault = Died()
    with pytest.raises(Died):
        house.submitter().submit()
    [stored] = house.resolves.in_flight()
    house.rpc.fault = None
    assert house.submitter().submit() == 0
    assert house.resolves.in_flight()[0].signed == stored.signed


def test_an_rpc_that_is_away_leaves_the_sending_to_the_settler(house) -> None:
    house.waiting(1)
    house.rpc.fault = Unavailable("near rpc", "no answer")
    assert house.submitter().submit() == 1
    assert len(house.resolves.in_flight()) == 1


def _signed_and_forgotten(house) -> Transaction:
    """A transaction in the journal of a process that is gone, of which Redis knows nothing."""
    house.waiting(1)
    gone = house.submitter()
    gone.submit()
    [transaction] = house.resolves.in_flight()
    gone._signed._journal.close()
    house.redis.flushall()
    return transaction


def test_what_redis_forgot_is_restored_from_the_journal_before_anything_new_is_signed(house) -> None:
    before = _signed_and_forgotten(house)
    house.waiting(1)  # the same request again, as a replayed task would bring it
    assert house.submitter().submit() == 0
    [after] = house.resolves.in_flight()
    assert (after.hash, after.signed) == (before.hash, before.signed)
    assert len(house.rpc.sent) == 1


def test_a_key_that_the_account_does_not_have_is_named_and_the_row_waits_on(house, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(keyring.log, "error", lambda sentence, **_: told.append(sentence))
    house.waiting(1)
    house.rpc.key_nonce = None
    assert house.submitter().submit() == 0
    assert house.resolves.waiting_count() == 1
    assert "has no key ed25519:" in told[0]


def test_a_key_that_the_account_does_not_have_stops_no_other(house, monkeypatch) -> None:
    bad, good = house.keys = [house.new_key(), house.new_key()]
    ask = house.rpc.access_key
    monkeypatch.setattr(house.rpc, "access_key", lambda account, key: None if key == bad.public_key else ask(account, key))
    for number in range(2):
        house.waiting(number)
    assert house.submitter().submit() == 2
    assert {transaction.public_key for transaction in house.resolves.in_flight()} == {good.public_key}


def test_one_message_ends_after_a_while_and_rings_for_the_rest(house, monkeypatch) -> None:
    monkeypatch.setattr(submit, "LONGEST_SECONDS", 0.0)
    house.waiting(1)
    assert house.submitter().submit() == 0
    assert house.redis.exists("ovm:bell")


def test_after_one_send_that_failed_no_other_is_tried(house) -> None:
    house.keys, house.window = [house.new_key(), house.new_key()], 2
    for number in range(5):
        house.waiting(number)
    asked = []
    house.rpc.before_send = lambda: asked.append(1)
    house.rpc.fault = Unavailable("near rpc", "no answer")
    assert house.submitter().submit() == 2
    assert (len(asked), house.resolves.waiting_count()) == (1, 3)


def test_a_process_that_slept_after_storing_sends_nothing_that_is_over(house, monkeypatch) -> None:
    house.waiting(1)
    store = house.resolves.store

    def store_and_sleep(transaction, rows) -> bool:
        kept = store(transaction, rows)
        house.resolves.settle(transaction.hash, [RowOutcome(Verdict.ACCEPTED)])
        return kept

    monkeypatch.setattr(house.resolves, "store", store_and_sleep)
    house.submitter().submit()
    assert house.rpc.sent == []


def test_rows_are_given_back_whatever_went_wrong_before_they_were_signed(house, monkeypatch) -> None:
    house.waiting(1)
    monkeypatch.setattr(house.rpc, "final_block", lambda: BlockRef(height=house.height, hash="not base58"))
    with pytest.raises(ValueError, match=r"base58|character"):
        house.submitter().submit()
    assert house.resolves.waiting_count() == 1


def test_what_a_living_process_beside_this_one_sent_is_restored_before_anything_new_is_signed(house) -> None:
    house.waiting(1)
    beside = house.submitter()
    beside.submit()
    [before] = house.resolves.in_flight()
    house.redis.flushall()
    house.waiting(1)
    assert house.submitter().submit() == 0
    [after] = house.resolves.in_flight()
    assert (after.hash, len(house.rpc.sent)) == (before.hash, 1)
    house.waiting(2)
    house.submitter().submit()
    assert sorted(transaction.nonce for transaction in house.resolves.in_flight()) == [before.nonce, before.nonce + 1]


def test_a_service_that_is_away_ends_the_message_and_not_with_an_error(monkeypatch) -> None:
    def away() -> None:
        raise Unavailable("near rpc", "no answer")

    monkeypatch.setattr(resolve, "_submitter", away)
    resolve.resolve_waiting({})


def test_what_is_settled_leaves_the_journal_at_the_second_look(house, monkeypatch) -> None:
    monkeypatch.setattr(signed, "LOOK_EVERY_SECONDS", 0.0)
    house.waiting(1)
    submitter = house.submitter()
    submitter.submit()
    [transaction] = house.resolves.in_flight()
    house.resolves.settle(transaction.hash, [RowOutcome(Verdict.ACCEPTED)])
    submitter.submit()
    assert len(submitter._signed._journal.entries()) == 1
    submitter.submit()
    assert submitter._signed._journal.entries() == []


def _start_redis_anew(house, *, seconds_ago: float = 0.0) -> None:
    """As scripts see it: what was replayed was so for another start."""
    for host, told in house.redis.hgetall("ovm:journals").items():
        house.redis.hset("ovm:journals", host, b"before " + told.split()[1])
    since = int((time.time() - seconds_ago) * 1000)
    house.redis.hset("ovm:epoch", mapping={"run": house.store.server_run_id(), "since": since})


def test_no_host_signs_an_answer_anew_that_stands_in_the_journal_of_another(house) -> None:
    """The last second of Redis is lost, and the job was executed again with another result before its first host is back."""
    house.waiting(1, b"first answer")
    first, second = house.submitter("first"), house.submitter("second")
    assert (first.submit(), second.submit()) == (1, 0)
    [before] = house.resolves.in_flight()
    hosts = house.redis.hgetall("ovm:journals")
    house.redis.flushall()
    house.redis.hset("ovm:journals", mapping=hosts)
    house.waiting(1, b"second answer")
    _start_redis_anew(house)
    for each in (first, second):
        each._signed._replayed_since = "before"
    with pytest.raises(JournalAwaited, match="comes first"):
        second.submit()
    first.replay()
    assert second.submit() == 0
    assert [flight.signed for flight in house.resolves.in_flight()] == [before.signed]
    assert len(house.rpc.sent) == 1


@pytest.mark.parametrize(("seconds_ago", "silent_seconds"), [(21.0, 0.0), (0.0, 61.0)], ids=["after a while", "or that was gone before"])
def test_a_host_that_does_not_come_back_is_given_up(house, seconds_ago: float, silent_seconds: float) -> None:
    seen = int((time.time() - seconds_ago - silent_seconds) * 1000)
    house.redis.hset("ovm:journals", "gone", f"before {seen}")
    house.waiting(1)
    _start_redis_anew(house, seconds_ago=seconds_ago)
    assert house.submitter().submit() == 1
    assert b"gone" not in house.redis.hkeys("ovm:journals")


def test_a_host_replays_its_journal_while_the_chain_is_away(house) -> None:
    before = _signed_and_forgotten(house)
    chain: list[Nonces] = []

    def nonces() -> Nonces:
        if not chain:
            raise Unavailable("near rpc", "no answer")
        return chain[0]

    again = house.submitter(nonces=nonces)
    with pytest.raises(Unavailable, match="no answer"):
        again.replay()
    assert [flight.hash for flight in house.resolves.in_flight()] == [before.hash]
    assert house.resolves.take(1, lease_seconds=20, final_height=1) == []
    chain.append(Nonces(house.redis, network="devnet", account_id="operator.test"))
    house.waiting(2)
    again.submit()
    assert [flight.nonce for flight in house.resolves.in_flight()] == [before.nonce, before.nonce + 1]


def test_a_replay_for_an_earlier_start_opens_nothing(house) -> None:
    house.waiting(1)
    assert house.resolves.replayed("slow", "an earlier start") == house.store.server_run_id()
    with pytest.raises(JournalAwaited, match="slow"):
        house.submitter().submit()


def test_a_window_that_another_worker_filled_meanwhile_takes_no_more(house, monkeypatch) -> None:
    house.window = 1
    for number in range(3):
        house.waiting(number)
    quick = house.submitter()
    final_block = house.rpc.final_block

    def block_after_the_others_turn() -> BlockRef:
        monkeypatch.setattr(house.rpc, "final_block", final_block)
        assert quick.submit() == 1
        return final_block()

    monkeypatch.setattr(house.rpc, "final_block", block_after_the_others_turn)
    assert house.submitter().submit() == 0
    assert len(house.resolves.in_flight()) == 1


def test_a_burst_ends_with_the_keys_lock_and_what_is_left_waits_again(house) -> None:
    house.window = 3
    for number in range(3):
        house.waiting(number)
    submitter = house.submitter()

    def outlast_the_lock() -> None:
        [name] = house.redis.keys("ovm:key:*")
        house.redis.hset(name, "lock_until", 0)

    house.rpc.before_send = outlast_the_lock
    house.redis.delete("ovm:bell")
    assert submitter._submit_with(house.keys[0]) == 1
    assert (len(house.rpc.sent), len(house.resolves.in_flight()), house.resolves.waiting_count()) == (1, 1, 2)
    assert len(submitter._signed._journal.entries()) == 1
    assert house.redis.exists("ovm:bell")


def test_a_burst_of_slow_sendings_ends_in_time_and_rings_for_what_is_left(house, monkeypatch) -> None:
    house.window = 4
    for number in range(4):
        house.waiting(number)
    clock = [0.0]
    monkeypatch.setattr(submit, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slowly() -> None:
        clock[0] += 6.0

    house.rpc.before_send = slowly
    assert house.submitter().submit() == 2
    assert (len(house.rpc.sent), house.resolves.waiting_count()) == (2, 2)
    assert house.redis.exists("ovm:bell")


def test_what_a_neighbour_restored_in_the_midst_of_a_burst_stays_in_the_journal(house) -> None:
    house.window = 3
    for number in range(3):
        house.waiting(number)
    submitter = house.submitter()

    def restore_the_second_and_outlast_the_lock() -> None:
        [_, (_kind, _key, body), _] = submitter._signed._journal.entries()
        house.resolves.restore(*parse_journal_body(body))
        [name] = house.redis.keys("ovm:key:*")
        house.redis.hset(name, "lock_until", 0)

    house.rpc.before_send = restore_the_second_and_outlast_the_lock
    assert submitter._submit_with(house.keys[0]) == 1
    in_flight = {flight.hash for flight in house.resolves.in_flight()}
    assert (len(in_flight), house.resolves.waiting_count()) == (2, 1)
    assert {key for _kind, key, _body in submitter._signed._journal.entries()} == in_flight


def test_a_burst_ends_when_another_endpoint_takes_over_within_it(house) -> None:
    house.window = 4
    for number in range(4):
        house.waiting(number)
    submitter = house.submitter()

    def fail_over() -> None:
        house.rpc.endpoint = f"node#{1 + len(house.rpc.sent)}"

    house.rpc.before_send = fail_over
    assert submitter.submit() == 2
    assert (len(house.rpc.sent), house.resolves.waiting_count()) == (2, 2)
    nonces = Nonces(house.redis, network="devnet", account_id="operator.test")
    assert nonces.held() == {house.keys[0].public_key: "settler: another RPC endpoint took over"}


def test_what_was_not_stored_when_redis_went_away_leaves_the_journal(house, monkeypatch) -> None:
    monkeypatch.setattr(signed, "LOOK_EVERY_SECONDS", 0.0)
    house.window = 3
    for number in range(3):
        house.waiting(number)
    submitter, store, stored = house.submitter(), house.resolves.store, []

    def store_once(transaction, rows) -> bool:
        stored.append(transaction.hash)
        if len(stored) == 2:
            raise Unavailable("redis", "away")
        return store(transaction, rows)

    with monkeypatch.context() as patched:
        patched.setattr(house.resolves, "store", store_once)
        with pytest.raises(Unavailable):
            submitter.submit()
    assert [key for _kind, key, _body in submitter._signed._journal.entries()] == stored
    assert house.resolves.waiting_count() == 1
    house.rpc.fault = Unavailable("near rpc", "no answer")
    submitter.submit()
    submitter.submit()
    kept = {key for _kind, key, _body in submitter._signed._journal.entries()}
    assert kept == {flight.hash for flight in house.resolves.in_flight()}
    assert stored[1] not in kept
