"""The switch that keeps new work out, and when a fleet is empty."""

from __future__ import annotations

import threading

import pytest

from offchainvm import cli
from offchainvm.cli.drain import left
from offchainvm.jobs import journals as journals_module
from offchainvm.jobs.journals import Held, Journals
from offchainvm.jobs.pauses import FLEET, Pauses
from offchainvm.jobs.record import Verdict
from offchainvm.jobs.resolves import JournalAwaited, RowOutcome


@pytest.fixture
def pauses(house):
    return Pauses(house.redis)


def begin(pauses, worker="b1", *, longest=60.0):
    return pauses.begin_poll(worker, f"{worker}:poll", longest_seconds=longest)


def test_the_fleet_or_one_bridge_is_paused_until_it_is_resumed(pauses):
    pauses.pause("b1", reason="new disk")
    assert (begin(pauses, "b1"), begin(pauses, "b2")) == (False, True)
    pauses.pause()
    assert (begin(pauses, "b1"), begin(pauses, "b2")) == (False, False)
    assert [(one.worker, one.reason) for one in pauses.all()] == [(FLEET, ""), ("b1", "new disk")]
    assert (pauses.resume(), pauses.resume()) == (True, False)
    assert (pauses.holds("b1"), pauses.holds("b2")) == (True, False)
    assert begin(pauses, "b2")


def test_a_pause_said_again_keeps_its_beginning(pauses):
    pauses.pause(reason="first")
    (before,) = pauses.all()
    pauses.pause(reason="second")
    (after,) = pauses.all()
    assert (after.since, after.reason) == (before.since, "second")


def test_a_poll_on_its_way_counts_until_it_ended_and_a_dead_one_no_longer_than_it_could_last(pauses, house):
    assert begin(pauses, "b1")
    assert begin(pauses, "dead", longest=0)
    pauses.pause()
    assert left(house.redis) == {"polls": 1}
    pauses.end_poll("b1:poll")
    assert left(house.redis) == {}


def test_a_drain_ends_when_the_last_report_is_taken(pauses, house, redis_server, monkeypatch, capsys):
    monkeypatch.setenv("OFFCHAINVM_ENV_FILE", "")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setattr("offchainvm.cli.drain.LOOK_SECONDS", 0.02)
    tx, _ = house.signed(1)

    def drain(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(["drain", *words])
        return ended.value.code

    house.messages()
    assert drain() == 1
    assert "1 in_flight" in capsys.readouterr().out
    assert drain("--wait", "--timeout", "0.1") == 1
    assert not begin(pauses)

    def finish():
        house.resolves.settle(tx.hash, [RowOutcome(Verdict.ACCEPTED)])
        house.reports.done(house.data_id(1))
        house.messages()

    finishing = threading.Timer(0.3, finish)
    finishing.start()
    assert drain("--wait") == 0
    finishing.join()
    assert capsys.readouterr().out.endswith("Left: nothing.\n")


def test_what_a_journal_holds_is_left_until_its_bridge_says_otherwise(house):
    journals = Journals(house.redis)
    journals.tell("disk-1", "b1", 2)
    journals.tell("disk-2", "b2", 1)
    assert left(house.redis) == {"journalled": 3}
    journals.tell("disk-1", "b1", 0)
    journals.leave("disk-2", "b2")
    assert left(house.redis) == {}


def test_a_bridge_that_vanished_is_left_until_its_journal_was_adopted(house, monkeypatch):
    journals = Journals(house.redis)
    journals.tell("disk-1", "b1", 0)
    journals.tell("disk-2", "b2", 0)
    monkeypatch.setattr(journals_module, "STALE_SECONDS", -1.0)
    assert left(house.redis) == {"vanished bridges": 2}
    journals.forget_vanished("disk-1")
    assert left(house.redis) == {"vanished bridges": 1}
    monkeypatch.setattr(journals_module, "_FORGOTTEN_SECONDS", -1.0)
    assert left(house.redis) == {}


def test_what_bridges_hold_and_which_hosts_replayed_are_told_apart(house):
    Journals(house.redis).tell("disk-1", "b1", 2)
    house.resolves.replayed("host", "")
    with pytest.raises(JournalAwaited):
        house.take()
    house.resolves.replayed("host", house.store.server_run_id())
    assert house.take() == []
    assert left(house.redis) == {"journalled": 2}
    assert Journals(house.redis).held() == Held(tasks=2, vanished=0)


def test_a_line_that_an_earlier_bridge_left_among_the_hosts_is_awaited_by_nobody(house):
    house.redis.hset("ovm:journals", "disk-1 b1", '{"tasks": 2, "at": 99999999999999}')
    assert house.take() == []
    assert left(house.redis) == {}
