"""A claim of one very job, whosever turn it is."""

from __future__ import annotations

from typing import Any

from offchainvm.jobs.record import Claim, Stage
from offchainvm.jobs.store import JobStore


def claim_out_of_turn(redis: Any, data_id: str, stage: Stage, *, owner: str = "w1", lease_seconds: float = 60) -> Claim:
    """The claim, after the job was let to the head of its stage's line."""
    redis.zadd(f"ovm:turns:{stage.value}", {data_id: 0}, xx=True)
    claim = JobStore(redis).claim(data_id, stage, owner=owner, lease_seconds=lease_seconds)
    assert claim is not None
    assert claim.data_id == data_id
    return claim
