"""Whose turn it is: a flood gives way, and no message that is lost, doubled or late costs anybody a turn."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from offchainvm.answers import failure
from offchainvm.errors import JobCode, JobError
from offchainvm.jobs import overview
from offchainvm.jobs.record import SCHEMA_VERSION, Claim, Stage, State
from offchainvm.jobs.store import CancelAnswer, JobStore

FLOOD = range(1, 41)
LATE = 99


def serve(house: Any, stage: Stage = Stage.EXECUTE, *, named: str = "ab" * 32) -> Claim | None:
    """What a worker gets that answers one message, whomever it names."""
    claim: Claim | None = house.store.claim(named, stage, owner="w1", lease_seconds=60)
    return claim


def served(house: Any, stage: Stage = Stage.EXECUTE) -> list[int]:
    """Request ids in the order in which workers get them, until nobody waits."""
    return [claim.job.request_id for claim in iter(lambda: serve(house, stage), None)]


def flood(house: Any, numbers: Iterable[int] = FLOOD, **of: Any) -> list[str]:
    return [house.accept(number, **of) for number in numbers]


def test_one_job_of_another_sender_is_served_next_though_forty_of_a_flood_came_before(house: Any) -> None:
    flood(house, sender="flood.near", repository="same/program")
    assert [serve(house).job.request_id for _ in range(3)] == [1, 2, 3]
    house.accept(LATE, sender="other.near", repository="same/program")
    assert served(house) == [4, LATE, *range(5, 41)]


def test_where_no_sender_is_known_repositories_take_turns(house: Any) -> None:
    flood(house, repository="flood/program")
    flood(house, (97, 98, LATE), repository="other/program")
    assert served(house) == [1, 97, 2, 98, 3, LATE, *range(4, 41)]


def test_slow_builds_of_one_repository_hold_nobody_up_whoever_asks_for_them(house: Any) -> None:
    for number in FLOOD:
        house.accept(number, stage=Stage.COMPILE, sender=f"sender-{number}.near", repository="slow/build")
    house.accept(LATE, stage=Stage.COMPILE, sender="other.near", repository="quick/build")
    assert served(house, Stage.COMPILE)[:3] == [1, LATE, 2]


def test_builds_of_one_sender_hold_nobody_up_whatever_repositories_he_names(house: Any) -> None:
    for number in FLOOD:
        house.accept(number, stage=Stage.COMPILE, sender="flood.near", repository=f"fork-{number}/build")
    house.accept(LATE, stage=Stage.COMPILE, sender="other.near", repository="quick/build")
    assert served(house, Stage.COMPILE)[:3] == [1, LATE, 2]


def test_a_build_of_a_flood_takes_no_turn_of_its_execution(house: Any) -> None:
    flood(house, stage=Stage.COMPILE, sender="flood.near")
    house.accept(LATE, sender="flood.near")
    assert served(house) == [LATE]


def test_first_come_first_served_where_the_setting_says_so_and_for_strangers_of_whom_nothing_is_known(house: Any) -> None:
    flood(house, range(1, 4))
    house.store = JobStore(house.redis, fair_share=False)
    flood(house, range(4, 7), sender="flood.near")
    house.accept(LATE, sender="other.near", repository="other/program")
    assert served(house) == [1, 2, 3, 4, 5, 6, LATE]


def test_ever_new_senders_starve_nobody(house: Any) -> None:
    flood(house, (1, 2, 3), sender="steady.near")
    numbers, order = iter(range(100, 1000)), list[int]()
    for _ in range(60):  # two strangers come for each job that is served: the queue only grows
        flood(house, (next(numbers),), sender=f"new-{next(numbers)}.near")
        flood(house, (next(numbers),), sender=f"new-{next(numbers)}.near")
        order.append(serve(house).job.request_id)
    assert {1, 2, 3} <= set(order)


@pytest.mark.parametrize("seed", range(6))
def test_shares_are_served_in_equal_parts_as_long_as_they_last(house: Any, seed: int) -> None:
    chance = random.Random(seed)
    shares = {name: chance.randint(1, 12) for name in "abcde"}
    asked = [name for name, jobs in shares.items() for _ in range(jobs)]
    chance.shuffle(asked)
    for number, name in enumerate(asked, start=1):
        house.accept(number, sender=name)
    rounds = max(shares.values())
    assert overview.look(house.redis).queues["execute"].rounds == rounds
    expected = [{name for name, jobs in shares.items() if jobs > done} for done in range(rounds)]
    order = [asked[number - 1] for number in served(house)]
    for names in expected:
        assert sorted(order[: len(names)]) == sorted(names)
        order = order[len(names) :]
    assert overview.look(house.redis).queues["execute"].rounds == 0


def test_a_doubled_message_serves_somebody_and_a_message_for_nobody_is_dropped(house: Any) -> None:
    first, second = flood(house, (1, 2))
    assert [serve(house, named=first).data_id, serve(house, named=first).data_id] == [first, second]
    assert serve(house, named=second) is None


def test_a_lost_message_is_published_again_and_costs_nobody_a_turn(house: Any) -> None:
    flood(house, (1, 2, 3), sender="one.near")
    lost, *_ = house.messages()
    assert [serve(house).job.request_id for _ in range(2)] == [1, 2]
    assert house.reconcile(execute=2).republished == 1
    assert house.sent() == [("execute", (house.data_id(3),))]
    assert serve(house, named=lost.data_ids[0]).job.request_id == 3


def test_a_repeated_claim_is_answered_alike_though_others_wait(house: Any) -> None:
    first, second = flood(house, (1, 2))
    claims = [house.store.claim(second, Stage.EXECUTE, owner="w1", lease_seconds=60, token="t") for _ in range(2)]
    assert [claim.data_id for claim in claims] == [first, first]
    assert house.store.get(second).state is State.QUEUED


def test_two_workers_get_two_jobs_by_the_same_message(house: Any) -> None:
    first, second = flood(house, (1, 2))
    claims = [house.store.claim(first, Stage.EXECUTE, owner=owner, lease_seconds=60) for owner in ("w1", "w2")]
    assert {claim.data_id for claim in claims} == {first, second}


def test_messages_that_are_handed_back_are_as_many_as_jobs_that_wait(house: Any) -> None:
    ids = flood(house, range(1, 6))
    house.messages()
    for _ in range(3):
        serve(house)
    assert house.store.hand_back(ids[:3], Stage.EXECUTE) == 2, "whose own jobs are served, for those that wait"
    assert [len(named) for _, named in house.sent()] == [1, 1]
    assert served(house) == [4, 5]


def test_who_dies_at_work_lines_up_again_behind_his_own(house: Any) -> None:
    flood(house, (1, 2), sender="one.near")
    house.accept(3, sender="other.near")
    dead = house.store.claim("", Stage.EXECUTE, owner="w1", lease_seconds=0)
    assert house.reconcile(execute=9).deaths == 1
    assert served(house) == [3, 2, int(dead.data_id, 16)]


def test_who_is_put_back_has_a_turn_only_when_he_is_due(house: Any) -> None:
    claim = house.claim(house.accept(1))
    assert house.store.put_back(claim, delay_seconds=60, note="away", counted=False)
    assert serve(house, named=claim.data_id) is None
    house.redis.zadd("ovm:delayed:execute", {claim.data_id: 1})
    house.redis.hset(f"ovm:job:{claim.data_id}", "ready", 0)
    assert house.reconcile().due == 1
    assert served(house) == [1]


def test_who_is_cancelled_or_begins_anew_keeps_no_turn(house: Any) -> None:
    cancelled, anew, _ = flood(house, (1, 2, 3), sender="one.near")
    answer = failure(house.store.get(cancelled), JobError(JobCode.CANCELLED, "by hand"))
    assert house.store.cancel(cancelled, answer) is CancelAnswer.CANCELLED
    house.store.retry(anew)
    assert served(house) == [3]
    assert served(house, Stage.COMPILE) == [2]
    assert house.redis.keys("ovm:turns:*") == []


def test_the_sender_that_the_chain_tells_later_counts_from_the_next_stage(house: Any) -> None:
    builder = house.building(1)
    house.store.record_input(builder.data_id, "{}", 800, sender_id="flood.near")
    assert house.store.commit(builder, house.built())
    flood(house, (2, 3), sender="flood.near")
    house.accept(LATE, sender="other.near")
    assert served(house) == [1, LATE, 2, 3]


def test_what_an_earlier_release_queued_is_served_by_its_own_message(house: Any) -> None:
    theirs, ours = flood(house, (1, 2))
    house.redis.zrem("ovm:turns:execute", theirs)
    house.redis.hdel(f"ovm:job:{theirs}", "fair", "sender", "repository")
    assert serve(house, named=ours).data_id == ours
    assert serve(house, named=ours) is None
    assert serve(house, named=theirs).data_id == theirs


def test_what_an_earlier_release_claimed_has_no_turn_left(house: Any) -> None:
    flood(house, (1, 2), sender="one.near")
    house.redis.hset(f"ovm:job:{house.data_id(1)}", "state", "running")
    assert served(house) == [2]
    assert house.redis.keys("ovm:turns:*") == []


def test_a_job_of_a_newer_release_waits_for_a_newer_worker_and_holds_nobody_up(house: Any) -> None:
    newer, _ = flood(house, (1, 2), sender="one.near")
    house.redis.hset(f"ovm:job:{newer}", "needs", SCHEMA_VERSION + 1)
    assert served(house) == [2]
    house.redis.hset(f"ovm:job:{newer}", "needs", SCHEMA_VERSION)
    assert served(house) == [1]


def test_nothing_is_left_of_shares_that_had_their_turns(house: Any) -> None:
    for number in range(50):
        house.accept(number, sender=f"sender-{number}.near")
    served(house)
    house.accept(LATE, sender="one.near")
    served(house)
    assert house.redis.zcard("ovm:shares:execute") == 0


def test_a_redis_that_forgets_its_last_second_forgets_turns_and_jobs_alike(house: Any) -> None:
    flood(house, (1, 2, 3), sender="one.near")
    forget = house.snapshot()
    house.accept(4, sender="other.near")
    assert serve(house).job.request_id == 1
    forget()
    house.accept(4, sender="other.near")
    assert sorted(served(house)) == [1, 2, 3, 4]
