"""The execute stage: from a module and an input to the payload that the contract will get."""

from __future__ import annotations

import functools
from typing import Any

from offchainvm import health, logs, metrics
from offchainvm.app import app
from offchainvm.cancellation import InHand
from offchainvm.contract import ContractReader
from offchainvm.engine import probe
from offchainvm.engine.base import ExecutionResult, Executor
from offchainvm.errors import RETRIES, ExecutionError, JobError, OffchainVMError, SettingsError, Status
from offchainvm.executions import Executions, answer_of
from offchainvm.jobs.record import Claim, Job, Stage, ToCompile, ToResolve, Transition
from offchainvm.settings import Role, Settings, load
from offchainvm.tasks import rooms
from offchainvm.tasks.stage import StageRunner

log = logs.get_logger()

GRACE_SECONDS = 60
_ENGINE_KEPT_SECONDS = 60.0
"""Of the check that runs a module: it starts processes."""


class ExecuteWork:
    """Runs a job's module on its input, in the engine's sandbox."""

    def __init__(self, *, executions: Executions, executor: Executor, chain: ContractReader) -> None:
        self._executions = executions
        self._executor = executor
        self._chain = chain
        self._in_hand = InHand[Claim]()

    def __call__(self, claim: Claim) -> Transition | None:
        job, cancellation = claim.job, self._in_hand.begin(claim)
        try:
            module = self._executions.module_of(job)
        except JobError as error:
            return self._to_compile(job, error)
        result = self._executor.execute(module.path, self._executions.request_of(job), cancellation=cancellation)
        _count(result)
        if result.status is Status.CANCELLED:
            return None
        if result.status is Status.INVALID_MODULE and not job.rebuild:
            return self._to_compile(job, self._executions.refuse(job, module, result), bad_sha256=module.sha256)
        return _answer(job, result)

    def abandon(self, claim: Claim) -> None:
        """Called from another thread when the claim is lost: its guest, should it run, is ended at once."""
        self._in_hand.cancel(claim)

    def _to_compile(self, job: Job, error: JobError, *, bad_sha256: str | None = None) -> ToCompile:
        """A cached module that is absent, rubbish or invalid: build it from the source, once."""
        source = job.source or self._chain.source_of(job)
        if source is None or job.rebuild:
            raise error
        log.warning("The cached module cannot be used; it is built again.", action="rebuild_module", error=error.sentence)
        return ToCompile(reason=error.sentence, bad_sha256=bad_sha256, source=source)


def _count(result: ExecutionResult) -> None:
    metrics.EXECUTIONS.add(status=result.status.value)
    metrics.EXECUTION_SECONDS.observe(result.wall_ms / 1000)
    metrics.EXECUTION_INSTRUCTIONS.observe(result.instructions_used)
    metrics.EXECUTION_MEMORY_BYTES.observe(result.peak_memory_bytes)


def _answer(job: Job, result: ExecutionResult) -> ToResolve:
    rule = RETRIES.get(result.status.value)
    if rule is not None and job.attempt < rule.times:
        raise ExecutionError(result.status, result.message)
    return answer_of(job, result)


def prepare(_app: Any, settings: Settings) -> None:
    """Look at what the engine needs, and set the hard limit of a message from the longest execution.

    Raises:
        SettingsError: an engine or a metering that this version does not have, or that is not usable here. Found in a
            job it would be nobody's fault, and every job would be tried again for ever.
    """
    problems = rooms.engine_problems(settings)
    if problems:
        raise SettingsError(problems)
    health.add_check("coordinator", rooms.coordinator(settings).health)
    health.add_check("rpc", rooms.rpc(settings).final_block)
    health.add_check("engine", lambda: rooms.check_engine(settings), kept_seconds=_ENGINE_KEPT_SECONDS)
    health.add_check("guest confinement", _confinement)
    _confinement()
    execute_jobs.time_limit = settings.max_execution_seconds + 2 * GRACE_SECONDS


@functools.cache
def _confinement() -> str:
    """What the health check tells; never a reason not to work, since each guest is still held by the engine itself."""
    try:
        return probe.report()
    except OffchainVMError as error:
        log.warning("This host does not hold guests as it should.", action="probe_confinement", reason=str(error))
        return str(error)


@functools.cache
def _runner() -> StageRunner:
    settings = load([Role.EXECUTE])
    store = rooms.job_store(settings)
    chain = rooms.contract_reader(settings)
    work = ExecuteWork(executions=rooms.executions(settings, store, chain), executor=rooms.executor(settings), chain=chain)
    return StageRunner(
        stage=Stage.EXECUTE,
        store=store,
        work=work,
        owner=rooms.owner(settings),
        hard_limit_seconds=settings.max_execution_seconds + GRACE_SECONDS,
    )


@app.task(name="offchainvm.execute")  # type: ignore[untyped-decorator]
def execute_jobs(message: dict[str, Any]) -> None:
    """Celery's entry to the execute stage."""
    _runner().run(message)
