"""Rows and transactions: one payload for each data_id, whatever dies in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from offchainvm.jobs import resolves
from offchainvm.jobs.record import Stage, State, Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.jobs.rows import journal_body, parse_journal_body
from offchainvm.jobs.store import Acceptance

ACCEPTED = RowOutcome(Verdict.ACCEPTED)
KEY = "ed25519:operator"


def test_jobs_are_asked_when_they_were_accepted_and_one_without_a_record_is_left_out(house: Any) -> None:
    data_id = house.waiting(1)
    assert house.resolves.accepted_at([data_id, "f" * 64]) == [house.store.get(data_id).accepted_at]
    assert house.resolves.accepted_at([]) == []


def test_many_commits_ring_once_until_a_take_clears_the_bell(house: Any) -> None:
    house.waiting(1)
    house.waiting(2)
    assert [message for message in house.sent() if message[0] == "resolve"] == [("resolve", ())]
    house.take()
    house.waiting(3)
    assert [message.attempt for message in house.messages() if message.stage is Stage.RESOLVE] == [2]


def test_rows_come_oldest_deadline_first_and_an_unknown_one_as_if_it_began_now(house: Any) -> None:
    house.take(height=900)
    late, early, unknown, last = (house.waiting(n, deadline=height) for n, height in enumerate((1050, 950, None, 1150)))
    assert [row.data_id for row in house.take()] == [early, late, unknown, last]


def test_a_payload_is_never_replaced(house: Any) -> None:
    data_id = house.waiting(1, text="one")
    house.redis.hset(f"ovm:job:{data_id}", mapping={"state": "queued", "stage": "execute"})
    house.redis.zrem("ovm:waiting", data_id)
    claim = house.claim(data_id)
    assert house.store.commit(claim, house.answer(data_id, "two"))
    assert house.take()[0].arguments == house.answer(data_id, "one").arguments
    assert house.store.get(data_id).response.return_value == b"one"


def test_payload_bytes_are_kept_exactly(house: Any) -> None:
    data_id = house.accept()
    arguments = bytes(range(256))
    house.store.commit(house.claim(data_id), replace(house.answer(data_id), arguments=arguments))
    assert house.take()[0].arguments == arguments


def test_two_takers_never_share_a_row(house: Any) -> None:
    for number in range(60):
        house.waiting(number)
    with ThreadPoolExecutor(8) as pool:
        takes = list(pool.map(lambda _: house.take(5), range(20)))
    ids = [row.data_id for rows in takes for row in rows]
    assert len(ids) == len(set(ids)) == 60


def test_a_lost_reply_to_take_gives_the_same_rows(house: Any) -> None:
    house.waiting(1)
    house.waiting(2)
    first, second = (house.resolves.take(1, lease_seconds=60, final_height=1, token="t") for _ in range(2))
    assert first == second
    assert house.resolves.waiting_count() == 1


def test_rows_whose_deadline_cannot_be_met_are_settled_as_expired_and_reported_as_failed(house: Any) -> None:
    data_id, alive = house.waiting(1, deadline=504), house.waiting(2, deadline=505)
    assert [row.data_id for row in house.take(height=500)] == [alive]
    job = house.store.get(data_id)
    assert (job.state, job.verdict) == (State.SETTLED, Verdict.EXPIRED)
    (report,) = house.reports.due(10)
    assert report.failed
    assert report.error.startswith("expired: ")


def test_a_live_row_behind_more_expired_ones_than_one_take_reads_comes_with_the_next_ring(house: Any) -> None:
    for number in range(1, 60):
        house.waiting(number, deadline=504)
    alive = house.waiting(60, deadline=505)
    house.messages()
    assert house.take(8, height=500) == []
    assert ("resolve", ()) in house.sent()
    assert [row.data_id for row in house.take(8, height=500)] == [alive]
    assert house.take(8, height=500) == []
    assert house.sent() == []


def test_a_deadline_that_nobody_knows_begins_when_the_row_is_first_seen(house: Any) -> None:
    data_id = house.waiting(1, deadline=None)
    house.resolves.give_back(house.take(height=900))
    assert house.store.get(data_id).deadline_height == 1100
    assert house.take(height=1096) == []
    assert house.store.get(data_id).verdict is Verdict.EXPIRED


def test_died_between_take_and_store_returns_the_rows_and_rings(house: Any) -> None:
    data_id = house.waiting(1)
    dead = house.take(lease=0)
    house.messages()
    assert house.reconcile().rows_returned == 1
    assert ("resolve", ()) in house.sent()
    assert not house.resolves.store(house.transaction(dead), dead)
    assert [row.data_id for row in house.take()] == [data_id]


def test_a_frozen_taker_that_wakes_after_another_took_its_row_stores_nothing(house: Any) -> None:
    house.waiting(1)
    house.waiting(2)
    frozen = house.take(2, lease=0)
    house.reconcile()
    (other,) = house.take(1)
    assert not house.resolves.store(house.transaction(frozen), frozen)
    assert house.resolves.in_flight() == []
    assert house.resolves.store(house.transaction([other], hash="h2"), [other])


def test_a_frozen_taker_stores_nothing_when_another_holds_all_of_its_rows(house: Any) -> None:
    house.waiting(1)
    frozen = house.take(lease=0)
    house.reconcile()
    other = house.take()
    assert [row.data_id for row in other] == [row.data_id for row in frozen]
    assert not house.resolves.store(house.transaction(frozen), frozen)
    assert house.resolves.give_back(frozen) == 0
    assert house.resolves.store(house.transaction(other, hash="h2"), other)


def test_give_back_makes_rows_wait_again_once(house: Any) -> None:
    house.waiting(1)
    rows = house.take()
    assert house.resolves.give_back(rows) == 1
    assert house.resolves.give_back(rows) == 0
    assert house.take()[0].attempts == 0


def test_a_stored_transaction_is_found_with_its_exact_bytes_by_nonce(house: Any) -> None:
    big = 240_000_000_000_123
    late, _ = house.signed(1, hash="h2", nonce=big + 1)
    early, _ = house.signed(2, hash="h1", nonce=big)
    found = house.resolves.in_flight()
    assert [(tx.hash, tx.nonce, tx.signed, tx.data_ids) for tx in found] == [
        (tx.hash, tx.nonce, tx.signed, tx.data_ids) for tx in (early, late)
    ]
    assert house.resolves.in_flight("ed25519:other") == []
    assert house.resolves.in_flight_count(KEY) == 2
    assert house.store.get(house.data_id(1)).transaction_hash == "h2"


def test_a_lost_reply_to_store_is_true_again(house: Any) -> None:
    house.waiting(1)
    rows = house.take()
    assert [house.resolves.store(house.transaction(rows), rows, token="t") for _ in range(2)] == [True, True]


def test_what_another_process_restored_from_the_journal_meanwhile_is_stored(house: Any) -> None:
    house.waiting(1)
    rows = house.take()
    tx = house.transaction(rows)
    assert house.resolves.restore(tx, rows)
    assert house.resolves.store(tx, rows)
    assert [one.hash for one in house.resolves.in_flight()] == ["h1"]


def test_rows_that_are_not_the_transactions_are_a_mistake_of_the_caller(house: Any) -> None:
    tx, rows = house.signed(1, 2)
    with pytest.raises(ValueError, match="same order"):
        house.resolves.store(tx, rows[::-1])
    with pytest.raises(ValueError, match="1 outcomes"):
        house.resolves.settle("h1", [ACCEPTED])


def test_settling_ends_the_job_frees_the_slot_and_queues_the_report(house: Any) -> None:
    tx, _ = house.signed(1)
    assert house.resolves.settle(tx.hash, [ACCEPTED])
    job = house.store.get(house.data_id(1))
    assert (job.state, job.verdict, job.transaction_hash) == (State.SETTLED, Verdict.ACCEPTED, "h1")
    assert house.resolves.in_flight_count(KEY) == 0
    (report,) = house.reports.due(10)
    assert (report.failed, report.report.output, report.report.request_id) == (False, b"one", 1)
    assert 0 < house.redis.ttl(f"ovm:job:{job.data_id}") <= 72 * 3600


def test_settling_twice_changes_nothing(house: Any) -> None:
    house.signed(1)
    assert [house.resolves.settle("h1", [ACCEPTED], token="t") for _ in range(2)] == [True, True]
    house.reports.done(house.data_id(1))
    assert not house.resolves.settle("h1", [RowOutcome(Verdict.REFUSED, "late")])
    assert house.store.get(house.data_id(1)).verdict is Verdict.ACCEPTED
    assert house.reports.count() == 0


def test_settling_rings_when_rows_wait(house: Any) -> None:
    house.signed(1)
    house.waiting(2)
    house.take(0)
    house.messages()
    house.resolves.settle("h1", [ACCEPTED])
    assert house.sent() == [("resolve", ())]


def test_a_failed_batch_settles_the_row_to_blame_and_the_others_wait_in_smaller_batches(house: Any) -> None:
    house.signed(1, 2, 3, 4)
    outcomes = [RowOutcome(None), RowOutcome(Verdict.REFUSED, "gas"), RowOutcome(None), RowOutcome(None)]
    assert house.resolves.settle("h1", outcomes)
    assert house.store.get(house.data_id(2)).verdict is Verdict.REFUSED
    rows = house.take()
    assert [(row.data_id, row.attempts) for row in rows] == [(house.data_id(1), 1), (house.data_id(3), 1)]
    house.resolves.store(house.transaction(rows, hash="h2"), rows)
    house.resolves.settle("h2", [ACCEPTED, ACCEPTED])
    for number in (5, 6, 7, 8, 9):
        house.waiting(number)
    assert len(house.take()) == 4


def test_a_row_that_an_error_blamed_comes_alone(house: Any) -> None:
    house.signed(1, 2)
    house.resolves.settle("h1", [RowOutcome(None, "congested"), RowOutcome(None)])
    house.redis.delete("ovm:batch")
    first, second = house.take(), house.take()
    assert [[row.data_id for row in rows] for rows in (first, second)] == [[house.data_id(1)], [house.data_id(2)]]


def test_a_dead_transaction_gives_its_rows_back_with_their_payload_and_its_hash(house: Any) -> None:
    house.signed(1, nonce=7)
    assert house.resolves.attempted("h1") == 1
    assert house.resolves.dead("h1", 1)
    (row,) = house.take()
    assert row.attempts == 1
    assert row.arguments == house.answer(house.data_id(1)).arguments
    assert house.resolves.hashes(row.data_id) == ["h1"]
    assert house.resolves.in_flight_count(KEY) == 0


def test_stale_evidence_of_death_is_refused_when_it_was_sent_again(house: Any) -> None:
    house.signed(1)
    seen = house.resolves.in_flight()[0].attempts
    assert house.resolves.attempted("h1") == seen + 1
    assert not house.resolves.dead("h1", seen)
    assert house.resolves.waiting_count() == 0
    assert house.resolves.in_flight_count(KEY) == 1


def test_nothing_may_be_sent_once_the_transaction_ended(house: Any) -> None:
    house.signed(1)
    assert house.resolves.dead("h1", 0)
    assert house.resolves.attempted("h1") == 0
    assert not house.resolves.dead("h1", 0)


def test_the_verdict_of_an_older_hash_settles_a_row_that_was_signed_again(house: Any) -> None:
    house.signed(1)
    house.resolves.dead("h1", 0)
    rows = house.take()
    house.resolves.store(house.transaction(rows, hash="h2", nonce=8), rows)
    assert house.resolves.hashes(house.data_id(1)) == ["h1", "h2"]
    assert house.resolves.settle("h2", [RowOutcome(Verdict.ACCEPTED, None)])
    assert house.resolves.in_flight() == []


def test_a_settled_job_that_comes_again_is_reported_again(house: Any) -> None:
    house.signed(1)
    house.resolves.settle("h1", [ACCEPTED])
    house.reports.done(house.data_id(1))
    assert house.accept_again(1) is Acceptance.SETTLED
    assert house.reports.due(10)[0].report.output == b"one"


def test_a_tombstone_answers_after_retention(house: Any) -> None:
    house.signed(1)
    house.resolves.settle("h1", [RowOutcome(Verdict.RESOLVED_ELSEWHERE, "resolved by another")])
    house.reports.done(house.data_id(1))
    house.redis.delete(f"ovm:job:{house.data_id(1)}", f"ovm:history:{house.data_id(1)}")
    assert house.redis.ttl(f"ovm:tomb:{house.data_id(1)}") > 29 * 86400
    assert house.accept_again(1) is Acceptance.SETTLED
    (report,) = house.reports.due(10)
    assert (report.failed, report.error) == (True, "resolved by another")
    assert house.store.get(house.data_id(1)) is None
    assert house.store.list_jobs() == []


def test_a_long_output_is_reported_once_but_not_kept_for_a_month(house: Any) -> None:
    data_id = house.accept()
    house.store.commit(house.claim(data_id), house.answer(data_id, "x" * 10_000))
    rows = house.take()
    house.resolves.store(house.transaction(rows), rows)
    house.resolves.settle("h1", [ACCEPTED])
    assert len(house.reports.due(1)[0].report.output) == 10_000
    assert len(house.redis.hget(f"ovm:tomb:{data_id}", "report")) < 200


def test_a_transaction_stored_in_the_second_that_redis_lost_is_in_flight_again(house: Any) -> None:
    house.waiting(1)
    forget = house.snapshot()
    rows = house.take()
    tx = house.transaction(rows)
    entry = journal_body(tx, rows)
    assert house.resolves.store(tx, rows)
    forget()
    assert house.resolves.restore(*parse_journal_body(entry))
    assert house.take() == []
    assert house.resolves.in_flight()[0].signed == tx.signed
    assert house.resolves.settle("h1", [ACCEPTED])
    assert house.store.get(house.data_id(1)).verdict is Verdict.ACCEPTED


def test_a_journalled_payload_wins_over_one_that_was_computed_again(house: Any) -> None:
    data_id = house.accept()
    forget = house.snapshot()
    house.store.commit(house.claim(data_id), house.answer(data_id, "one"))
    rows = house.take()
    tx = house.transaction(rows)
    house.resolves.store(tx, rows)
    forget()
    claim = house.claim(data_id)
    assert house.resolves.restore(tx, rows)
    assert not house.store.commit(claim, house.answer(data_id, "two"))
    assert house.resolves.dead("h1", 0)
    assert house.take()[0].arguments == house.answer(data_id, "one").arguments


@pytest.mark.parametrize("in_flight", [True, False], ids=["in flight", "or dead"])
def test_a_journalled_payload_is_never_sent_beside_another_that_was_signed_since(
    house: Any, in_flight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process died before the first byte was sent, the take ran out, and the operator cancelled the job."""
    told: list[str] = []
    monkeypatch.setattr(resolves.log, "error", lambda _sentence, **bound: told.append(bound["action"]))
    data_id = house.waiting(1, text="one")
    dead = house.take(lease=0)
    house.reconcile()
    assert house.store.cancel(data_id, house.answer(data_id, "cancelled")) == "cancelled"
    rows = house.take()
    house.resolves.store(house.transaction(rows, hash="h2", nonce=8), rows)
    if not in_flight:
        house.resolves.dead("h2", 0)
    assert not house.resolves.restore(house.transaction(dead), dead)
    assert [one.hash for one in house.resolves.in_flight()] == ["h2"] * in_flight
    assert house.store.get(data_id).state is State.RESOLVING
    assert told == ["refuse_restore"]


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "or waiting"])
def test_a_journalled_payload_wins_over_one_that_nobody_has_signed(house: Any, taken: bool) -> None:
    data_id = house.waiting(1, text="one")
    dead = house.take(lease=0)
    house.reconcile()
    house.store.cancel(data_id, house.answer(data_id, "cancelled"))
    rows = house.take() if taken else []
    assert house.resolves.restore(house.transaction(dead), dead)
    assert not taken or not house.resolves.store(house.transaction(rows, hash="h2", nonce=8), rows)
    assert [one.hash for one in house.resolves.in_flight()] == ["h1"]


def test_a_job_whose_record_is_lost_is_settled_and_reported_from_the_journal(house: Any) -> None:
    tx, rows = house.signed(1)
    house.redis.flushall()
    assert house.resolves.restore(tx, rows)
    assert house.store.get(house.data_id(1)).state is State.RESOLVING
    assert house.resolves.settle("h1", [ACCEPTED])
    assert house.reports.due(1)[0].report.output == b"one"
    assert house.store.by_request_id(1).verdict is Verdict.ACCEPTED


def test_restoring_what_is_in_flight_or_over_changes_nothing_and_says_whether_the_entry_may_go(house: Any) -> None:
    tx, rows = house.signed(1)
    house.resolves.attempted("h1")
    assert house.resolves.restore(tx, rows)
    assert house.resolves.in_flight()[0].attempts == 1
    house.resolves.settle("h1", [ACCEPTED])
    assert not house.resolves.restore(tx, rows)
    house.redis.delete(f"ovm:job:{house.data_id(1)}")
    assert not house.resolves.restore(tx, rows)
    assert house.resolves.in_flight() == []


def test_a_journal_entry_that_redis_knows_to_be_dead_is_not_revived(house: Any) -> None:
    tx, rows = house.signed(1)
    house.resolves.dead("h1", 0)
    assert not house.resolves.restore(tx, rows)
    again = house.take()
    house.resolves.store(house.transaction(again, hash="h2", nonce=8), again)
    assert not house.resolves.restore(tx, rows)
    assert [one.hash for one in house.resolves.in_flight()] == ["h2"]


def test_a_restored_transaction_does_not_take_a_row_from_a_newer_one_that_is_in_flight(house: Any) -> None:
    house.waiting(1)
    forget = house.snapshot()
    rows = house.take()
    first = house.transaction(rows)
    house.resolves.store(first, rows)
    forget()
    again = house.take()
    house.resolves.store(house.transaction(again, hash="h2", nonce=8), again)
    assert house.resolves.restore(first, rows)
    assert house.resolves.dead("h1", 0)
    assert house.resolves.waiting_count() == 0
    assert house.resolves.settle("h2", [ACCEPTED])
    assert house.store.get(house.data_id(1)).verdict is Verdict.ACCEPTED


def test_a_row_never_waits_while_any_transaction_that_carries_it_is_in_flight(house: Any) -> None:
    house.waiting(1)
    forget = house.snapshot()
    rows = house.take()
    first = house.transaction(rows)
    house.resolves.store(first, rows)
    forget()
    again = house.take()
    house.resolves.store(house.transaction(again, hash="h2", nonce=8), again)
    house.resolves.restore(first, rows)
    assert house.resolves.dead("h2", 0)
    assert house.resolves.waiting_count() == 0
    assert house.resolves.dead("h1", 0)
    assert house.resolves.waiting_count() == 1


def test_one_row_that_fails_alone_makes_no_batch_smaller(house: Any) -> None:
    house.signed(1)
    house.resolves.settle("h1", [RowOutcome(None, "congested")])
    for number in (2, 3, 4):
        house.waiting(number)
    assert len(house.take()) == 1
    assert len(house.take()) == 3


def test_the_first_of_two_transactions_that_lands_settles_the_job(house: Any) -> None:
    house.waiting(1)
    forget = house.snapshot()
    rows = house.take()
    first = house.transaction(rows)
    house.resolves.store(first, rows)
    forget()
    again = house.take()
    house.resolves.store(house.transaction(again, hash="h2", nonce=8), again)
    house.resolves.restore(first, rows)
    assert house.resolves.settle("h1", [ACCEPTED])
    assert house.resolves.settle("h2", [RowOutcome(Verdict.RESOLVED_ELSEWHERE)])
    job = house.store.get(house.data_id(1))
    assert (job.verdict, job.transaction_hash) == (Verdict.ACCEPTED, "h1")
