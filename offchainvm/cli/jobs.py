"""``offchainvm jobs``: list, show, retry."""

from __future__ import annotations

import json
from typing import Any

import typer

from offchainvm.cli import report
from offchainvm.errors import OffchainVMError
from offchainvm.jobs.connection import connect
from offchainvm.jobs.record import Event, Job, State
from offchainvm.jobs.store import JobStore, RetryAnswer
from offchainvm.settings import Role, load

jobs = typer.Typer(invoke_without_command=True, no_args_is_help=False, pretty_exceptions_enable=False)

_WHY_NOT = {
    RetryAnswer.UNKNOWN: "There is no such job.",
    RetryAnswer.BUSY: "The job is queued or running already.",
    RetryAnswer.CARRIED: "A transaction carried this job's answer: a second, different answer must never follow it.",
}
_STATE = typer.Option(None, help="Only jobs in this state.")
_LIMIT = typer.Option(20, min=1, max=1000, help="At most so many, the newest first.")
_IDENTIFIER = typer.Argument(metavar="ID", help="A data id (or its beginning), or a request id.")
_AS_JSON = typer.Option(False, "--json", help="Print JSON instead of a table.")


def store() -> JobStore:
    """The job records of the Redis that the settings name."""
    return JobStore(connect(load([Role.DASHBOARD]).redis_url))


@jobs.callback()
def default(context: typer.Context) -> None:
    """List jobs, show one with its stages, or retry one."""
    if context.invoked_subcommand is None:
        list_jobs(state=None, limit=20, as_json=False)


@jobs.command("list")
def list_jobs(
    state: State | None = _STATE,
    limit: int = _LIMIT,
    as_json: bool = _AS_JSON,
) -> None:
    """List jobs, the newest first."""
    found = store().list_jobs(state, limit)
    if as_json:
        typer.echo(json.dumps([as_values(job) for job in found]))
    elif found:
        report.console().print(report.jobs_table(found))
    else:
        typer.echo("No jobs. They come from the Coordinator by the bridge: `offchainvm bridge`.")


@jobs.command("show")
def show(identifier: str = _IDENTIFIER, as_json: bool = _AS_JSON) -> None:
    """Show one job and its stages on a time line."""
    records = store()
    job = find(records, identifier)
    history = records.history(job.data_id)
    if as_json:
        typer.echo(json.dumps({**as_values(job), "history": [event_values(event) for event in history]}))
        return
    console = report.console()
    console.print(report.job_facts(job))
    console.print()
    console.print(report.timeline(history))


@jobs.command("retry")
def retry(identifier: str = _IDENTIFIER, as_json: bool = _AS_JSON) -> None:
    """Run a job again from its first stage; refused once a transaction carried its answer."""
    records = store()
    job = find(records, identifier)
    answer = records.retry(job.data_id)
    if as_json:
        typer.echo(json.dumps({"data_id": job.data_id, "answer": answer.value}))
    else:
        typer.echo(_WHY_NOT.get(answer, f"Queued again: {job.data_id}"))
    raise typer.Exit(0 if answer is RetryAnswer.QUEUED else 1)


def find(records: JobStore, identifier: str) -> Job:
    """The job of a request id, a data id, or the beginning of one.

    Raises:
        OffchainVMError: none, or several, answer to it.
    """
    if len(identifier) == 64:
        exact = records.get(identifier.lower())
        matches = [exact] if exact else []
    else:
        by_request = records.by_request_id(int(identifier)) if identifier.isdecimal() and int(identifier) < 2**63 else None
        matches = [by_request] if by_request else _beginning_with(records, identifier.lower())
    if len(matches) == 1:
        return matches[0]
    raise OffchainVMError(
        f"{'No job is' if not matches else f'{len(matches)} jobs are'} called {identifier[:64]!r}.", remedy="See `offchainvm jobs list`."
    )


def _beginning_with(records: JobStore, beginning: str) -> list[Job]:
    return [job for job in records.list_jobs(None, 1000) if beginning and job.data_id.startswith(beginning)]


def as_values(job: Job) -> dict[str, Any]:
    """A job as JSON values."""
    return {
        "request_id": job.request_id,
        "data_id": job.data_id,
        "stage": job.stage.value,
        "state": job.state.value,
        "verdict": job.verdict.value if job.verdict else None,
        "source": job.source.model_dump() if job.source else None,
        "commit_sha": job.commit_sha,
        "source_key": job.source_key,
        "limits": job.limits.model_dump(),
        "limits_clamped": list(job.limits_clamped),
        "attempt": job.attempt,
        "deaths": job.deaths,
        "deadline_height": job.deadline_height,
        "response": job.response.as_json() if job.response else None,
        "transaction_hash": job.transaction_hash,
        "error": job.error,
        "accepted_at": job.accepted_at,
        "updated_at": job.updated_at,
    }


def event_values(event: Event) -> dict[str, Any]:
    """One line of a history as JSON values."""
    return {"at": event.at, "stage": event.stage, "what": event.what, "detail": event.detail}
