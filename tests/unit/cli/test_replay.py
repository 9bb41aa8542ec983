"""What `offchainvm jobs replay` compares, and what it refuses to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from offchainvm.cli import replay
from offchainvm.engine.base import ExecutionResult, Limits
from offchainvm.errors import OffchainVMError, Status
from offchainvm.jobs.record import Job
from offchainvm.models import ExecutionResponse, ResourcesUsed

RESULT = ExecutionResult(
    Status.OK,
    limits=Limits(instructions=1000, memory_bytes=2**24, wall_seconds=2),
    stdout=b"42",
    instructions_used=9,
    peak_memory_bytes=65536,
    module_sha256="e" * 64,
)


def agreeing(job: Job, **changes: Any) -> dict[str, bool | None]:
    assert job.response is not None
    return {row.name: row.agrees for row in replay.compare(job, job.response, dataclasses.replace(RESULT, **changes))}


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({}, []),
        ({"stdout": b"43"}, ["output"]),
        ({"instructions_used": 10}, ["instructions"]),
        ({"status": Status.TRAP}, ["status", "output"]),
        ({"wall_ms": 1500.0, "peak_memory_bytes": 2**20}, []),
    ],
)
def test_each_difference_is_named(make_job: Callable[..., Job], changes: dict[str, Any], differing: list[str]) -> None:
    assert [name for name, agrees in agreeing(make_job(), **changes).items() if agrees is False] == differing


def test_an_answer_too_large_for_the_chain_agrees_with_the_output_that_made_it_so(make_job: Callable[..., Job]) -> None:
    told = ExecutionResponse(success=False, error="output_too_large: 900 bytes", resources_used=ResourcesUsed(instructions=9))
    assert set(agreeing(make_job(response=told), stdout=b"x" * 900).values()) == {True}


def test_what_the_clock_ended_is_not_compared_by_its_count_nor_by_a_hash_that_nobody_recorded(make_job: Callable[..., Job]) -> None:
    told = ExecutionResponse(success=False, error="timeout: ran for 2 s", resources_used=ResourcesUsed(instructions=7))
    found = agreeing(make_job(response=told, module_sha256=None), status=Status.TIMEOUT, instructions_exact=False)
    assert found == {"module": None, "status": True, "output": True, "instructions": None}


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (None, "has no answer yet"),
        (ExecutionResponse(success=False, error="compile_error: no"), "never ran: the job ended with compile_error"),
        (ExecutionResponse(success=False, error="timeout: the build took 300 s"), "never ran: the job ended with timeout"),
        (ExecutionResponse(success=False, error="not_allowed: no"), "never ran: the job ended with not_allowed"),
    ],
)
def test_a_job_that_never_ran_is_not_run_now(make_job: Callable[..., Job], response: ExecutionResponse | None, told: str) -> None:
    with pytest.raises(OffchainVMError, match=told):
        replay.replay(make_job(response=response), as_json=True)
