"""What must leave the house: messages for the broker, reports for the Coordinator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.record import Verdict
from offchainvm.jobs.reports import Reports
from offchainvm.jobs.resolves import RowOutcome


def settled(house: Any, *numbers: int) -> None:
    for number in numbers:
        house.signed(number, hash=f"h{number}")
        house.resolves.settle(f"h{number}", [RowOutcome(Verdict.ACCEPTED)])


def test_two_relays_share_the_entries(house: Any) -> None:
    ids = [house.accept(number) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        reads = list(pool.map(lambda n: house.outbox.read(5, 0, f"relay-{n % 4}"), range(12)))
    assert sorted(one for messages in reads for message in messages for one in message.data_ids) == sorted(ids)


def test_an_entry_stays_until_it_is_done(house: Any) -> None:
    house.accept()
    (message,) = house.outbox.read(10, 0, "relay-1")
    assert house.redis.xlen("ovm:outbox") == 1
    house.outbox.done([message.entry_id])
    house.outbox.done([])
    assert house.redis.xlen("ovm:outbox") == 0


def test_the_entry_of_a_dead_relay_is_reclaimed_by_another(house: Any) -> None:
    data_id = house.accept()
    house.outbox.read(10, 0, "dead")
    assert house.outbox.read(10, 0, "alive") == []
    assert house.outbox.reclaim(60_000, "alive") == []
    (message,) = house.outbox.reclaim(0, "alive")
    assert (message.data_ids, message.deliveries) == ((data_id,), 2)


def test_an_entry_that_never_succeeds_is_set_aside_and_blocks_nobody(house: Any) -> None:
    bad, good = house.accept(1), house.accept(2)
    outbox = Outbox(house.redis, max_deliveries=3)
    messages = {message.data_ids[0]: message for message in outbox.read(10, 0, "r")}
    outbox.done([messages[good].entry_id])
    assert [len(outbox.reclaim(0, "r")) for _ in range(4)] == [1, 1, 0, 0]
    assert house.redis.xlen("ovm:outbox") == 0
    assert [message.data_ids for message in outbox.aside()] == [(bad,)]
    assert house.reconcile(execute=1).republished == 1


def test_a_broker_that_is_away_sets_nothing_aside(house: Any) -> None:
    house.accept(1)
    (message,) = house.outbox.read(10, 0, "r")
    for _ in range(20):
        house.outbox.keep([message.entry_id], "r")
    (again,) = house.outbox.reclaim(0, "r")
    assert again.deliveries == 2


def test_an_outbox_whose_redis_lost_everything_goes_on(house: Any) -> None:
    house.outbox.read(1, 0, "r")
    house.redis.flushall()
    assert house.outbox.reclaim(0, "r") == []
    house.redis.flushall()
    house.accept(1)
    assert len(house.outbox.read(1, 10, "r")) == 1


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}, {"protocol": 2, "decode_responses": True}])
def test_any_kind_of_client_reads_alike(house: Any, redis_server: Any, options: dict[str, Any]) -> None:
    data_id = house.accept(1)
    settled(house, 2)
    with Redis.from_url(redis_server.url, **options) as client:
        first, *_ = Outbox(client).read(10, 10, "r")
        assert first.data_ids == (data_id,)
        assert Reports(client).due(1)[0].report.output == b"one"
        assert type(house.store)(client).get(data_id).data_id == data_id
        assert type(house.store)(client).counts()["execute"] == 1
        assert Outbox(client).reclaim(0, "r")[0] == type(first)(first.stage, first.data_ids, first.entry_id, 2, first.attempt)


def test_a_report_is_lent_to_one_sender_at_a_time(house: Any) -> None:
    settled(house, 1, 2, 3)
    assert len(house.reports.due(2)) == 2
    assert len(house.reports.due(2)) == 1
    assert house.reports.due(2) == []
    assert house.reports.count() == 3


def test_a_sender_that_died_leaves_its_report_to_the_next(house: Any) -> None:
    settled(house, 1)
    reports = Reports(house.redis, lease_seconds=0)
    assert len(reports.due(1)) == len(reports.due(1)) == 1


def test_a_report_refused_for_ever_delays_no_other(house: Any) -> None:
    settled(house, 1, 2)
    for report in house.reports.due(10):
        house.reports.later(report.data_id, 3600 if report.data_id == house.data_id(1) else 0)
    (due,) = house.reports.due(10)
    assert (due.data_id, due.tries) == (house.data_id(2), 1)
    house.reports.done(due.data_id)
    house.reports.done(due.data_id)
    house.reports.later(due.data_id, 0)
    assert house.reports.count() == 1


def test_a_report_outlives_the_record_of_its_job(house: Any) -> None:
    settled(house, 1)
    house.redis.delete(f"ovm:job:{house.data_id(1)}", f"ovm:tomb:{house.data_id(1)}")
    assert house.reports.due(1)[0].report.request_id == 1
