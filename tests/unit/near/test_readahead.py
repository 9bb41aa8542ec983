"""How far ahead blocks are fetched."""

from __future__ import annotations

import pytest

from offchainvm.near.readahead import width_for


@pytest.mark.parametrize(("requests_per_minute", "width"), [(1, 1), (180, 6), (480, 16), (600_000, 16)])
def test_no_more_is_fetched_at_once_than_the_rate_lets_begin_within_two_seconds(requests_per_minute: int, width: int) -> None:
    assert width_for(requests_per_minute) == width
