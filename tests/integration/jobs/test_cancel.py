"""A job ended by hand: wherever it stands, once, and never beside another answer."""

from __future__ import annotations

import pytest

from offchainvm.answers import failure
from offchainvm.errors import JobCode, JobError
from offchainvm.jobs.record import Stage, State, Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.jobs.single_flight import Builder, Parked
from offchainvm.jobs.store import Acceptance, CancelAnswer, RetryAnswer
from offchainvm.models import ExecuteTask, ResourceLimits


def cancel(house, data_id, *, token=None):
    answer = failure(house.store.get(data_id), JobError(JobCode.CANCELLED, "by hand"))
    return house.store.cancel(data_id, answer, token=token)


def carried_text(house):
    """What a transaction would carry now, for each job that waits."""
    return {row.data_id: row.arguments.decode() for row in house.take()}


def queued(house):
    return house.accept(1)


def delayed(house):
    data_id = house.accept(1)
    assert house.store.put_back(house.claim(data_id), delay_seconds=60, note="", counted=True)
    return data_id


def running(house):
    data_id = house.accept(1)
    house.claim(data_id)
    return data_id


def building(house):
    return house.building(1).data_id


def parked(house):
    house.building(2)
    claim = house.claim(house.accept(1, stage=Stage.COMPILE), Stage.COMPILE)
    assert house.flight.enter(claim, house.source_key()) == Parked()
    return claim.data_id


def answered(house):
    return house.waiting(1, text="the module's own answer")


@pytest.mark.parametrize("place", [queued, delayed, running, building, parked, answered])
def test_a_job_is_cancelled_wherever_it_stands_and_twice_is_once(house, place):
    data_id = place(house)
    assert cancel(house, data_id) is CancelAnswer.CANCELLED
    assert cancel(house, data_id) is CancelAnswer.CANCELLED
    job = house.store.get(data_id)
    assert (job.state, job.stage, job.response.error) == (State.RESOLVING, Stage.RESOLVE, "cancelled: by hand")
    assert [event.what for event in house.store.history(data_id)].count("cancelled") == 1
    counts = house.store.counts()
    left = {name: counts[name] for name in ("compile", "execute", "parked", "waiting")}
    others = 1 if place is parked else 0  # the builder that it waited for
    assert (left, counts["running"]) == ({"compile": 0, "execute": 0, "parked": 0, "waiting": 1}, others)
    assert "cancelled: by hand" in carried_text(house)[data_id]


def test_a_refused_task_has_its_answer_in_the_step_that_accepts_it_and_nobody_can_claim_it(house):
    task = ExecuteTask(request_id=1, data_id=house.data_id(1), wasm_checksum="a" * 64)
    refusal = failure(task, JobError(JobCode.NOT_ALLOWED, "not here"))
    answers = [house.store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), refusal=refusal) for _ in range(2)]
    assert answers == [Acceptance.NEW, Acceptance.KNOWN]
    assert house.sent() == [("resolve", ())]
    assert house.store.claim(task.data_id, Stage.EXECUTE, owner="w", lease_seconds=60) is None
    assert "not_allowed: not here" in carried_text(house)[task.data_id]


def test_who_worked_on_it_has_lost_it(house):
    claim = house.claim(house.accept())
    cancel(house, claim.data_id)
    assert not house.store.renew(claim, lease_seconds=60)
    assert not house.store.commit(claim, house.answer(claim.data_id, "too late"))
    assert not house.store.put_back(claim, delay_seconds=0, note="", counted=True)
    assert house.reconcile().deaths == 0
    assert "too late" not in carried_text(house)[claim.data_id]


def test_the_next_waiter_builds_when_the_builder_is_cancelled(house):
    builder = house.building(1)
    waiter = house.claim(house.accept(2, stage=Stage.COMPILE), Stage.COMPILE)
    assert house.flight.enter(waiter, house.source_key()) == Parked()
    cancel(house, builder.data_id)
    assert ("compile", (waiter.data_id,)) in house.sent()
    again = house.claim(waiter.data_id, Stage.COMPILE)
    assert house.flight.enter(again, house.source_key()) == Builder()


def test_an_answer_that_is_being_signed_stays_until_that_is_over(house):
    data_id = house.waiting()
    rows = house.take()
    assert cancel(house, data_id) is CancelAnswer.BUSY
    house.resolves.give_back(rows)
    assert cancel(house, data_id) is CancelAnswer.CANCELLED


def test_what_a_transaction_carried_is_not_cancelled_not_even_when_that_died(house):
    tx, _ = house.signed(1)
    data_id = house.data_id(1)
    assert cancel(house, data_id) is CancelAnswer.CARRIED
    assert house.resolves.dead(tx.hash, 0)
    assert cancel(house, data_id) is CancelAnswer.CARRIED
    assert "one" in carried_text(house)[data_id]


def test_a_cancelled_job_settles_like_any_other_and_can_be_told_so_again(house):
    data_id = house.accept()
    cancel(house, data_id)
    rows = house.take()
    tx = house.transaction(rows)
    assert house.resolves.store(tx, rows)
    assert cancel(house, data_id) is CancelAnswer.CANCELLED
    assert house.resolves.settle(tx.hash, [RowOutcome(Verdict.ACCEPTED)])
    assert cancel(house, data_id) is CancelAnswer.CANCELLED
    assert house.reports.due(1)[0].report.success is False


def test_a_settled_or_unknown_job_is_not_cancelled(house):
    data_id = house.waiting(deadline=5)
    house.take(height=10)
    assert cancel(house, data_id) is CancelAnswer.SETTLED
    answer = failure(house.store.get(data_id), JobError(JobCode.CANCELLED, "by hand"))
    assert house.store.cancel("ff" * 32, answer) is CancelAnswer.UNKNOWN


def test_a_cancelled_job_can_be_retried_while_nothing_carries_it_and_cancelled_anew(house):
    data_id = house.accept()
    cancel(house, data_id, token="first")
    assert house.store.retry(data_id) is RetryAnswer.QUEUED
    assert house.store.get(data_id).response is None
    assert cancel(house, data_id, token="first") is CancelAnswer.CANCELLED, "a lost reply, asked again"
    assert house.store.get(data_id).state is State.QUEUED
    assert cancel(house, data_id) is CancelAnswer.CANCELLED
    assert house.store.get(data_id).state is State.RESOLVING
