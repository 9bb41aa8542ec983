"""One build a source: who waits, who builds next, who hears of a failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from offchainvm.jobs.record import ModuleRecord, Stage, State, ToCompile
from offchainvm.jobs.single_flight import Builder, Built, Failed, Parked


def park(house: Any, number: int, name: str = "a") -> str:
    claim = house.claim(house.accept(number, stage=Stage.COMPILE), Stage.COMPILE)
    assert house.flight.enter(claim, house.source_key(name)) == Parked()
    return str(claim.data_id)


def enter(house: Any, data_id: str) -> Any:
    return house.flight.enter(house.claim(data_id, Stage.COMPILE), house.source_key())


def test_twenty_who_come_at_once_make_one_builder(house: Any) -> None:
    claims = [house.claim(house.accept(number, stage=Stage.COMPILE), Stage.COMPILE) for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        entrances = list(pool.map(lambda claim: house.flight.enter(claim, house.source_key()), claims))
    assert sorted(type(one).__name__ for one in entrances) == ["Builder"] + ["Parked"] * 19


def test_the_parked_hold_no_claim_and_go_to_execute_when_the_build_succeeds(house: Any) -> None:
    builder = house.building(1)
    waiters = [park(house, number) for number in (2, 3)]
    assert house.store.get(waiters[0]).state is State.PARKED
    house.messages()
    assert house.store.commit(builder, house.built())
    assert house.sent() == [("execute", (data_id,)) for data_id in (builder.data_id, *waiters)]
    assert house.claim(waiters[0]).job.module_sha256 == "5a" * 32
    assert house.store.get(waiters[1]).commit_sha == "c0" * 20


def test_who_comes_after_the_drain_finds_the_module(house: Any) -> None:
    claim = house.claim(house.accept(2, stage=Stage.COMPILE), Stage.COMPILE)
    house.store.commit(house.building(1), house.built())
    assert house.flight.enter(claim, house.source_key()) == Built(ModuleRecord("5a" * 32, 10))


def test_the_parked_hear_of_a_failed_build(house: Any) -> None:
    builder = house.building(1)
    waiter = park(house, 2)
    house.messages()
    assert house.store.commit(builder, house.answer(builder.data_id, failure=("compile_error", "It does not compile.")))
    assert ("compile", (waiter,)) in house.sent()
    assert enter(house, waiter) == Failed("compile_error", "It does not compile.")


def test_a_failure_is_forgotten_so_that_a_later_job_builds_again(house: Any) -> None:
    builder = house.building(1)
    house.store.commit(builder, house.answer(builder.data_id, failure=("fetch_network", "No route.")))
    assert 0 < house.redis.pttl(f"ovm:failed:{house.source_key()}") <= 60_000
    house.redis.delete(f"ovm:failed:{house.source_key()}")
    assert enter(house, house.accept(2, stage=Stage.COMPILE)) == Builder()


def test_put_back_of_the_builder_promotes_one_waiter(house: Any) -> None:
    builder = house.building(1)
    first, second = park(house, 2), park(house, 3)
    house.messages()
    assert house.store.put_back(builder, delay_seconds=60, note="docker away", counted=False)
    assert house.sent() == [("compile", (first,))]
    assert enter(house, first) == Builder()
    assert house.store.get(second).state is State.PARKED


def test_a_builder_that_answers_for_itself_alone_promotes_a_waiter(house: Any) -> None:
    builder = house.building(1)
    waiter = park(house, 2)
    assert house.store.commit(builder, house.answer(builder.data_id))
    assert enter(house, waiter) == Builder()


def test_a_dead_builder_is_followed_by_a_waiter(house: Any) -> None:
    builder = house.building(1, lease=0)
    waiter = park(house, 2)
    house.messages()
    assert house.reconcile().deaths == 1
    assert {message[1] for message in house.sent()} == {(builder.data_id,), (waiter,)}
    assert enter(house, waiter) == Builder()
    assert enter(house, builder.data_id) == Parked()
    assert not house.store.commit(builder, house.built())
    assert house.store.module(house.source_key()) is None


def test_a_promoted_waiter_whose_message_is_lost_does_not_stop_who_comes(house: Any) -> None:
    builder = house.building(1)
    park(house, 2)
    house.store.put_back(builder, delay_seconds=0, note="", counted=False)
    assert enter(house, house.accept(3, stage=Stage.COMPILE)) == Builder()


def test_a_parked_job_without_a_live_build_is_promoted_by_the_reconciler(house: Any) -> None:
    house.building(1)
    waiters = [park(house, 2), park(house, 3)]
    house.redis.delete(f"ovm:build:{house.source_key()}")
    assert house.reconcile(compile=9).promoted == 1
    assert house.reconcile(compile=9).promoted == 0
    assert enter(house, waiters[0]) == Builder()


def test_parked_jobs_that_the_drain_left_over_go_to_execute(house: Any) -> None:
    house.building(1)
    waiter = park(house, 2)
    house.module(sha256="5a" * 32, size=10)
    assert house.reconcile().promoted == 1
    assert house.claim(waiter).job.module_sha256 == "5a" * 32


def test_a_live_build_is_left_alone_by_the_reconciler(house: Any) -> None:
    house.building(1)
    park(house, 2)
    assert house.reconcile().promoted == 0


def test_entering_twice_with_one_claim_is_building_once(house: Any) -> None:
    claim = house.building(1)
    assert house.flight.enter(claim, house.source_key()) == Builder()


def test_a_lost_reply_to_enter_is_answered_alike(house: Any) -> None:
    house.building(1)
    claim = house.claim(house.accept(2, stage=Stage.COMPILE), Stage.COMPILE)
    assert [house.flight.enter(claim, house.source_key(), token="t") for _ in range(2)] == [Parked(), Parked()]
    assert house.redis.zcard("ovm:parked") == 1


def test_a_lost_claim_must_not_build(house: Any) -> None:
    claim = house.claim(house.accept(1, stage=Stage.COMPILE), Stage.COMPILE, lease=0)
    house.reconcile()
    assert house.flight.enter(claim, house.source_key()) == Parked()
    assert house.store.get(claim.data_id).state is State.QUEUED


def test_a_module_found_elsewhere_releases_the_waiters_of_a_promise_only(house: Any) -> None:
    builder = house.building(1)
    other = house.claim(house.accept(2, stage=Stage.COMPILE), Stage.COMPILE)
    waiter = park(house, 3)
    assert house.store.commit(other, house.built())
    assert house.store.get(waiter).state is State.PARKED
    assert house.store.commit(builder, house.built())
    assert house.store.get(waiter).stage is Stage.EXECUTE


def test_a_rebuild_is_a_build_like_any_other(house: Any) -> None:
    house.store.commit(house.building(1), house.built())
    claim = house.claim(house.data_id(1))
    assert house.store.commit(claim, ToCompile("truncated", bad_sha256="5a" * 32))
    assert enter(house, claim.data_id) == Builder()


def test_a_rebuild_does_not_take_what_it_found_bad_from_another(house: Any) -> None:
    house.store.commit(house.building(1), house.built())
    claim, other = house.claim(house.data_id(1)), house.claim(house.accept(2, stage=Stage.COMPILE), Stage.COMPILE)
    assert house.store.commit(claim, ToCompile("invalid", bad_sha256="5a" * 32))
    assert house.store.commit(other, house.built())
    assert enter(house, claim.data_id) == Builder()


def test_poison_counts_on_the_source_and_not_once_a_waiter(house: Any) -> None:
    ids = [house.accept(number, stage=Stage.COMPILE) for number in range(4)]
    for data_id in ids[:3]:
        claim = house.claim(data_id, Stage.COMPILE, lease=0)
        assert house.flight.enter(claim, house.source_key()) == Builder()
        house.reconcile(compile=99)
    fresh = house.claim(ids[3], Stage.COMPILE)
    assert not fresh.poisoned
    house.flight.enter(fresh, house.source_key())
    house.store.put_back(fresh, delay_seconds=0, note="", counted=False)
    poisoned = house.claim(ids[3], Stage.COMPILE)
    assert poisoned.poisoned
    assert house.store.commit(poisoned, house.answer(ids[3], failure=("poison", "Three builders died.")))
    assert enter(house, ids[0]) == Failed("poison", "Three builders died.")


def test_a_build_that_succeeds_takes_the_poison_away(house: Any) -> None:
    first = house.building(1, lease=0)
    house.reconcile()
    house.store.commit(house.claim(first.data_id, Stage.COMPILE), house.built())
    assert house.redis.exists(f"ovm:poison:{house.source_key()}") == 0


def test_a_successor_learns_of_the_coordinators_lock(house: Any) -> None:
    key = house.source_key()
    assert house.flight.noted_coordinator_lock(key) is None
    house.flight.note_coordinator_lock(key, "compile:r:c", ttl_seconds=60)
    assert house.flight.noted_coordinator_lock(key) == "compile:r:c"
    house.flight.drop_coordinator_lock(key)
    assert house.flight.noted_coordinator_lock(key) is None
