"""Pauses grow, and the log says a change of state once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from offchainvm.bridge import link as link_module
from offchainvm.bridge.link import Link, turns
from offchainvm.errors import OffchainVMError, Unauthorized, Unavailable


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda _text, **fields: self.lines.append((level, fields["action"]))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    lines = Lines()
    monkeypatch.setattr(link_module, "log", lines)
    return lines.lines


def test_one_line_for_each_change_of_state(lines: list[tuple[str, str]]) -> None:
    link = Link("coordinator")
    link.up()
    for _ in range(5):
        link.down(Unavailable("coordinator", "away"))
    assert not link.well
    for _ in range(3):
        link.down(Unauthorized("wrong token", status=401))
    link.up()
    link.up()
    assert link.well
    assert lines == [("warning", "service_away"), ("error", "service_away"), ("info", "service_back")]


def test_pauses_grow_to_their_limit_and_begin_anew(lines: list[tuple[str, str]]) -> None:
    link = Link("coordinator", longest_seconds=4)
    pauses = [link.down(Unavailable("coordinator", "away")) for _ in range(12)]
    assert pauses[0] <= 0.5
    assert all(2 <= pause <= 4 for pause in pauses[5:])
    link.up()
    assert link.down(Unavailable("coordinator", "away")) <= 0.5


def test_the_service_s_own_wish_counts_up_to_a_minute(lines: list[tuple[str, str]]) -> None:
    link = Link("rpc")
    assert link.down(Unavailable("rpc", "429", retry_after_seconds=20)) == 20
    assert link.down(Unavailable("rpc", "429", retry_after_seconds=3600)) == 60


def test_turns_bear_with_services_but_not_with_bugs(lines: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    stop, link, happened = threading.Event(), Link("redis"), list[str]()
    monkeypatch.setattr(link, "down", lambda _error: 0.0)
    steps: list[OffchainVMError | Exception | None] = [Unavailable("redis", "away"), None, KeyError("bug")]

    def turn() -> float:
        step = steps.pop(0)
        happened.append(type(step).__name__)
        if step is not None:
            raise step
        return 0.0

    with pytest.raises(KeyError):
        turns(stop, link, turn)
    assert happened == ["Unavailable", "NoneType", "KeyError"]
