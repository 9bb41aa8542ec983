"""The event monitor on a real Redis: no height passed over, no request lost, one monitor at work."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from offchainvm.bridge.monitor import Monitor
from offchainvm.bridge.unpolled import Unpolled
from offchainvm.errors import Refused, Unavailable
from offchainvm.jobs.record import Stage
from offchainvm.jobs.store import JobStore
from offchainvm.models import CompileTask, NewTask, ResourceLimits
from offchainvm.near.blocks import NOT_YET, SKIPPED, Block, NoBlock

CONTRACT, STANDARD, START = "vm.testnet", "near-offshore", 100
DEFAULTS = ResourceLimits(max_instructions=7, max_memory_mb=8, max_execution_seconds=9)


def data_id(number: int) -> str:
    return bytes([number] * 32).hex()


def event(number: int, **changed: Any) -> str:
    source = {"repo": "owner/name", "commit": "main", "build_target": None}
    request = {
        "request_id": number,
        "sender_id": "a.testnet",
        "code_source": source,
        "resource_limits": None,
        "input_data": f"input {number}",
    }
    element = {"request_data": json.dumps({**request, **changed}), "data_id": [number] * 32, "timestamp": 1}
    return "EVENT_JSON:" + json.dumps({"standard": STANDARD, "version": "1.0.0", "event": "execution_requested", "data": [element]})


@dataclass
class Chain:
    """A block service in memory; heights that it does not name are not there yet."""

    name: str = "block service of tests"
    found: dict[int, Block | NoBlock] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def block(self, height: int) -> Block | NoBlock:
        self.asked.append(height)
        return self.found.get(height, NOT_YET)

    def add(self, height: int, *logs: str, follows: int | None = None) -> None:
        outcome = {"logs": list(logs), "status": {"SuccessValue": ""}}
        receipt = {
            "receipt": {"receiver_id": CONTRACT, "receipt_id": f"R{height}"},
            "execution_outcome": {"outcome": outcome},
            "tx_hash": "T",
        }
        before = height - 1 if follows is None else follows
        shards = [{"receipt_execution_outcomes": [receipt] if logs else []}]
        self.found[height] = Block(height=height, hash=f"H{height}", prev_hash=f"H{before}", prev_height=before, untrusted_shards=shards)


@dataclass
class Created:
    """The Coordinator's ``create``: keeps what it took; raises what it is told to, before or after."""

    tasks: list[NewTask] = field(default_factory=list)
    before: list[Exception] = field(default_factory=list)
    after: list[Exception] = field(default_factory=list)

    def create(self, task: NewTask) -> None:
        if self.before:
            raise self.before.pop(0)
        self.tasks.append(task)
        if self.after:
            raise self.after.pop(0)

    @property
    def ids(self) -> list[int]:
        return [task.request_id for task in self.tasks]


@dataclass
class Admitted:
    tasks: list[CompileTask] = field(default_factory=list)
    fails_for: dict[int, Exception] = field(default_factory=dict)

    def admit(self, task: CompileTask) -> None:
        if task.request_id in self.fails_for:
            raise self.fails_for[task.request_id]
        self.tasks.append(task)


class Room:
    """A contract's monitors, and what is around them."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis, self.store = client, JobStore(client)
        self.chain, self.coordinator, self.admitted = Chain(), Created(), Admitted()

    def monitor(self, *, start_height: int = START, patience_seconds: float = 60.0) -> Monitor:
        doubles: Any = {"coordinator": self.coordinator, "blocks": self.chain}
        admission: Any = self.admitted
        unpolled = Unpolled(
            redis=self.redis, store=self.store, admission=admission, contract_id=CONTRACT, patience_seconds=patience_seconds
        )
        return Monitor(
            redis=self.redis,
            store=self.store,
            unpolled=unpolled,
            newest_height=lambda: START,
            contract_id=CONTRACT,
            standard=STANDARD,
            start_height=start_height,
            scan_interval_seconds=0.5,
            defaults=DEFAULTS,
            **doubles,
        )


@pytest.fixture
def room(redis_client: redis.Redis) -> Room:
    return Room(redis_client)


def walk(monitor: Monitor, turns: int) -> list[float]:
    return [monitor.turn() for _ in range(turns)]


def step_down(monitor: Monitor) -> None:
    stopped = threading.Event()
    stopped.set()
    monitor.run(stopped)


def test_a_skipped_height_is_passed_and_one_that_is_not_there_yet_is_waited_for(room: Room) -> None:
    room.chain.add(100, event(1))
    room.chain.found[101] = SKIPPED
    room.chain.add(102, event(2), follows=100)
    monitor = room.monitor()
    assert walk(monitor, 5) == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert room.chain.asked == [100, 101, 102, 103, 103]
    assert room.coordinator.ids == [1, 2]


def test_limits_that_a_request_leaves_out_are_filled_and_its_input_is_kept_with_its_height(room: Room) -> None:
    room.chain.add(100, event(1))
    walk(room.monitor(), 1)
    [task] = room.coordinator.tasks
    assert (task.resource_limits, task.code_source.build_target) == (DEFAULTS, "wasm32-wasip1")
    assert room.store.recorded_input(data_id(1)) == ("input 1", 100)


def test_the_cursor_stays_until_the_coordinator_has_every_request_of_the_block(room: Room) -> None:
    room.chain.add(100, event(1), event(2))
    room.coordinator.before = [Unavailable("coordinator", "away"), Unavailable("coordinator", "away")]
    monitor = room.monitor()
    for _ in range(2):
        with pytest.raises(Unavailable):
            monitor.turn()
    walk(monitor, 2)
    assert room.chain.asked == [100, 100, 100, 101]
    assert room.coordinator.ids == [1, 2]


def test_a_lost_reply_costs_a_second_task_and_never_a_request(room: Room) -> None:
    room.chain.add(100, event(1), event(2))
    room.coordinator.after = [Unavailable("coordinator", "the reply was lost")]
    monitor = room.monitor()
    with pytest.raises(Unavailable):
        monitor.turn()
    walk(monitor, 1)
    assert room.coordinator.ids == [1, 1, 2]


def test_a_request_that_the_coordinator_refuses_holds_up_no_other(room: Room) -> None:
    room.chain.add(100, event(1), event(2))
    room.coordinator.before = [Refused("422", status=422)]
    walk(room.monitor(), 1)
    assert room.coordinator.ids == [2]


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


def test_a_block_that_does_not_follow_is_not_read_and_the_heights_before_it_are_walked_again(room: Room) -> None:
    room.chain.add(100)
    room.chain.found[101] = SKIPPED
    room.chain.add(102, event(2), follows=101)
    monitor = room.monitor()
    walk(monitor, 2)
    with pytest.raises(Unavailable, match="Block 102 does not follow block 100"):
        monitor.turn()
    assert room.coordinator.ids == []
    room.chain.add(101, event(1))
    walk(monitor, 2)
    assert room.coordinator.ids == [1, 2]


def test_an_event_that_cannot_be_read_is_set_aside_beside_the_good_ones(room: Room) -> None:
    room.chain.add(100, event(1, request_id=-1), event(2))
    walk(room.monitor(), 1)
    assert room.coordinator.ids == [2]
    [rejected] = room.store.rejected()
    assert rejected.reason.startswith("event: ")


def test_another_start_height_begins_anew(room: Room) -> None:
    room.chain.add(100)
    first = room.monitor()
    walk(first, 1)
    step_down(first)
    walk(room.monitor(start_height=50), 1)
    assert room.chain.asked == [100, 50]


def test_a_request_that_no_poll_brought_is_accepted_from_the_chain(room: Room) -> None:
    room.chain.add(100, event(1))
    monitor = room.monitor(patience_seconds=0.0)
    walk(monitor, 1)
    assert room.admitted.tasks == []
    walk(successor(room, monitor), 1)
    [task] = room.admitted.tasks
    assert (task.data_id, task.request_id, task.input_data) == (data_id(1), 1, "input 1")
    assert task.resource_limits == DEFAULTS


def test_a_request_that_breaks_its_admission_holds_up_no_other_and_is_tried_later(room: Room) -> None:
    room.chain.add(100, event(1), event(2))
    room.admitted.fails_for[1] = KeyError("odd")
    monitor = room.monitor(patience_seconds=0.0)
    walk(monitor, 1)
    room.chain.add(101)
    assert walk(successor(room, monitor), 1) == [0.0]
    assert [task.request_id for task in room.admitted.tasks] == [2]
    expected = f"ovm:monitor:{CONTRACT}:expected"
    [(name, due)] = room.redis.zrange(expected, 0, -1, withscores=True)
    assert name in (data_id(1), data_id(1).encode())
    assert 60 < due - time.time() < 600
    room.redis.zadd(expected, {name: 0})
    room.admitted.fails_for.clear()
    room.monitor()._unpolled.admit_overdue()
    assert [task.request_id for task in room.admitted.tasks] == [2, 1]


def test_an_admission_that_cannot_reach_redis_is_repeated_at_once(room: Room) -> None:
    room.chain.add(100, event(1))
    room.admitted.fails_for[1] = Unavailable("redis", "away")
    monitor = room.monitor(patience_seconds=0.0)
    walk(monitor, 1)
    with pytest.raises(Unavailable):
        successor(room, monitor).turn()
    assert room.redis.zcard(f"ovm:monitor:{CONTRACT}:expected") == 1


def test_a_request_that_a_poll_brought_is_not_accepted_again(room: Room) -> None:
    room.chain.add(100, event(1))
    monitor = room.monitor(patience_seconds=0.0)
    walk(monitor, 1)
    polled = CompileTask.model_validate(room.coordinator.tasks[0].model_dump() | {"type": "Compile"})
    room.store.accept(polled, stage=Stage.COMPILE, limits=DEFAULTS)
    walk(successor(room, monitor), 1)
    assert room.admitted.tasks == []


def test_nothing_is_accepted_from_the_chain_within_the_minute(room: Room) -> None:
    room.chain.add(100, event(1))
    monitor = room.monitor()
    walk(monitor, 1)
    walk(successor(room, monitor), 1)
    assert room.admitted.tasks == []


def successor(room: Room, monitor: Monitor) -> Monitor:
    """The next monitor, which looks at what is overdue in its first turn."""
    step_down(monitor)
    return room.monitor(patience_seconds=0.0)
