"""From a job to one run of its module, and from what the engine found to the job's answer: for workers, and for a replay by hand."""

from __future__ import annotations

from dataclasses import replace

from offchainvm.answers import answer
from offchainvm.contract import ContractReader
from offchainvm.engine.base import ExecutionRequest, ExecutionResult
from offchainvm.engine.limits import MIB, Limits
from offchainvm.errors import JobCode, JobError
from offchainvm.jobs.lookups import Lookups
from offchainvm.jobs.record import Job, ToResolve
from offchainvm.models import ExecutionResponse, ResourcesUsed
from offchainvm.modules import CachedModule, ModuleCache

STDERR_TAIL_CHARACTERS = 300


class Executions:
    """Finds what a job runs, and what it is given."""

    def __init__(self, *, records: Lookups, modules: ModuleCache, chain: ContractReader) -> None:
        self._records, self._modules, self._chain = records, modules, chain

    def module_of(self, job: Job, *, sha256: str | None = None) -> CachedModule:
        """The module of a job's source, checked; with the bytes of ``sha256``, else with those that were built last.

        Raises:
            JobError: ``wasm_unavailable``.
            Unavailable: Redis or the Coordinator is away.
        """
        if job.source_key is None:
            raise JobError(JobCode.WASM_UNAVAILABLE, "the job names no module")
        known = self._records.module(job.source_key)
        return self._modules.fetch(job.source_key, sha256 or (known.sha256 if known else None))

    def refuse(self, job: Job, module: CachedModule, result: ExecutionResult) -> JobError:
        """Forget a module that the engine found invalid; why the job has none now."""
        self._modules.forget(job.source_key or "", module.sha256)
        return JobError(JobCode.WASM_UNAVAILABLE, f"the module that was kept for it cannot be used ({result.message})")

    def request_of(self, job: Job) -> ExecutionRequest:
        """What the engine is asked: the input, the limits and the environment of a job.

        Raises:
            JobError: ``input_unavailable``.
            Unavailable: Redis or the chain is away.
        """
        return ExecutionRequest(input=self._input_of(job).encode(), limits=_limits_of(job), environment=self._chain.environment_of(job))

    def _input_of(self, job: Job) -> str:
        if job.input_data is not None:
            return job.input_data
        recorded = self._records.recorded_input(job.data_id)
        return recorded[0] if recorded else self._chain.input_of(job)


def answer_of(job: Job, result: ExecutionResult) -> ToResolve:
    """What the contract and the Coordinator are told of an execution."""
    used = ResourcesUsed(
        instructions=result.instructions_used, memory_bytes=result.peak_memory_bytes, time_seconds=int(result.wall_ms // 1000)
    )
    error = None if result.ok else _error_text(job, result)
    response = ExecutionResponse(success=result.ok, return_value=result.stdout if result.ok else None, error=error, resources_used=used)
    return replace(answer(job, response, execution_time_ms=int(result.wall_ms)), module_sha256=result.module_sha256)


def _limits_of(job: Job) -> Limits:
    limits = job.limits
    if limits.max_instructions is None or limits.max_memory_mb is None or limits.max_execution_seconds is None:
        raise JobError(JobCode.INTERNAL_ERROR, "the job's limits were not filled when it was accepted")
    return Limits(
        instructions=limits.max_instructions, memory_bytes=limits.max_memory_mb * MIB, wall_seconds=float(limits.max_execution_seconds)
    )


def _error_text(job: Job, result: ExecutionResult) -> str:
    text = f"{result.status.value}: {result.message or result.trap or 'the module failed'}"
    if job.limits_clamped:
        text += f" (limits lowered by this operator: {', '.join(job.limits_clamped)})"
    untrusted_tail = result.stderr.decode("utf-8", "replace")[-STDERR_TAIL_CHARACTERS:].strip()
    return f"{text}; stderr: {untrusted_tail}" if untrusted_tail else text
