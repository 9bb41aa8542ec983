"""One stage, one shape: how any stage of a job survives a crash.

    claim      one script; a fence and a lease, of the job whose turn it is: a message is a call for a worker, and names
               the job that had it sent. Nothing to claim: nobody waits any more. Skip.
    work       a plain function of the claim, in ``compile`` and ``execute``; the lease is renewed beside it.
               It returns the job's next step, or raises from ``errors``.
    commit     one script; the new state and the message for the next stage together, refused under an older fence.

Dies before the claim: the message comes again. Dies between claim and commit: the lease runs out and the reconciler
queues the job again, counting a death; after three the job fails as ``poison``. Dies after the commit: nothing is lost.
Runs twice: the fence lets one commit through. Frozen and woken: its fence is old, its commit is refused.

``resolve`` is no such stage: one message there is a doorbell for many jobs (``tasks.submit``).
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from pydantic import ValidationError

from offchainvm import logs, metrics
from offchainvm.answers import failure
from offchainvm.errors import Cancelled, JobCode, JobError, Unauthorized, Unavailable
from offchainvm.jobs.record import LEASE_SECONDS, Claim, Stage, ToCompile, ToResolve, Transition
from offchainvm.jobs.server import new_token
from offchainvm.jobs.store import JobStore
from offchainvm.models import Wire
from offchainvm.tasks.lease import LeaseKeeper

log = logs.get_logger()

LONGEST_PAUSE_SECONDS = 30.0
COMMIT_PAUSES_SECONDS = (0.2, 0.5, 1, 2, 5, 5, 5, 5, 5, 5)


class StageMessage(Wire):
    """Body of a compile or execute message: ids only, a few under backlog, one claim for each."""

    v: int = 1
    data_ids: tuple[str, ...]


class Work(Protocol):
    """What a stage brings: from a claimed job to its next step; None where the job waits parked, or is not ours any more."""

    def __call__(self, claim: Claim) -> Transition | None: ...

    def abandon(self, claim: Claim) -> None:
        """Told from another thread that the claim is lost: end the work on it at once, its result would be refused."""


class StageRunner:
    """Runs one stage's work over the jobs of a message, one after the other."""

    def __init__(
        self,
        *,
        stage: Stage,
        store: JobStore,
        work: Work,
        owner: str,
        hard_limit_seconds: float,
    ) -> None:
        self._stage = stage
        self._store = store
        self._work = work
        self._owner = owner
        self._keeper = LeaseKeeper(store, lease_seconds=LEASE_SECONDS, hard_limit_seconds=hard_limit_seconds)

    def run(self, untrusted_message: dict[str, Any]) -> None:
        """Work through one message; the ids behind a slow job are handed back, for others to take."""
        try:
            message = StageMessage.model_validate(untrusted_message)
        except ValidationError as error:
            log.error(
                "A message cannot be read and is dropped; the reconciler sends it again.",
                action="drop_message",
                problems=error.error_count(),
            )
            return
        waiting = deque(message.data_ids)
        while (data_id := _first(waiting)) is not None:
            self._run_one(data_id, on_slow=lambda: self._hand_back(waiting))

    def _run_one(self, data_id: str, *, on_slow: Callable[[], None]) -> None:
        claim = self._store.claim(data_id, self._stage, owner=self._owner, lease_seconds=LEASE_SECONDS)
        if claim is None:
            return
        keeping = self._keeper.keeping(claim, on_slow=on_slow, on_lost=lambda: self._work.abandon(claim))
        with logs.bound(data_id=data_id, request_id=claim.job.request_id, stage=self._stage.value), keeping:
            began = time.monotonic()
            outcome = self._work_and_commit(claim)
            metrics.STAGE_RUNS.add(stage=self._stage.value, outcome=outcome)
            metrics.STAGE_SECONDS.observe(time.monotonic() - began, stage=self._stage.value)

    def _work_and_commit(self, claim: Claim) -> str:
        """How the claim ended, as ``metrics.STAGE_RUNS`` names it."""
        step = self._next_step(claim)
        if step is None:
            return "left"
        if not self._commit(claim, step):
            log.warning("Another worker has this job by now; this result is dropped.", action="fence_out")
            return "fenced_out"
        if isinstance(step, ToResolve):
            metrics.ANSWER_SECONDS.observe(max(0.0, time.time() - claim.job.accepted_at))
            return "done" if step.response.success else "failed"
        return "rebuild" if isinstance(step, ToCompile) else "done"

    def _commit(self, claim: Claim, step: Transition) -> bool:
        token = new_token()
        return _outlasting_redis(lambda: self._store.commit(claim, step, token=token))

    def _put_back(self, claim: Claim, *, delay_seconds: float, note: str, counted: bool) -> None:
        # Given up, its lease would run out, and a healthy job would be one death nearer to poison.
        metrics.STAGE_REPEATS.add(stage=self._stage.value, why="failure" if counted else "service_away")
        token = new_token()
        _outlasting_redis(lambda: self._store.put_back(claim, delay_seconds=delay_seconds, note=note, counted=counted, token=token))

    def _next_step(self, claim: Claim) -> Transition | None:
        try:
            if claim.poisoned:
                raise JobError(JobCode.POISON, f"the {self._stage.value} stage died {claim.job.deaths} times on this job")
            return self._work(claim)
        except Cancelled as ended:
            log.info("The work on a job was ended.", action="end_work", reason=ended.sentence)
            return None
        except Unavailable as error:
            pause = min(2.0 * 2 ** min(claim.job.attempt, 4), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)  # noqa: S311 -- jitter
            log.warning("A service is away; the job waits.", action="wait_for_service", service=error.service, reason=error.sentence)
            self._put_back(claim, delay_seconds=error.retry_after_seconds or pause, note=str(error), counted=False)
            return None
        except Unauthorized as error:
            # Our token, which an operator can put right: nothing that the contract must be told for ever.
            log.error("A service does not know us; the job waits.", action="wait_for_service", reason=str(error))
            self._put_back(claim, delay_seconds=LONGEST_PAUSE_SECONDS, note=str(error), counted=False)
            return None
        except JobError as error:
            return self._after(error, claim)
        except Exception as error:
            log.exception("A stage met an error that it does not know.", action="fail_stage")
            return self._after(JobError(JobCode.INTERNAL_ERROR, f"{type(error).__name__} in the {self._stage.value} stage"), claim)

    def _after(self, error: JobError, claim: Claim) -> Transition | None:
        if claim.job.attempt < error.retry.times:
            log.warning("A stage failed and is repeated.", action="retry_stage", code=error.code, attempt=claim.job.attempt)
            self._put_back(claim, delay_seconds=error.retry.delay_seconds, note=error.text, counted=True)
            return None
        metrics.JOBS_FAILED.add(stage=self._stage.value, code=error.code)
        log.info("A job failed.", action="fail_job", code=error.code, error=error.sentence)
        return failure(claim.job, error)

    def _hand_back(self, waiting: deque[str]) -> None:
        rest = _drain(waiting)
        if rest:
            self._store.hand_back(rest, self._stage)


def _outlasting_redis(call: Callable[[], bool]) -> bool:
    """End a claim, however often Redis goes away meanwhile; the call's token makes a repeat the same call."""
    for pause_seconds in COMMIT_PAUSES_SECONDS:
        try:
            return call()
        except Unavailable as error:
            log.warning("A result waits for Redis.", action="wait_to_commit", reason=error.sentence)
            time.sleep(pause_seconds)
    return call()


def _first(waiting: deque[str]) -> str | None:
    try:
        return waiting.popleft()
    except IndexError:  # none left, or the lease's thread handed the last one back just now
        return None


def _drain(waiting: deque[str]) -> list[str]:
    rest = []
    while (data_id := _first(waiting)) is not None:
        rest.append(data_id)
    return rest
