"""The registry: who is there, who hangs, who vanished with what in hand; through absences of Redis."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from redis import Redis

from offchainvm import fleet
from offchainvm.cli import workers
from offchainvm.errors import Unavailable
from offchainvm.fleet import Heartbeat, Member, Registry
from offchainvm.jobs.record import Stage

EXECUTE = Member("execute@w1", "w1", ("execute",), capacity=2, engines=("wasmtime 48",))
BOTH = Member("compile@w1", "w1", ("compile",))


def vanish(redis: Redis, id: str) -> None:
    """As if it was seen last a minute ago."""
    redis.pexpire(f"ovm:fleet:{id}", int((fleet.KEPT_SECONDS - 60) * 1000))


def states(registry: Registry) -> dict[str, tuple[str, list[str]]]:
    return {one.member.id: (one.state, [job.data_id for job in one.jobs]) for one in registry.sightings()}


def test_each_process_is_shown_with_the_jobs_of_its_own_stages_until_it_leaves(house: Any) -> None:
    registry = Registry(house.redis)
    for member in (EXECUTE, BOTH):
        registry.beat(member, well=True)
    held = house.accept(1)
    house.claim(held, owner="w1:77")
    assert states(registry) == {"execute@w1": ("working", [held]), "compile@w1": ("idle", [])}
    assert registry.sightings()[1].member == EXECUTE
    registry.beat(BOTH, well=False)
    assert states(registry)["compile@w1"] == ("hung", [])
    assert registry.alive("compile") == []
    registry.leave(BOTH)
    assert list(states(registry)) == ["execute@w1"]
    assert ([one.member.id for one in registry.alive("execute")], registry.alive("compile")) == (["execute@w1"], [])


def test_one_that_vanished_is_gone_with_what_it_held_also_when_others_took_that_over(house: Any) -> None:
    registry = Registry(house.redis)
    registry.beat(EXECUTE, well=True)
    held = house.accept(1)
    house.claim(held, owner="w1:77", lease=0.001)
    vanish(house.redis, EXECUTE.id)
    assert states(registry) == {"execute@w1": ("gone", [held])}
    time.sleep(0.01)
    house.reconcile()
    house.claim(held, Stage.EXECUTE, owner="w2:1")
    assert states(registry) == {"execute@w1": ("gone", [held])}
    assert registry.alive("execute") == []


def test_the_table_says_who_is_gone_and_json_says_all(house: Any, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(house.redis)
    registry.beat(EXECUTE, well=True)
    registry.beat(BOTH, well=True)
    vanish(house.redis, EXECUTE.id)
    workers._show(registry.sightings(), as_json=True)
    told = {one["id"]: one for one in json.loads(capsys.readouterr().out)}
    assert (told["execute@w1"]["state"], told["execute@w1"]["capacity"], told["execute@w1"]["engines"]) == ("gone", 2, ["wasmtime 48"])
    assert 59 < told["execute@w1"]["seen_seconds_ago"] < 120
    workers._show(registry.sightings(), as_json=False)
    assert "gone: not seen for 20 s" in capsys.readouterr().out
    workers._show([], as_json=False)
    assert "offchainvm bridge" in capsys.readouterr().out


def test_a_heartbeat_outlives_an_absence_of_redis_and_leaves_at_the_end(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "BEAT_SECONDS", 0.01)
    registry, tries = Registry(house.redis), list[int]()
    beat = registry.beat

    def away_at_first(member: Member, *, well: bool) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("redis", "away")
        beat(member, well=well)

    monkeypatch.setattr(registry, "beat", away_at_first)
    heartbeat = Heartbeat(registry, EXECUTE, well=lambda: True).start()
    deadline = time.monotonic() + 30
    while not registry.alive("execute"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    heartbeat.stop()
    assert registry.sightings() == []
