"""Words of `offchainvm drain` that mean nothing alone."""

from __future__ import annotations

from collections.abc import Callable


def test_a_time_limit_without_a_wait_is_refused(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("drain", "--timeout", "5")
    assert code == 2
    assert "--timeout needs --wait" in err
