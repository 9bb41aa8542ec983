"""Two releases on one Redis: what the release of commit 9a8cccb left in the middle of its work is finished by this one, and the way back.

``records-9a8cccb.json`` was written by that release's own code: a queued job (1), a build (2), a job parked for it (3), an answer that
waits for a signature (4), a transaction in flight (5) with its journal's entry, and the outbox.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offchainvm.answers import failure
from offchainvm.errors import JobCode, JobError
from offchainvm.jobs.record import SCHEMA_VERSION, Claim, Stage, State, UnreadableRecord, Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.jobs.rows import parse_journal_body
from offchainvm.jobs.single_flight import Built
from offchainvm.jobs.store import CancelAnswer, RetryAnswer

STORED = json.loads((Path(__file__).parents[2] / "data" / "records-9a8cccb.json").read_text())
LONG_AGO_MS = 1


@pytest.fixture
def earlier(house):
    """The Redis that the earlier release left."""
    write = {
        "string": house.redis.set,
        "hash": lambda name, fields: house.redis.hset(name, mapping=fields),
        "list": lambda name, values: house.redis.rpush(name, *values),
        "set": lambda name, values: house.redis.sadd(name, *values),
        "zset": house.redis.zadd,
        "stream": lambda name, entries: [house.redis.xadd(name, fields) for fields in entries],
    }
    for name, (kind, value) in STORED["keys"].items():
        write[kind](name, value)
    return house


def test_every_job_of_the_earlier_release_walks_on_to_its_end(earlier):
    house = earlier
    assert ("execute", (house.data_id(1),)) in house.sent(), "its outbox is published"
    build = house.store.get(house.data_id(2))
    theirs = Claim(build, build.fence, build.owner, "theirs")
    assert house.store.renew(theirs, lease_seconds=60), "its worker lives on beside ours"
    house.redis.zadd("ovm:running", {build.data_id: LONG_AGO_MS})
    assert house.reconcile().deaths == 1
    ours = house.claim(build.data_id, Stage.COMPILE)
    assert not house.store.commit(theirs, house.built())
    assert house.store.commit(ours, house.built())
    parked = house.claim(house.data_id(3), Stage.COMPILE)  # the reconciler made it the next builder
    assert isinstance(house.flight.enter(parked, house.source_key()), Built)
    assert house.store.commit(parked, house.built())
    for number in (1, 2, 3):
        data_id = house.data_id(number)
        assert house.store.commit(house.claim(data_id), house.answer(data_id))
    tx, rows = parse_journal_body(STORED["journal"].encode())
    assert house.resolves.restore(tx, rows)
    assert house.resolves.still_in_flight([tx.hash]) == [tx.hash]
    assert [job.data_id for job in house.store.by_transaction(tx.hash)] == [house.data_id(5)]
    assert house.resolves.settle(tx.hash, [RowOutcome(Verdict.ACCEPTED)])
    waiting = house.take()
    mine = house.transaction(waiting, hash="h2", nonce=8)
    assert {row.data_id for row in waiting} == {house.data_id(number) for number in (1, 2, 3, 4)}
    assert house.resolves.store(mine, waiting)
    assert house.resolves.settle(mine.hash, [RowOutcome(Verdict.ACCEPTED)] * 4)
    assert {house.store.get(house.data_id(number)).verdict for number in range(1, 6)} == {Verdict.ACCEPTED}
    assert len(house.reports.due(10)) == 5


@pytest.mark.parametrize(
    ("number", "cancelled", "retried"),
    [
        (1, CancelAnswer.CANCELLED, RetryAnswer.QUEUED),
        (2, CancelAnswer.CANCELLED, RetryAnswer.BUSY),
        (3, CancelAnswer.CANCELLED, RetryAnswer.QUEUED),
        (4, CancelAnswer.CANCELLED, RetryAnswer.QUEUED),
        (5, CancelAnswer.CARRIED, RetryAnswer.CARRIED),
    ],
)
def test_jobs_of_the_earlier_release_are_found_retried_and_cancelled(earlier, number, cancelled, retried):
    job = earlier.store.by_request_id(number)
    assert earlier.store.retry(job.data_id) is retried
    assert earlier.store.cancel(job.data_id, failure(job, JobError(JobCode.CANCELLED, "by hand"))) is cancelled


def test_what_a_newer_release_adds_is_kept_and_what_needs_one_is_left_to_it(house):
    data_id, newer = house.accept(1), house.accept(2)
    house.redis.hset(f"ovm:job:{data_id}", "of_a_newer_release", "kept")
    house.redis.hset(f"ovm:job:{newer}", "needs", SCHEMA_VERSION + 1)
    assert house.store.commit(house.claim(data_id), house.answer(data_id))
    assert house.redis.hget(f"ovm:job:{data_id}", "of_a_newer_release") == b"kept"
    assert house.store.claim(newer, Stage.EXECUTE, owner="older", lease_seconds=60) is None
    with pytest.raises(UnreadableRecord, match="newer version"):
        house.store.get(newer)
    assert house.redis.hget(f"ovm:job:{newer}", "state") == State.QUEUED.value.encode()
