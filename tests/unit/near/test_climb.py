"""The height to believe, by what nodes told and when."""

from __future__ import annotations

import pytest

from offchainvm.near.climb import Climb

EVERY_SECONDS = 2.0


def judged(told: list[int], *, every_seconds: float = EVERY_SECONDS) -> list[int]:
    climb = Climb()
    return [climb.judge(height, number * every_seconds) for number, height in enumerate(told)]


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        pytest.param([1000, 1001, 1060, 1060], [1000, 1001, 1060, 1060], id="a chain that climbs"),
        pytest.param([1000, 9_000_000, 1001], [1000, 1000, 1001], id="one wrong height"),
        pytest.param([1000, 9_000_000, 1001, 9_000_000], [1000, 1000, 1001, 1001], id="a wrong height now and then"),
        pytest.param([1000, 9_000_000, 8_999_995], [1000, 1000, 8_999_995], id="a jump that the next one confirms"),
        pytest.param([1000, 2000, 3000, 4000, 5000], [1000, 1000, 3000, 3000, 5000], id="a chain faster than any other"),
        pytest.param([1000, 1060, 1020, 1061], [1000, 1060, 1060, 1061], id="a node that lags"),
        pytest.param([1000, 850, 851, 1005, 855, 856], [1000, 1000, 1000, 1005, 1005, 1005], id="two nodes far apart behind one address"),
    ],
)
def test_a_height_counts_when_it_can_be_true(told: list[int], believed: list[int]) -> None:
    assert judged(told) == believed


@pytest.mark.parametrize(
    ("told", "steps_down"),
    [
        pytest.param([850] * 30, False, id="for a minute"),
        pytest.param([850] * 31, True, id="for longer"),
        pytest.param([850] * 20 + [995] + [850] * 30, False, id="borne out meanwhile"),
        pytest.param([850] * 20 + [9_000_000] + [850] * 9, False, id="one doubted meanwhile"),
    ],
)
def test_it_steps_down_only_when_nothing_bears_out_the_old_height(told: list[int], steps_down: bool) -> None:
    assert judged([1000, *told])[-1] == (850 if steps_down else 1000)


def test_after_a_silence_a_chain_may_have_climbed_far() -> None:
    assert judged([1000, 3000], every_seconds=100.0) == [1000, 3000]
