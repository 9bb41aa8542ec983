"""Whether this host's clock agrees with others: leases, ages and rates are told by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from offchainvm.cli.checks.needs import NotLookedAt
from offchainvm.coordinator import Coordinator
from offchainvm.errors import OffchainVMError
from offchainvm.near.rpc import Rpc
from offchainvm.settings import load_only

_TOLERANCE_SECONDS = 5.0
_DATE_SECONDS = 1.0
"""A Date header tells whole seconds."""
_BLOCK_SECONDS = 30.0
"""How old the newest block of a healthy chain may be."""

Clock = tuple[str, float, Callable[[], float]]
"""Its name, how many seconds it may be behind the truth, and a function that reads it."""


def check_clock() -> str:
    """This clock agrees with those of the Coordinator and of the chain, within some seconds."""
    told, wrong = list[str](), False
    for name, lag_seconds, read in _clocks():
        # A clock that cannot be read has a row of its own.
        with contextlib.suppress(OffchainVMError):
            ahead = _ahead_seconds(read, lag_seconds)
            wrong = wrong or abs(ahead) > _TOLERANCE_SECONDS
            told.append(f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {name}" if round(ahead) else f"agrees with {name}")
    if not told:
        raise NotLookedAt("not checked: neither the Coordinator nor an RPC endpoint tells the time")
    if wrong:
        raise OffchainVMError(
            f"This host's clock: {', '.join(told)}.",
            remedy="Synchronise it (`timedatectl set-ntp true`); where it is right, the other clock is wrong, or the RPC node is behind.",
        )
    return ", ".join(told)


def _clocks() -> Iterator[Clock]:
    settings = load_only(["api_base_url", "api_auth_token", "near_rpc_url", "ca_bundle"])
    if settings.api_base_url:
        with contextlib.closing(Coordinator(settings.api_base_url, settings.api_auth_token, ca_bundle=settings.ca_bundle)) as coordinator:
            yield "the Coordinator", _DATE_SECONDS, coordinator.server_time
    if settings.near_rpc_url:
        yield "the newest block", _BLOCK_SECONDS, Rpc(settings.near_rpc_url, ca_bundle=settings.ca_bundle).newest_block_time


def _ahead_seconds(read: Callable[[], float], lag_seconds: float) -> float:
    """How far this clock is ahead at least (negative: behind); 0 while both may be right."""
    before = time.time()
    there = read()
    after = time.time()
    return max(before - (there + lag_seconds), 0.0) - max(there - after, 0.0)
