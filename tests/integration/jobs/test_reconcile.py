"""What messages lose, the reconciler finds: bounded, and never on the word of an outage."""

from __future__ import annotations

from typing import Any

from offchainvm.jobs.reconcile import Reconciled, Reconciler
from offchainvm.jobs.record import Stage, State


def test_a_job_whose_message_is_lost_is_published_again(house: Any) -> None:
    data_id = house.accept()
    house.messages()
    assert house.reconcile().republished == 1
    assert house.sent() == [("execute", (data_id,))]


def test_a_young_job_is_left_in_peace(house: Any) -> None:
    house.accept()
    house.messages()
    reconciler = Reconciler(house.redis, republish_seconds=30)
    assert reconciler.run(observed_seconds=99, lease_seconds=9, published={}) == Reconciled()


def test_nothing_is_published_again_while_there_are_as_many_messages_as_jobs(house: Any) -> None:
    for number in range(5):
        house.accept(number)
    assert house.reconcile().republished == 0
    house.messages()
    assert house.reconcile(execute=5).republished == 0
    assert house.reconcile(execute=3).republished == 2


def test_a_lost_message_is_missed_while_others_are_at_work_too(house: Any) -> None:
    lost = house.accept(1)
    for number in range(2, 5):
        house.claim(house.accept(number))
    house.messages()
    assert house.reconcile(execute=3).republished == 1  # three messages, and all of them of jobs at work
    assert house.sent() == [("execute", (lost,))]
    assert house.reconcile(execute=4).republished == 0


def test_a_backlog_of_a_thousand_jobs_makes_no_storm(house: Any) -> None:
    for number in range(1000):
        house.accept(number)
    house.messages()
    reconciler = Reconciler(house.redis, republish_seconds=0.001, max_backoff_seconds=3600, batch=100)
    house.redis.zadd("ovm:queued:execute", {house.data_id(number): 1 for number in range(1000)})
    runs = [reconciler.run(observed_seconds=99, lease_seconds=9, published={Stage.EXECUTE: 950}).republished for _ in range(3)]
    assert runs == [50, 0, 0]


def test_each_publication_doubles_the_patience_for_that_job(house: Any) -> None:
    data_id = house.accept()
    house.messages()
    reconciler = Reconciler(house.redis, republish_seconds=10)
    waits = []
    for _ in range(3):
        house.redis.zadd("ovm:queued:execute", {data_id: 1})
        assert reconciler.run(observed_seconds=99, lease_seconds=9, published={}).republished == 1
        house.messages()
        now_ms = int(house.redis.time()[0]) * 1000
        waits.append(round((house.redis.zscore("ovm:queued:execute", data_id) + 10_000 - now_ms) / 10_000))
    assert waits == [2, 4, 8]


def test_a_claimed_job_is_not_published(house: Any) -> None:
    house.claim(house.accept())
    house.messages()
    assert house.reconcile() == Reconciled()


def test_a_dead_worker_is_one_death_however_often_it_is_looked_at(house: Any) -> None:
    data_id = house.accept()
    house.claim(data_id, lease=0)
    house.messages()
    assert [house.reconcile(execute=1).deaths for _ in range(3)] == [1, 0, 0]
    assert house.store.get(data_id).deaths == 1
    assert house.sent() == [("execute", (data_id,))]


def test_three_deaths_poison_a_job_and_two_do_not(house: Any) -> None:
    data_id = house.accept()
    for _ in range(3):
        assert not house.claim(data_id, lease=0).poisoned
        house.reconcile()
    poisoned = house.claim(data_id)
    assert poisoned.poisoned
    assert house.store.commit(poisoned, house.answer(data_id))


def test_an_outage_of_redis_poisons_nobody(house: Any) -> None:
    claim = house.claim(house.accept(), lease=0)
    for _ in range(5):
        assert house.reconcile(observed=59, lease=60).deaths == 0
    assert house.store.renew(claim, lease_seconds=60)
    assert house.reconcile(observed=60, lease=60).deaths == 0
    assert house.store.get(claim.data_id).deaths == 0


def test_work_put_back_while_services_are_away_never_counts_towards_poison(house: Any) -> None:
    data_id = house.accept()
    for _ in range(5):
        assert house.store.put_back(house.claim(data_id), delay_seconds=0, note="docker away", counted=False)
    assert not house.claim(data_id).poisoned


def test_the_next_stage_begins_without_the_deaths_of_the_one_before(house: Any) -> None:
    builder = house.building(1, lease=0)
    house.reconcile()
    claim = house.claim(builder.data_id, Stage.COMPILE)
    assert claim.job.deaths == 1
    house.store.commit(claim, house.built())
    assert house.claim(builder.data_id).job.deaths == 0


def test_a_duplicate_message_of_a_running_or_settled_job_is_skipped(house: Any) -> None:
    data_id = house.accept()
    house.claim(data_id)
    assert house.store.claim(data_id, Stage.EXECUTE, owner="w2", lease_seconds=9) is None
    house.waiting(2, deadline=1)
    house.take(height=1)
    assert house.store.get(house.data_id(2)).state is State.SETTLED
    assert house.store.claim(house.data_id(2), Stage.EXECUTE, owner="w2", lease_seconds=9) is None


def test_the_bell_rings_again_for_rows_that_grow_old_whatever_the_flag_says(house: Any) -> None:
    house.waiting(1)
    house.messages()
    assert not house.reconcile().rung
    house.redis.set("ovm:bell:last", 1)
    assert house.redis.exists("ovm:bell")
    assert house.reconcile().rung
    assert house.sent() == [("resolve", ())]
    assert not house.reconcile().rung


def test_nobody_rings_when_nothing_waits(house: Any) -> None:
    assert not house.reconcile().rung


def test_what_was_put_back_is_published_once_when_due(house: Any) -> None:
    claim = house.claim(house.accept())
    house.store.put_back(claim, delay_seconds=3600, note="", counted=False)
    house.messages()
    house.redis.zadd("ovm:delayed:execute", {claim.data_id: 1})
    assert [house.reconcile(execute=1).due for _ in range(2)] == [1, 0]
    assert len(house.sent()) == 1


def test_two_reconcilers_do_the_work_of_one(house: Any) -> None:
    house.claim(house.accept(1), lease=0)
    house.accept(2)
    house.messages()
    other = Reconciler(house.redis, republish_seconds=30)
    first = other.run(observed_seconds=9, lease_seconds=9, published={})
    second = other.run(observed_seconds=9, lease_seconds=9, published={})
    assert (first.deaths, second.deaths) == (1, 0)
    assert second == Reconciled()
