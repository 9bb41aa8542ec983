"""The execute stage: from a module and an input to the payload that the contract will get."""

from __future__ import annotations

import functools
import json
from typing import Any

from pydantic import ValidationError

from offchainvm import health, logs, metrics
from offchainvm.answers import answer
from offchainvm.app import app
from offchainvm.cancellation import InHand
from offchainvm.engine import probe
from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Executor
from offchainvm.engine.limits import MIB, Limits
from offchainvm.errors import RETRIES, ExecutionError, JobCode, JobError, OffchainVMError, SettingsError, Status, Unavailable
from offchainvm.jobs.record import Claim, Job, Stage, ToCompile, ToResolve, Transition
from offchainvm.jobs.store import JobStore
from offchainvm.models import CodeSource, ExecutionResponse, ResourcesUsed
from offchainvm.modules import CachedModule, ModuleCache
from offchainvm.near.blocks import Block, BlockService
from offchainvm.near.events import requests_in
from offchainvm.near.rpc import Rpc
from offchainvm.settings import Role, Settings, load
from offchainvm.tasks import rooms
from offchainvm.tasks.stage import StageRunner

log = logs.get_logger()

STDERR_TAIL_CHARACTERS = 300
GRACE_SECONDS = 60


class ExecuteWork:
    """Runs a job's module on its input, in the engine's sandbox."""

    def __init__(self, *, store: JobStore, modules: ModuleCache, executor: Executor, chain: ContractReader) -> None:
        self._store = store
        self._modules = modules
        self._executor = executor
        self._chain = chain
        self._in_hand = InHand[Claim]()

    def __call__(self, claim: Claim) -> Transition | None:
        job, cancellation = claim.job, self._in_hand.begin(claim)
        try:
            module = self._module_of(job)
        except JobError as error:
            return self._to_compile(job, error)
        request = ExecutionRequest(input=self._input_of(job).encode(), limits=_limits_of(job), environment=self._chain.environment_of(job))
        result = self._executor.execute(module.path, request, cancellation=cancellation)
        _count(result)
        if result.status is Status.CANCELLED:
            return None
        return _answer(job, result)

    def abandon(self, claim: Claim) -> None:
        """Called from another thread when the claim is lost: its guest, should it run, is ended at once."""
        self._in_hand.cancel(claim)

    def _module_of(self, job: Job) -> CachedModule:
        if job.source_key is None:
            raise JobError(JobCode.WASM_UNAVAILABLE, "the job names no module")
        known = self._store.module(job.source_key)
        return self._modules.fetch(job.source_key, known.sha256 if known else None)

    def _to_compile(self, job: Job, error: JobError) -> ToCompile:
        """A cached module that is absent or rubbish: build it from the source, once."""
        source = job.source or self._chain.source_of(job.request_id)
        if source is None or job.rebuild:
            raise error
        log.warning("The cached module cannot be used; it is built again.", action="rebuild_module", error=error.sentence)
        return ToCompile(reason=error.sentence, source=source)

    def _input_of(self, job: Job) -> str:
        if job.input_data is not None:
            return job.input_data
        recorded = self._store.recorded_input(job.data_id)
        return recorded[0] if recorded else self._chain.input_of(job)


class ContractReader:
    """What the execute stage may ask of the chain: a request's source, its input, its network."""

    def __init__(self, *, rpc: Rpc, blocks: BlockService, contract_id: str, event_standard: str) -> None:
        self._rpc = rpc
        self._blocks = blocks
        self._contract_id = contract_id
        self._event_standard = event_standard
        self._network_id = ""

    def environment_of(self, job: Job) -> dict[str, str]:
        """The variables that wire.md §4 promises to a module."""
        if not self._network_id:
            self._network_id = self._rpc.chain_id()
        return {
            "NEAR_REQUEST_ID": str(job.request_id),
            "NEAR_CONTRACT_ID": self._contract_id,
            "NEAR_NETWORK_ID": self._network_id,
            "NEAR_MAX_INSTRUCTIONS": str(job.limits.max_instructions),
            "NEAR_MAX_MEMORY_MB": str(job.limits.max_memory_mb),
            "NEAR_MAX_EXECUTION_SECONDS": str(job.limits.max_execution_seconds),
        }

    def source_of(self, request_id: int) -> CodeSource | None:
        """The code source that the contract keeps for a request; None where it keeps none.

        Raises:
            Unavailable: the chain cannot be asked: that says nothing about the source.
        """
        try:
            untrusted_request = json.loads(self._rpc.view(self._contract_id, "get_request", {"request_id": request_id}))
            return CodeSource.model_validate(untrusted_request["code_source"])
        except Unavailable:
            raise
        except (ValidationError, ValueError, TypeError, KeyError, OffchainVMError):
            return None

    def input_of(self, job: Job) -> str:
        """The input in the request's event, where its height is known.

        Raises:
            JobError: ``input_unavailable``.
        """
        if job.event_height is not None:
            block = self._blocks.block(job.event_height)
            if isinstance(block, Block):
                found = requests_in(block, contract_id=self._contract_id, standard=self._event_standard)
                for event in found.requests:
                    if event.data_id == job.data_id:
                        return event.request.input_data
        raise JobError(JobCode.INPUT_UNAVAILABLE, "the task came without its input, and no event of this request is known to this worker")


def _limits_of(job: Job) -> Limits:
    limits = job.limits
    if limits.max_instructions is None or limits.max_memory_mb is None or limits.max_execution_seconds is None:
        raise JobError(JobCode.INTERNAL_ERROR, "the job's limits were not filled when it was accepted")
    return Limits(
        instructions=limits.max_instructions, memory_bytes=limits.max_memory_mb * MIB, wall_seconds=float(limits.max_execution_seconds)
    )


def _count(result: ExecutionResult) -> None:
    metrics.EXECUTIONS.add(status=result.status.value)
    metrics.EXECUTION_SECONDS.observe(result.wall_ms / 1000)
    metrics.EXECUTION_INSTRUCTIONS.observe(result.instructions_used)
    metrics.EXECUTION_MEMORY_BYTES.observe(result.peak_memory_bytes)


def _answer(job: Job, result: ExecutionResult) -> ToResolve:
    rule = RETRIES.get(result.status.value)
    if rule is not None and job.attempt < rule.times:
        raise ExecutionError(result.status, result.message)
    used = ResourcesUsed(
        instructions=result.instructions_used, memory_bytes=result.peak_memory_bytes, time_seconds=int(result.wall_ms // 1000)
    )
    error = None if result.ok else _error_text(job, result)
    response = ExecutionResponse(success=result.ok, return_value=result.stdout if result.ok else None, error=error, resources_used=used)
    return answer(job, response, execution_time_ms=int(result.wall_ms))


def _error_text(job: Job, result: ExecutionResult) -> str:
    text = f"{result.status.value}: {result.message or result.trap or 'the module failed'}"
    if job.limits_clamped:
        text += f" (limits lowered by this operator: {', '.join(job.limits_clamped)})"
    untrusted_tail = result.stderr.decode("utf-8", "replace")[-STDERR_TAIL_CHARACTERS:].strip()
    return f"{text}; stderr: {untrusted_tail}" if untrusted_tail else text


def prepare(_app: Any, settings: Settings) -> None:
    """Look at what the engine needs, and set the hard limit of a message from the longest execution.

    Raises:
        SettingsError: an engine or a metering that this version does not have, or that is not usable here. Found in a
            job it would be nobody's fault, and every job would be tried again for ever.
    """
    problems = rooms.engine_problems(settings)
    if problems:
        raise SettingsError(problems)
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
    chain = ContractReader(
        rpc=rooms.rpc(settings),
        blocks=BlockService(
            settings.neardata_api_url,
            api_key=settings.neardata_api_key,
            requests_per_minute=settings.neardata_requests_per_minute,
            ca_bundle=settings.ca_bundle,
        ),
        contract_id=settings.offchainvm_contract_id,
        event_standard=settings.event_standard,
    )
    work = ExecuteWork(store=store, modules=rooms.module_cache(settings), executor=rooms.executor(settings), chain=chain)
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
