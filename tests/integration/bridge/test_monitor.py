"""The event monitor on a real Redis: no height passed over, no request lost."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from offchainvm.errors import Refused, Unavailable
from offchainvm.jobs.record import Stage
from offchainvm.models import CompileTask
from offchainvm.near.blocks import SKIPPED
from tests.support.watching import CONTRACT, DEFAULTS, Room, data_id, event, step_down, successor, walk


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


def test_a_block_whose_hash_the_service_told_wrongly_once_is_read_again(room: Room) -> None:
    room.chain.add(100, event(1))
    good, wrong = room.chain.found[100], replace(room.chain.found[100], hash="wrong")
    room.chain.found[100] = wrong
    room.chain.add(101, event(2))
    monitor = room.monitor()
    walk(monitor, 1)
    room.chain.found[100] = good
    for _ in range(2):
        with pytest.raises(Unavailable, match="Block 101 does not follow block 100"):
            monitor.turn()
    walk(monitor, 2)
    assert room.coordinator.ids == [1, 2]


def test_blocks_that_do_not_follow_each_other_are_never_read(room: Room) -> None:
    room.chain.add(100)
    room.chain.add(101, event(1), follows=99)
    monitor = room.monitor()
    walk(monitor, 1)
    for _ in range(4):
        with pytest.raises(Unavailable, match="If this is another chain"):
            monitor.turn()
    assert room.coordinator.ids == []


def test_an_event_that_cannot_be_read_is_counted_once_however_often_its_block_is_read(room: Room) -> None:
    room.chain.add(100, event(1, request_id=-1), event(2))
    room.coordinator.before = [Unavailable("coordinator", "away")] * 3
    monitor = room.monitor()
    for _ in range(3):
        with pytest.raises(Unavailable):
            monitor.turn()
    assert (monitor.malformed, room.store.rejected()) == (0, [])
    walk(monitor, 1)
    assert (monitor.malformed, len(room.store.rejected())) == (1, 1)
    step_down(monitor)
    room.chain.add(99)
    again = room.monitor(start_height=99)
    walk(again, 2)
    assert (again.malformed, len(room.store.rejected())) == (0, 1)


def test_an_event_that_cannot_be_read_is_set_aside_beside_the_good_ones(room: Room) -> None:
    room.chain.add(100, event(1, request_id=-1), event(2))
    walk(room.monitor(), 1)
    assert room.coordinator.ids == [2]
    [rejected] = room.store.rejected()
    assert rejected.reason.startswith("event: ")


def test_a_task_that_a_poll_brought_meanwhile_is_not_created_again(room: Room) -> None:
    room.chain.add(100, event(1))
    room.coordinator.after = [Unavailable("coordinator", "the reply was lost")]
    monitor = room.monitor()
    with pytest.raises(Unavailable):
        monitor.turn()
    polled = CompileTask.model_validate(room.coordinator.tasks[0].model_dump() | {"type": "Compile"})
    room.store.accept(polled, stage=Stage.COMPILE, limits=DEFAULTS)
    walk(monitor, 1)
    assert room.coordinator.ids == [1]


def test_a_block_that_is_read_twice_sets_its_malformed_event_aside_once(room: Room) -> None:
    room.chain.add(100, event(1, request_id=-1), event(2), event(3, request_id=-1))
    room.coordinator.before = [Unavailable("coordinator", "away")]
    monitor = room.monitor()
    with pytest.raises(Unavailable):
        monitor.turn()
    walk(monitor, 1)
    assert len(room.store.rejected()) == 2


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
