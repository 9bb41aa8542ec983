"""What a bridge tells of its journal, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from offchainvm.bridge import keeper as keeper_module
from offchainvm.bridge.keeper import Keeper
from offchainvm.errors import Unavailable


class FakeJournals:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.away = False

    def tell(self, *what: Any) -> None:
        self.calls.append(("tell", *what))

    def leave(self, *what: Any) -> None:
        if self.away:
            raise Unavailable("redis", "away")
        self.calls.append(("leave", *what))

    def forget_vanished(self, *what: Any) -> None:
        self.calls.append(("forget", *what))


class Room:
    def __init__(self) -> None:
        self.alone, self.held, self.journals = False, 0, FakeJournals()
        intake = SimpleNamespace(tend=lambda: self.alone, missing=lambda: self.held)
        self.keeper = Keeper(cast("Any", intake), journals=cast("Any", self.journals), home="disk", worker="b1")

    def told(self) -> list[tuple[Any, ...]]:
        calls, self.journals.calls = self.journals.calls, []
        return calls


@pytest.fixture
def room() -> Room:
    return Room()


def test_a_change_is_told_at_once_and_everything_again_before_it_is_stale(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(keeper_module.time, "monotonic", lambda: now[0])
    room.keeper.turn()
    room.keeper.turn()
    assert room.told() == [("tell", "disk", "b1", 0)]
    room.held = 2
    room.keeper.turn()
    assert room.told() == [("tell", "disk", "b1", 2)]
    now[0] += keeper_module.TELL_SECONDS + 0.1
    room.keeper.turn()
    assert room.told() == [("tell", "disk", "b1", 2)]


def test_bridges_that_vanished_are_forgotten_where_nothing_of_theirs_is_left(room: Room) -> None:
    room.keeper.turn()
    assert ("forget", "disk") not in room.told()
    room.alone = True
    room.keeper.turn()
    assert ("forget", "disk") in room.told()


@pytest.mark.parametrize(("held", "away", "told"), [(0, False, [("leave", "disk", "b1")]), (1, False, []), (0, True, [])])
def test_a_bridge_that_stops_is_missed_only_while_its_journal_holds_something(room: Room, held: int, away: bool, told: list[Any]) -> None:
    room.held, room.journals.away = held, away
    room.keeper.leave()
    assert room.told() == told
