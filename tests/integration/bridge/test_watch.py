"""The watch over a contract: one monitor at work, where it goes on, and how far behind it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from offchainvm import metrics
from offchainvm.bridge.assembly import event_monitor
from offchainvm.bridge.monitor import Monitor
from offchainvm.bridge.readings import FleetReadings, monitor_readings
from offchainvm.bridge.watch import LEASE_SECONDS, Lag, look_at_watch
from offchainvm.devnet import serve
from offchainvm.devnet.chain import GENESIS_HEIGHT
from offchainvm.devnet.genesis import Keys, genesis
from offchainvm.devnet.node import NodeApp
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.near.blocks import SKIPPED
from offchainvm.settings import Settings
from tests.support.watching import ACTIVE, CONTRACT, CURSOR, START, Room, data_id, event, step_down, walk


def test_a_successor_goes_on_behind_the_cursor_and_announces_nothing_twice(room: Room) -> None:
    room.chain.add(100, event(1))
    first = room.monitor()
    walk(first, 1)
    step_down(first)
    room.chain.add(101, event(2))
    walk(room.monitor(), 1)
    assert room.chain.asked == [100, 101]
    assert room.coordinator.ids == [1, 2]


def test_one_monitor_is_active_and_another_stands_by_until_it_ends(room: Room) -> None:
    room.chain.add(100, event(1))
    active, waiting = room.monitor(), room.monitor()
    assert walk(active, 1) == [0.0]
    assert walk(waiting, 1) == [3.0]
    assert room.chain.asked == [100]
    step_down(active)
    assert walk(waiting, 1) == [0.5]
    assert room.chain.asked == [100, 101]


@pytest.mark.parametrize(("start_height", "goes_on_at"), [(50, 50), (START, 101), (0, 101)])
def test_another_start_height_begins_anew_and_none_goes_on_from_the_cursor(room: Room, start_height: int, goes_on_at: int) -> None:
    room.chain.add(100)
    first = room.monitor()
    walk(first, 1)
    step_down(first)
    room.newest = 777
    walk(room.monitor(start_height=start_height), 1)
    assert room.chain.asked == [100, goes_on_at]


def test_without_a_start_height_and_a_cursor_the_newest_height_is_the_first(room: Room) -> None:
    room.newest = 777
    walk(room.monitor(start_height=0), 1)
    assert room.chain.asked == [777]


def test_a_frozen_leader_that_wakes_moves_no_cursor_and_announces_nothing_more(room: Room) -> None:
    """It sleeps in the middle of a create; its lease runs out, and another one walks on."""
    room.chain.add(100, event(1), event(2))
    room.chain.add(101, event(3))
    frozen, other = room.monitor(holder="frozen"), room.monitor(holder="other")

    def sleep() -> None:
        room.redis.delete(ACTIVE)
        walk(other, 2)

    room.coordinator.meanwhile = [sleep]
    walk(frozen, 1)
    assert room.coordinator.ids == [1, 2, 3, 1]  # the task in its hands when it froze: told apart by its data id
    assert walk(frozen, 2) == [3.0, 3.0]
    assert room.coordinator.ids == [1, 2, 3, 1]
    holder, cursor = look_at_watch(room.redis, CONTRACT)
    assert (holder, cursor and cursor.height) == ("other", 101)


def test_a_leader_that_lost_its_lease_between_two_requests_leaves_the_second_to_its_successor(room: Room) -> None:
    room.chain.add(100, event(1), event(2))
    former, successor = room.monitor(), room.monitor(holder="successor")

    def lose() -> None:
        room.redis.delete(ACTIVE)
        assert successor._watch.hold()

    room.coordinator.meanwhile = [lose]
    assert walk(former, 2) == [0.0, 3.0]
    assert room.coordinator.ids == [1]
    walk(successor, 1)
    assert room.coordinator.ids == [1, 2]


def test_a_lease_that_ran_out_over_the_last_request_moves_no_cursor(room: Room) -> None:
    room.chain.add(100, event(1))
    room.coordinator.meanwhile = [lambda: room.redis.delete(ACTIVE)]
    monitor = room.monitor()
    walk(monitor, 1)
    assert look_at_watch(room.redis, CONTRACT) == ("", None)
    walk(monitor, 1)
    assert room.coordinator.ids == [1]
    assert room.redis.get(CURSOR) is not None


def test_a_redis_that_lost_its_last_second_is_followed_back_and_told_the_inputs_again(room: Room) -> None:
    room.chain.add(100, event(1))
    room.chain.add(101, event(2))
    monitor = room.monitor()
    walk(monitor, 1)
    before = {name: room.redis.dump(name) for name in room.redis.scan_iter()}
    walk(monitor, 1)
    room.redis.flushall()
    for name, value in before.items():
        room.redis.restore(name, 0, value)
    assert room.store.recorded_input(data_id(2)) is None
    room.chain.add(102)
    walk(monitor, 3)
    assert room.store.recorded_input(data_id(2)) == ("input 2", 101)
    assert room.coordinator.ids == [1, 2, 2]


def test_a_redis_that_lost_everything_does_not_make_the_monitor_skip(room: Room) -> None:
    room.chain.add(100, event(1))
    monitor = room.monitor(start_height=0)
    walk(monitor, 1)
    room.redis.flushall()
    room.newest = 500
    room.chain.add(101, event(2))
    walk(monitor, 2)
    assert room.chain.asked == [100, 101, 101]  # the first of the two met the lost lease
    assert room.coordinator.ids == [1, 2]
    assert room.store.recorded_input(data_id(2)) == ("input 2", 101)


def test_heights_are_read_ahead_in_bounds_while_behind_and_dealt_with_in_order(room: Room) -> None:
    room.chain.age_seconds = 60.0
    for height in range(100, 160):
        if height % 7:
            room.chain.add(height, event(height), follows=height - 1 if (height - 1) % 7 else height - 2)
        else:
            room.chain.found[height] = SKIPPED
    room.newest = 159
    monitor = room.monitor(width=8)
    walk(monitor, 1)
    assert max(room.chain.asked) <= 100 + 7
    walk(monitor, 59)
    assert room.coordinator.ids == [height for height in range(100, 160) if height % 7]
    assert sorted(room.chain.asked) == list(range(100, 160))
    assert walk(monitor, 1) == [0.5]


def test_what_was_read_ahead_is_dropped_with_the_first_error(room: Room) -> None:
    room.chain.age_seconds = 60.0
    for height in range(100, 140):
        room.chain.add(height)
    room.newest, room.chain.away = 139, {102, 103, 104}
    monitor = room.monitor(width=4)
    walk(monitor, 2)
    with pytest.raises(Unavailable):
        monitor.turn()
    room.chain.away.clear()
    walk(monitor, 4)
    cursor = look_at_watch(room.redis, CONTRACT)[1]
    assert cursor is not None
    assert cursor.height == 105


def test_lag_is_known_while_behind_zero_at_the_head_and_nobodys_on_stand_by(room: Room) -> None:
    room.newest, room.chain.age_seconds = 300, 90.0
    room.chain.add(100)
    monitor, waiting = room.monitor(), room.monitor()
    walk(monitor, 1)
    walk(waiting, 1)
    assert waiting.lag is None
    assert monitor.lag is not None
    assert (monitor.lag.blocks, 89 < monitor.lag.seconds < 95) == (200, True)
    with pytest.raises(OffchainVMError, match="200 blocks"):
        monitor.check()
    room.newest = 0
    fresh = room.monitor()
    step_down(monitor)
    walk(fresh, 1)
    assert fresh.lag == Lag(0, 0.0)
    fresh.check()


def test_a_blind_monitor_tells_the_age_of_its_last_block(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.chain.age_seconds = 90.0
    room.chain.add(100)
    monitor = room.monitor()
    walk(monitor, 1)
    assert monitor.lag == Lag(0, 0.0)
    room.newest_away = True
    monkeypatch.setattr(monitor, "_told_at", time.monotonic() - 60)
    walk(monitor, 1)
    assert monitor.lag is not None
    assert (monitor.lag.blocks, 89 < monitor.lag.seconds < 95) == (None, True)
    with pytest.raises(OffchainVMError, match="nobody tells the newest height"):
        monitor.check()
    assert set(monitor_readings(monitor)) == {metrics.MONITOR_EVENTS, metrics.MONITOR_LAG_SECONDS}


def test_the_bridge_tells_the_age_of_a_dead_monitors_cursor(room: Room) -> None:
    rpc = cast("Any", None)
    readings = FleetReadings(redis=room.redis, rpc=rpc, operator_id="o.testnet", contract_id=CONTRACT, journal_bytes=lambda: 0)
    assert readings._look_at_fleet()[metrics.MONITOR_CURSOR_AGE_SECONDS] == {}
    room.chain.age_seconds = 90.0
    room.chain.add(100)
    monitor = room.monitor()
    walk(monitor, 1)
    step_down(monitor)
    assert 89 < readings._look_at_fleet()[metrics.MONITOR_CURSOR_AGE_SECONDS][()] < 95


def test_a_service_that_asks_for_a_long_pause_does_not_cost_the_lease(room: Room) -> None:
    link = room.monitor()._link
    pauses = [link.down(Unavailable("block service", "429", retry_after_seconds=300)) for _ in range(20)]
    assert max(pauses) < LEASE_SECONDS - 5


@dataclass
class LocalChain:
    node: NodeApp
    url: str

    def asked(self, path: str) -> list[dict[str, str]]:
        """The queries of the requests for ``path``."""
        return [seen.request.query for seen in self.node.recorded if seen.request.path == path]


@pytest.fixture
def local_chain() -> Iterator[LocalChain]:
    """A chain at whose head nothing happens, and where nobody waits for a block."""
    keys = Keys.generate(function_call=1)
    node = NodeApp(genesis(keys), keys, block_time_seconds=math.inf)
    node.long_poll = False
    for _ in range(3):
        node.chain.produce()
    with serve.in_thread(node) as url:
        yield LocalChain(node, url)


@pytest.fixture
def watching(room: Room, local_chain: LocalChain) -> Callable[..., Monitor]:
    """An event monitor as these settings make it."""

    def make(**given: object) -> Monitor:
        named = {"neardata_api_url": f"{local_chain.url}/v0/block", "fastnear_api_url": f"{local_chain.url}/status", **given}
        settings = Settings.model_validate({"offchainvm_contract_id": CONTRACT, **named})
        return event_monitor(settings, room.redis, room.store, cast("Any", room.coordinator), cast("Any", room.admitted))

    return make


def test_the_users_settings_say_where_to_begin_whom_to_ask_and_how_often(watching: Any, local_chain: LocalChain) -> None:
    head = local_chain.node.chain.node().final.height
    monitor = watching(scan_interval_seconds=0.25, neardata_api_key="k3y")
    assert walk(monitor, 2) == [0.0, 0.25]
    assert local_chain.asked(f"/v0/block/{head}") == local_chain.asked(f"/v0/block/{head + 1}") == [{"apiKey": "k3y"}]
    assert local_chain.asked("/status")
    step_down(monitor)
    walk(watching(start_block_height=head - 1), 1)
    assert len(local_chain.asked(f"/v0/block/{head - 1}")) == 1


def test_without_the_source_of_the_newest_height_the_block_service_is_asked(watching: Any, local_chain: LocalChain) -> None:
    head = local_chain.node.chain.node().final.height
    assert walk(watching(fastnear_api_url=f"{local_chain.url}/nothing"), 1) == [0.0]
    assert (len(local_chain.asked("/v0/last_block/final")), len(local_chain.asked(f"/v0/block/{head}"))) == (1, 1)


def test_a_service_that_rations_its_answers_is_left_alone_and_loses_no_height(watching: Any, local_chain: LocalChain) -> None:
    head, first = local_chain.node.chain.node().final.height, GENESIS_HEIGHT
    local_chain.node.ration.per_minute = 2
    rationed = watching(start_block_height=first, neardata_requests_per_minute=60_000)
    walk(rationed, 2)
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            rationed.turn()
        assert 0 < (caught.value.retry_after_seconds or 0) <= 60
    assert len(local_chain.asked(f"/v0/block/{first + 2}")) == 1
    step_down(rationed)
    local_chain.node.ration.per_minute = 0
    walk(watching(start_block_height=first), head - first - 1)
    assert len(local_chain.asked(f"/v0/block/{first + 2}")) == 2
    assert len(local_chain.asked(f"/v0/block/{head}")) == 1
