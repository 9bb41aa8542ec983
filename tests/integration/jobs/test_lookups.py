"""Jobs are found again by what an operator has at hand."""

from __future__ import annotations

from offchainvm.jobs.record import Stage, Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.models import ExecuteTask, ResourceLimits


def accept_of(house, number, repository):
    task = ExecuteTask(request_id=number, data_id=house.data_id(number), wasm_checksum="a" * 64)
    house.store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), repository=repository)
    return task.data_id


def ids(jobs):
    return [job.data_id for job in jobs]


def test_a_transaction_is_known_from_its_storing_until_its_jobs_are_forgotten(house):
    tx, _ = house.signed(1, 2)
    carried = [house.data_id(1), house.data_id(2)]
    assert ids(house.store.by_transaction(tx.hash)) == carried
    house.redis.delete(f"ovm:carried:{tx.hash}")  # an earlier release stored it
    assert ids(house.store.by_transaction(tx.hash)) == carried
    assert house.resolves.restore(tx, house.take(0))
    house.resolves.settle(tx.hash, [RowOutcome(Verdict.ACCEPTED), RowOutcome(Verdict.ACCEPTED)])
    assert house.store.by_transaction("another") == []


def test_every_transaction_of_a_job_finds_it_and_none_outlives_its_record(house):
    first, _ = house.signed(1)
    house.resolves.dead(first.hash, 0)
    rows = house.take()
    second = house.transaction(rows, hash="h2", nonce=8)
    house.resolves.store(second, rows)
    house.resolves.settle(second.hash, [RowOutcome(Verdict.ACCEPTED)])
    for tx in (first, second):
        assert ids(house.store.by_transaction(tx.hash)) == [house.data_id(1)]
        assert house.redis.ttl(f"ovm:carried:{tx.hash}") <= house.redis.ttl(f"ovm:job:{house.data_id(1)}")


def test_a_repository_names_its_jobs_the_newest_first_whatever_its_case(house):
    old, new = accept_of(house, 1, "Owner/Name"), accept_of(house, 2, "owner/name")
    house.redis.zadd("ovm:repository:owner/name", {old: 1})
    accept_of(house, 3, "owner/other")
    assert ids(house.store.by_repository("OWNER/name")) == [new, old]
    assert ids(house.store.by_repository("owner/name", 1)) == [new]


def test_the_index_of_a_repository_forgets_jobs_whose_record_is_gone(house):
    gone = accept_of(house, 1, "a/b")
    house.redis.delete(f"ovm:job:{gone}")
    assert house.store.by_repository("a/b") == []
    stays = accept_of(house, 2, "a/b")
    assert house.redis.zrange("ovm:repository:a/b", 0, -1) == [stays.encode()]


def test_the_index_of_a_repository_is_bounded(house):
    house.redis.zadd("ovm:repository:a/b", {f"{number:064x}": number for number in range(5000)})
    house.redis.hset(f"ovm:job:{0:064x}", "state", "settled")
    house.redis.hset(f"ovm:job:{1:064x}", "state", "settled")
    newest = accept_of(house, 6000, "a/b")
    assert house.redis.zcard("ovm:repository:a/b") == 1000
    assert house.redis.zrange("ovm:repository:a/b", -1, -1) == [newest.encode()]
    assert house.redis.ttl("ovm:repository:a/b") > 0


def test_a_sender_names_its_jobs_whether_its_event_came_before_or_after_the_task(house):
    house.store.record_input(house.data_id(1), "", 500, sender_id="alice.near")
    before, after, told = house.accept(1), house.accept(2), house.data_id(3)
    assert house.store.get(after).sender_id is None
    house.store.record_input(after, "", 500, sender_id="alice.near")
    task = ExecuteTask(request_id=3, data_id=told, wasm_checksum="a" * 64)
    house.store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), sender_id="bob.near")
    assert set(ids(house.store.by_sender("alice.near"))) == {before, after}
    assert ids(house.store.by_sender("bob.near")) == [told]
    assert (house.store.get(before).sender_id, house.store.recorded_sender(before)) == ("alice.near", "alice.near")
    assert house.redis.ttl("ovm:sender:alice.near") > 0


def test_the_event_of_a_settled_job_does_not_keep_its_record(house):
    tx, _ = house.signed(1)
    house.resolves.settle(tx.hash, [RowOutcome(Verdict.ACCEPTED)])
    house.store.record_input(house.data_id(1), "", 500, sender_id="alice.near")
    assert ids(house.store.by_sender("alice.near")) == [house.data_id(1)]
    assert house.redis.ttl(f"ovm:job:{house.data_id(1)}") > 0
