"""A job in hand and a store that writes down what is asked of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from offchainvm.jobs.record import Claim, Job, Stage, State
from offchainvm.models import CodeSource, ResourceLimits


class RecordingStore:
    """Stands in for ``JobStore``: hands out one claim a job and keeps every change in ``calls``."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.modules: dict[str, Any] = {}
        self.inputs: dict[str, tuple[str, int]] = {}
        self.commit_answers: list[bool | Exception] = []
        self.put_back_answers: list[bool | Exception] = []
        self.renew_answers: list[bool | Exception] = []

    def claim(self, data_id: str, stage: Stage, *, owner: str, lease_seconds: float) -> Claim | None:
        return self.claims.pop(data_id, None)

    def commit(self, claim: Claim, transition: Any, *, token: str | None = None) -> bool:
        self.calls.append(("commit", (claim.data_id, transition, token)))
        answer = self.commit_answers.pop(0) if self.commit_answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put_back(self, claim: Claim, *, delay_seconds: float, note: str, counted: bool, token: str | None = None) -> bool:
        answer = self.put_back_answers.pop(0) if self.put_back_answers else True
        if isinstance(answer, Exception):
            raise answer
        self.calls.append(("put_back", (claim.data_id, delay_seconds, counted)))
        return answer

    def hand_back(self, data_ids: list[str], stage: Stage) -> None:
        self.calls.append(("hand_back", (list(data_ids), stage)))

    def renew(self, claim: Claim, *, lease_seconds: float) -> bool:
        self.calls.append(("renew", (claim.data_id,)))
        answer = self.renew_answers.pop(0) if self.renew_answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def module(self, source_key: str) -> Any:
        return self.modules.get(source_key)

    def recorded_input(self, data_id: str) -> tuple[str, int] | None:
        return self.inputs.get(data_id)

    def made(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.calls if called == name]


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture
def make_claim() -> Callable[..., Claim]:
    def make(data_id: str = "ab" * 32, **changes: Any) -> Claim:
        job = Job(
            data_id=data_id,
            request_id=7,
            stage=Stage.EXECUTE,
            state=State.RUNNING,
            source=CodeSource(repo="https://github.com/owner/name", commit="1" * 40),
            commit_sha="1" * 40,
            source_key="cd" * 32,
            module_sha256=None,
            limits=ResourceLimits(max_instructions=1000, max_memory_mb=16, max_execution_seconds=2),
            limits_clamped=(),
            input_data="the input",
            attempt=0,
            deaths=0,
            fence=1,
            owner="me",
            rebuild=False,
            deadline_height=300,
            event_height=None,
            response=None,
            verdict=None,
            transaction_hash=None,
            error=None,
            accepted_at=0.0,
            updated_at=0.0,
        )
        return Claim(job=dataclasses.replace(job, **changes), fence=1, owner="me", token="t")

    return make
