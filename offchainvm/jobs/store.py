"""The job record: every change is one script, fenced and repeatable."""

from __future__ import annotations

from enum import Enum

from redis import Redis

from offchainvm.jobs.record import Claim, Event, Job, ModuleRecord, Stage, State, Transition
from offchainvm.models import CompileTask, ExecuteTask, ResourceLimits

DEFAULT_RETENTION_SECONDS = 72 * 3600


class Acceptance(str, Enum):
    """What became of a task that came from the Coordinator."""

    NEW = "new"
    KNOWN = "known"
    SETTLED = "settled"


class RetryAnswer(str, Enum):
    """What ``retry`` did, or why it did not."""

    QUEUED = "queued"
    UNKNOWN = "unknown"
    BUSY = "busy"
    CARRIED = "carried"


class JobStore:
    """Reads and changes records. Every method raises ``errors.Unavailable("redis")`` while Redis is away."""

    def __init__(self, redis: Redis, *, retention_seconds: int = DEFAULT_RETENTION_SECONDS) -> None: ...

    def accept(
        self,
        task: CompileTask | ExecuteTask,
        *,
        stage: Stage,
        limits: ResourceLimits,
        limits_clamped: tuple[str, ...] = (),
        source_key: str | None = None,
        commit_sha: str | None = None,
        deadline_height: int | None = None,
        token: str | None = None,
    ) -> Acceptance:
        """Make a job of a task, once for each data_id; a settled one has its report queued again."""

    def claim(self, data_id: str, stage: Stage, *, owner: str, lease_seconds: float, token: str | None = None) -> Claim | None: ...

    def renew(self, claim: Claim, *, lease_seconds: float) -> bool: ...

    def commit(self, claim: Claim, transition: Transition, *, token: str | None = None) -> bool: ...

    def put_back(self, claim: Claim, *, delay_seconds: float, note: str, counted: bool, token: str | None = None) -> bool: ...

    def hand_back(self, data_ids: list[str], stage: Stage) -> None: ...

    def get(self, data_id: str) -> Job | None: ...

    def history(self, data_id: str) -> list[Event]: ...

    def list_jobs(self, state: State | None = None, limit: int = 50) -> list[Job]: ...

    def by_request_id(self, request_id: int) -> Job | None: ...

    def retry(self, data_id: str) -> RetryAnswer: ...

    def module(self, source_key: str) -> ModuleRecord | None: ...

    def remember_module(self, source_key: str, module: ModuleRecord) -> None: ...

    def forget_module(self, source_key: str) -> None: ...

    def record_input(self, data_id: str, input_data: str, height: int) -> None: ...

    def recorded_input(self, data_id: str) -> tuple[str, int] | None: ...

    def reject(self, untrusted_task: bytes, reason: str, request_id: int | None) -> None: ...

    def rejected(self, limit: int = 100) -> list[dict[str, object]]: ...

    def queued_count(self) -> int: ...

    def counts(self) -> dict[str, int]: ...

    def server_run_id(self) -> str: ...
