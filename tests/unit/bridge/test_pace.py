"""What the settler believes of the chain's pace, and how few looks that leaves."""

from __future__ import annotations

import pytest

from offchainvm.bridge.pace import Pace


def looks_until(pace: Pace, takes_seconds: float) -> int:
    """Looks until something is found that takes so long; the pace learns of it."""
    waited, looks = pace.first_seconds, 1
    while waited < takes_seconds:
        waited, looks = waited + pace.again_seconds(waited), looks + 1
    pace.found(waited, looks=looks)
    pace.learn()
    return looks


@pytest.mark.parametrize("takes_seconds", [0.02, 0.05, 0.55, 1.8])
def test_a_steady_wait_is_found_by_little_more_than_one_look_and_little_too_late(takes_seconds: float) -> None:
    pace = Pace(0.1)
    for _ in range(100):
        looks_until(pace, takes_seconds)
    looks = [looks_until(pace, takes_seconds) for _ in range(100)]
    assert sum(looks) <= 115
    assert pace.first_seconds <= 1.5 * takes_seconds


def test_a_chain_that_stood_still_once_is_no_slow_chain() -> None:
    pace = Pace(0.5)
    looks_until(pace, 60.0)
    assert pace.first_seconds == 3.0


def test_the_pauses_of_a_long_wait_grow_to_half_a_second() -> None:
    assert [Pace(0.1).again_seconds(waited) for waited in (0.01, 0.4, 60.0)] == pytest.approx([0.02, 0.08, 0.5])


def test_a_block_of_many_teaches_no_more_than_one() -> None:
    one, many = Pace(1.0), Pace(1.0)
    for pace, count in ((one, 1), (many, 100)):
        for _ in range(count):
            pace.found(1.0, looks=1)
        pace.learn()
    assert one == many
