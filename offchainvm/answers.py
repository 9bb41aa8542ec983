"""From a response to what ends a job: the payload that the contract gets, and the report for the Coordinator."""

from __future__ import annotations

from typing import Protocol

from offchainvm.errors import NEVER, BuildError, JobError
from offchainvm.jobs.record import ToResolve
from offchainvm.models import ExecutionReport, ExecutionResponse
from offchainvm.near import payload


class Request(Protocol):
    """What an answer is for: a job, or a task that is to become one."""

    @property
    def data_id(self) -> str: ...

    @property
    def request_id(self) -> int: ...


def failure(request: Request, error: JobError) -> ToResolve:
    """The end of a job with ``error``: the contract and the Coordinator are told."""
    # What the repository did is true for all who wait for the same source; what the sandbox or we did is not.
    shared = isinstance(error, BuildError) and error.retry is NEVER
    build_failure = (error.code, error.sentence) if shared else None
    return answer(request, ExecutionResponse(success=False, error=error.text), build_failure=build_failure)


def answer(
    request: Request, response: ExecutionResponse, *, execution_time_ms: int = 0, build_failure: tuple[str, str] | None = None
) -> ToResolve:
    """The end of a job that has its answer: the payload is fixed here and never changes again."""
    fitted = payload.fit(request.data_id, response)
    report = ExecutionReport(
        request_id=request.request_id,
        success=fitted.response.success,
        output=fitted.response.return_value,
        error=fitted.response.error,
        execution_time_ms=execution_time_ms,
    )
    return ToResolve(arguments=fitted.arguments, response=fitted.response, report=report, build_failure=build_failure)
