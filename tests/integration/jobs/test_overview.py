"""The fleet in figures: what waits, for how long, what ended how, what it cost and what was charged for it."""

from __future__ import annotations

from typing import Any

from offchainvm.bridge.readings import earned_yocto
from offchainvm.jobs import overview
from offchainvm.jobs.record import ToResolve, Verdict
from offchainvm.jobs.rows import RowOutcome
from offchainvm.models import ExecutionReport, ExecutionResponse, ResourcesUsed


def test_an_empty_fleet_has_nothing_of_everything(house: Any) -> None:
    now = overview.look(house.redis)
    assert [(queue.jobs, queue.oldest_seconds) for queue in now.queues.values()] == [(0, 0)] * 3
    assert (now.running, now.transactions_in_flight, now.totals, now.spent_yocto) == (0, 0, {}, 0)


def test_queues_are_told_with_the_age_of_their_oldest_though_it_was_published_again(house: Any) -> None:
    first, _, third = (house.accept(number) for number in (1, 2, 3))
    house.redis.hincrby(f"ovm:job:{first}", "updated", -60_000)
    house.redis.zadd("ovm:queued:execute", {first: 2**50})  # what a re-publication does: it goes to the end
    house.claim(third)
    now = overview.look(house.redis)
    assert (now.queues["execute"].jobs, now.running) == (2, 1)
    assert 60 <= now.queues["execute"].oldest_seconds < 120


def test_totals_count_each_job_once_and_add_up_what_the_contract_charges(house: Any) -> None:
    used = ResourcesUsed(instructions=2_999_999, memory_bytes=3 * 2**20 + 1, time_seconds=4)
    response = ExecutionResponse(success=True, return_value=b"x", resources_used=used)
    data_id = house.accept(1)
    report = ExecutionReport(request_id=1, success=True, output=b"x")
    assert house.store.commit(house.claim(data_id), ToResolve(arguments=b"{}", response=response, report=report))
    house.waiting(2)
    rows = house.take()
    transaction = house.transaction(rows)
    assert house.resolves.store(transaction, rows)
    outcomes = [RowOutcome(Verdict.ACCEPTED), RowOutcome(Verdict.REFUSED, "gas")]
    assert [house.resolves.settle(transaction.hash, outcomes, burnt_yocto=7 * 10**20 + 5) for _ in range(2)] == [True, False]
    now = overview.look(house.redis)
    assert {name: now.totals[name] for name in ("accepted", "refused", "answers", "millions", "mib", "seconds")} == {
        "accepted": 1, "refused": 1, "answers": 1, "millions": 2, "mib": 3, "seconds": 4,
    }  # fmt: skip
    assert earned_yocto(now, (10**22, 10**15, 10**20, 10**21)) == 10**22 + 2 * 10**15 + 3 * 10**20 + 4 * 10**21
    assert now.spent_yocto == 7 * 10**20
    spent, seconds = overview.spent_lately(house.redis)
    assert spent == 7 * 10**20
    assert 86_400 <= seconds < 2 * 86_400


def test_a_job_that_is_too_late_counts_as_expired(house: Any) -> None:
    house.waiting(1, deadline=1000)
    house.take(5, height=1000)
    assert overview.look(house.redis).totals == {"expired": 1}
