"""The execute stage's work: which module, which input, and what the contract is told."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from offchainvm.contract import ContractReader
from offchainvm.engine.base import ExecutionResult, Executor
from offchainvm.engine.limits import Limits
from offchainvm.errors import ExecutionError, JobCode, JobError, Refused, Status, Unavailable
from offchainvm.executions import Executions
from offchainvm.jobs.record import ModuleRecord, ToCompile, ToResolve
from offchainvm.models import CodeSource
from offchainvm.modules import CachedModule
from offchainvm.tasks.execute import ExecuteWork

MODULE = CachedModule(path=Path("module.wasm"), sha256="ee" * 32, size=100)
LIMITS = Limits(instructions=1000, memory_bytes=16 * 2**20, wall_seconds=2.0)


class OneResult(Executor):
    def __init__(self, **fields):
        self.result = dataclasses.replace(ExecutionResult(status=Status.OK, limits=LIMITS), **fields)
        self.requests = []

    def execute(self, module, request, *, cancellation=None):
        self.requests.append((module, request))
        return self.result


class Endless(Executor):
    """Runs until it is cancelled, as a guest in a loop does."""

    def __init__(self):
        self.began, self.ended = threading.Event(), threading.Event()

    def execute(self, module, request, *, cancellation=None):
        with cancellation.stopping(self.ended.set):
            self.began.set()
            assert self.ended.wait(20)
        return ExecutionResult(status=Status.CANCELLED, limits=request.limits)


class Modules:
    def __init__(self, error=None):
        self.error, self.asked, self.forgotten = error, [], []

    def fetch(self, source_key, sha256=None):
        self.asked.append((source_key, sha256))
        if self.error:
            raise self.error
        return MODULE

    def forget(self, source_key, sha256):
        self.forgotten.append((source_key, sha256))


class Chain:
    def __init__(self, source=None, input_data=None):
        self.source, self.input_data = source, input_data

    def environment_of(self, job):
        return {"NEAR_REQUEST_ID": str(job.request_id)}

    def source_of(self, job):
        return self.source

    def input_of(self, job):
        if self.input_data is None:
            raise JobError(JobCode.INPUT_UNAVAILABLE, "no input")
        return self.input_data


@pytest.fixture
def work_of(store):
    def make(executor=None, modules=None, chain=None):
        chain = chain or Chain()
        executions = Executions(records=store, modules=modules or Modules(), chain=chain)
        return ExecuteWork(executions=executions, executor=executor or OneResult(), chain=chain)

    return make


def response_of(step):
    assert isinstance(step, ToResolve)
    return json.loads(step.arguments)["response"]


def test_an_answer_is_resolved_with_what_it_used(work_of, make_claim):
    executor = OneResult(stdout=b"42", instructions_used=900, peak_memory_bytes=65536, wall_ms=1999.0)
    step = work_of(executor)(make_claim())
    assert response_of(step) == {
        "success": True,
        "return_value": [52, 50],
        "error": None,
        "resources_used": {"instructions": 900, "memory_bytes": 65536, "time_seconds": 1},
    }
    assert step.report.execution_time_ms == 1999
    [(path, request)] = executor.requests
    assert path == MODULE.path
    assert request.input == b"the input"
    assert request.limits == LIMITS
    assert request.environment == {"NEAR_REQUEST_ID": "7"}


def test_a_failure_keeps_its_metrics_and_names_its_class(work_of, make_claim):
    executor = OneResult(
        status=Status.OUT_OF_FUEL, message="all 1000 instructions were used", instructions_used=1000, stderr=b"panicked at x"
    )
    response = response_of(work_of(executor)(make_claim()))
    assert response["error"] == "out_of_fuel: all 1000 instructions were used; stderr: panicked at x"
    assert response["resources_used"]["instructions"] == 1000
    assert response["return_value"] is None


def test_an_error_says_when_the_limit_that_bit_was_the_operators(work_of, make_claim):
    executor = OneResult(status=Status.TIMEOUT, message="ran for 2 s")
    response = response_of(work_of(executor)(make_claim(limits_clamped=("max_execution_seconds",))))
    assert response["error"] == "timeout: ran for 2 s (limits lowered by this operator: max_execution_seconds)"


def test_an_engine_crash_is_raised_while_it_may_be_repeated_and_told_after(work_of, make_claim):
    executor = OneResult(status=Status.ENGINE_CRASH, message="signal 11", wall_ms=3000)
    with pytest.raises(ExecutionError):
        work_of(executor)(make_claim(attempt=0))
    assert response_of(work_of(executor)(make_claim(attempt=1)))["resources_used"]["time_seconds"] == 3


def test_the_guest_of_a_lost_claim_is_ended_and_nothing_is_answered(work_of, make_claim):
    executor, claim, steps = Endless(), make_claim(), []
    work = work_of(executor)
    working = threading.Thread(target=lambda: steps.append(work(claim)))
    working.start()
    assert executor.began.wait(20)
    work.abandon(make_claim())
    assert not executor.ended.is_set()
    work.abandon(claim)
    working.join(20)
    assert steps == [None]


def test_the_bytes_of_the_record_are_asked_for(work_of, make_claim, store):
    modules = Modules()
    store.modules["cd" * 32] = ModuleRecord(sha256="ee" * 32, size=100)
    work_of(modules=modules)(make_claim())
    assert modules.asked == [("cd" * 32, "ee" * 32)]


def test_a_bad_cached_module_is_built_again_from_the_records_source(work_of, make_claim):
    modules = Modules(JobError(JobCode.WASM_UNAVAILABLE, "rubbish"))
    assert isinstance(work_of(modules=modules)(make_claim()), ToCompile)


def test_a_bad_cached_module_without_a_source_is_built_from_what_the_contract_keeps(work_of, make_claim):
    source = CodeSource(repo="owner/name", commit="main")
    modules = Modules(JobError(JobCode.WASM_UNAVAILABLE, "rubbish"))
    step = work_of(modules=modules, chain=Chain(source=source))(make_claim(source=None))
    assert isinstance(step, ToCompile)
    assert step.source == source


def test_a_bad_cached_module_without_any_source_ends_the_job(work_of, make_claim):
    modules = Modules(JobError(JobCode.WASM_UNAVAILABLE, "rubbish"))
    with pytest.raises(JobError, match="wasm_unavailable"):
        work_of(modules=modules)(make_claim(source=None))


def test_a_module_that_was_rebuilt_and_is_still_bad_ends_the_job(work_of, make_claim):
    modules = Modules(JobError(JobCode.WASM_UNAVAILABLE, "rubbish"))
    with pytest.raises(JobError, match="wasm_unavailable"):
        work_of(modules=modules)(make_claim(rebuild=True))


INVALID = {"status": Status.INVALID_MODULE, "message": "type mismatch"}


def test_a_cached_module_that_the_engine_finds_invalid_is_forgotten_and_built_again(work_of, make_claim):
    modules = Modules()
    step = work_of(OneResult(**INVALID), modules=modules)(make_claim())
    assert isinstance(step, ToCompile)
    assert (step.bad_sha256, "type mismatch" in step.reason) == (MODULE.sha256, True)
    assert modules.forgotten == [("cd" * 32, MODULE.sha256)]


def test_an_invalid_cached_module_without_any_source_is_unavailable(work_of, make_claim):
    with pytest.raises(JobError, match="wasm_unavailable"):
        work_of(OneResult(**INVALID))(make_claim(source=None))


def test_a_module_that_was_rebuilt_and_is_still_invalid_ends_the_job_as_that(work_of, make_claim):
    response = response_of(work_of(OneResult(**INVALID))(make_claim(rebuild=True)))
    assert response["error"] == "invalid_module: type mismatch"


def test_an_input_recorded_by_the_monitor_is_used(work_of, make_claim, store):
    executor = OneResult()
    claim = make_claim(input_data=None)
    store.inputs[claim.data_id] = ("recorded", 120)
    work_of(executor)(claim)
    assert executor.requests[0][1].input == b"recorded"


def test_an_input_is_read_from_the_chain_when_nothing_was_recorded(work_of, make_claim):
    executor = OneResult()
    work_of(executor, chain=Chain(input_data="from its event"))(make_claim(input_data=None))
    assert executor.requests[0][1].input == b"from its event"


def test_a_missing_input_is_an_explicit_error(work_of, make_claim):
    with pytest.raises(JobError, match="input_unavailable"):
        work_of()(make_claim(input_data=None))


def test_an_empty_input_is_an_input(work_of, make_claim):
    executor = OneResult()
    work_of(executor)(make_claim(input_data=""))
    assert executor.requests[0][1].input == b""


class AnsweringRpc:
    def __init__(self, answer):
        self.answer = answer

    def view(self, _contract_id, _method, _arguments):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def source_of(answer, job):
    return ContractReader(rpc=AnsweringRpc(answer), blocks=None, contract_id="vm.test", event_standard="s").source_of(job)


def kept(data_id="ab" * 32, **changes):
    source = {"repo": "owner/name", "commit": "main", "build_target": None}
    return json.dumps({"data_id": list(bytes.fromhex(data_id)), "sender_id": "alice.near", "code_source": source, **changes}).encode()


def test_the_source_of_a_request_is_what_the_contract_keeps_for_it(make_claim):
    assert source_of(kept(), make_claim().job) == CodeSource(repo="owner/name", commit="main")


@pytest.mark.parametrize(
    "answer",
    [
        Refused("no such method", status=200),
        b"null",
        b"{}",
        b"no JSON",
        kept(code_source=None),
        kept(code_source={"repo": 1}),
        kept(data_id="cd" * 32),
        kept(data_id=""),
    ],
)
def test_a_contract_that_keeps_no_source_or_another_request_is_no_error(make_claim, answer):
    assert source_of(answer, make_claim().job) is None


def test_a_chain_that_is_away_says_nothing_about_the_source(make_claim):
    with pytest.raises(Unavailable):
        source_of(Unavailable("NEAR RPC", "no answer"), make_claim().job)
