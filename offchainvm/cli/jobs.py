"""``offchainvm jobs``: list, show, retry, cancel, replay, and what was set aside."""

from __future__ import annotations

import base64
import json
from typing import Any

import typer
from typer.core import TyperGroup

from offchainvm.answers import failure
from offchainvm.cli import report
from offchainvm.errors import JobCode, JobError, OffchainVMError
from offchainvm.jobs.connection import open_redis
from offchainvm.jobs.lookups import Rejected, matching
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.record import Event, Job, Message, State
from offchainvm.jobs.store import CancelAnswer, JobStore, RetryAnswer


class _Group(TyperGroup):
    """Whoever forgets the command is told it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}. If it names a job: offchainvm jobs show {args[0]}")
        return super().resolve_command(ctx, args)


jobs = typer.Typer(cls=_Group, invoke_without_command=True, no_args_is_help=False, pretty_exceptions_enable=False)

_WHY_NOT = {
    RetryAnswer.UNKNOWN: "There is no such job.",
    RetryAnswer.BUSY: "The job is queued or running already.",
    RetryAnswer.CARRIED: "A transaction carried this job's answer: a second, different answer must never follow it.",
}
_NOT_CANCELLED = {
    CancelAnswer.UNKNOWN: "There is no such job.",
    CancelAnswer.BUSY: "Its answer is being signed at this moment; ask again in some seconds.",
    CancelAnswer.CARRIED: _WHY_NOT[RetryAnswer.CARRIED],
    CancelAnswer.SETTLED: "The job is settled: its deadline passed, or somebody else answered.",
}
_STATE = typer.Option(None, help="Show only jobs in this state.")
_LIMIT = typer.Option(20, min=1, max=1000, help="Show at most this many, the newest first.")
_IDENTIFIER = typer.Argument(metavar="ID", help="A request id, a data id (or its beginning), a transaction, a sender, or OWNER/NAME.")
_OF = typer.Argument(None, metavar="[ID]", help="Show only jobs of this transaction, sender's account or repository (OWNER/NAME).")
_AS_JSON = typer.Option(False, "--json", help="Print JSON instead of a table.")


def store() -> JobStore:
    """The job records of the Redis that the settings name."""
    return JobStore(open_redis())


def outbox() -> Outbox:
    """The messages of the same Redis."""
    return Outbox(open_redis())


@jobs.callback()
def default(context: typer.Context) -> None:
    """List jobs, show one on a time line, or retry, cancel or replay it."""
    if context.invoked_subcommand is None:
        list_jobs(identifier=None, state=None, limit=20, as_json=False)


@jobs.command("list")
def list_jobs(
    identifier: str | None = _OF,
    state: State | None = _STATE,
    limit: int = _LIMIT,
    as_json: bool = _AS_JSON,
) -> None:
    """List jobs, the newest first."""
    found = store().list_jobs(state, limit) if identifier is None else matching(store(), identifier, state, limit)
    if as_json:
        typer.echo(json.dumps([as_values(job) for job in found]))
    elif found:
        report.console().print(report.jobs_table(found))
    else:
        nothing = identifier is None and state is None
        typer.echo("No jobs. They come from the Coordinator by the bridge: `offchainvm bridge`." if nothing else "No matching jobs.")


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
    """Run a job again from its first stage. Refused once a transaction carried its answer."""
    records = store()
    job = find(records, identifier)
    answer = records.retry(job.data_id)
    if as_json:
        typer.echo(json.dumps({"data_id": job.data_id, "answer": answer.value}))
    else:
        typer.echo(_WHY_NOT.get(answer, f"Queued again: {job.data_id}"))
    raise typer.Exit(0 if answer is RetryAnswer.QUEUED else 1)


@jobs.command("cancel")
def cancel(identifier: str = _IDENTIFIER, as_json: bool = _AS_JSON) -> None:
    """End a job: kill its guest or build, and answer the contract `cancelled`. Refused once a transaction carried its answer."""
    records = store()
    job = find(records, identifier)
    answer = records.cancel(job.data_id, failure(job, JobError(JobCode.CANCELLED, "the operator of this worker ended the job")))
    if as_json:
        typer.echo(json.dumps({"data_id": job.data_id, "answer": answer.value}))
    else:
        typer.echo(_NOT_CANCELLED.get(answer, f"Cancelled: {job.data_id}"))
    raise typer.Exit(0 if answer is CancelAnswer.CANCELLED else 1)


@jobs.command("replay")
def replay(identifier: str = _IDENTIFIER, as_json: bool = _AS_JSON) -> None:
    """Run a finished job's module again here, with the same input and limits, and compare the result with the job's record.

    It needs the settings of an execute worker. Exit code 0: module, status,
    output and instructions agree. 3: one of them differs. 1: nothing was run:
    the job never ran, or its module or its input is gone.
    """
    from offchainvm.cli import replay as again  # noqa: PLC0415 -- the engine is not needed to list jobs

    raise typer.Exit(again.replay(find(store(), identifier), as_json=as_json))


@jobs.command("rejected")
def rejected(limit: int = _LIMIT, as_json: bool = _AS_JSON) -> None:
    """Show tasks that could not be read and messages that could not be published, the newest first."""
    tasks, messages = store().rejected(limit), outbox().aside(limit)
    if as_json:
        told = {"tasks": [rejected_values(task) for task in tasks], "messages": [message_values(message) for message in messages]}
        typer.echo(json.dumps(told))
        return
    console = report.console()
    if tasks:
        console.print(report.rejected_table(tasks))
        console.print("\nWith a request id, the Coordinator was told that the task failed. A newer version may read what this one cannot.")
    if messages:
        console.print(report.messages_table(messages))
        console.print("\nThe broker took none of these. Their jobs are published again by the reconciler; the bridge's log says why.")
    if not tasks and not messages:
        typer.echo("Nothing was set aside.")


def find(records: JobStore, identifier: str) -> Job:
    """The one job that ``identifier`` names.

    Raises:
        OffchainVMError: none, or several, answer to it.
    """
    matches = matching(records, identifier)
    if len(matches) == 1:
        return matches[0]
    called = f"called {identifier[:64]!r}"
    if not matches:
        raise OffchainVMError(f"No job is {called}.", remedy="See `offchainvm jobs list`.")
    raise OffchainVMError(f"{len(matches)} jobs are {called}.", remedy=f"See `offchainvm jobs list {identifier[:64]}`.")


def as_values(job: Job) -> dict[str, Any]:
    """A job as JSON values."""
    return {
        "request_id": job.request_id,
        "data_id": job.data_id,
        "sender_id": job.sender_id,
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


def rejected_values(task: Rejected) -> dict[str, Any]:
    """A task that was set aside as JSON values; its bytes as they came."""
    body = base64.b64encode(task.untrusted_task).decode("ascii")
    return {"at": task.at, "request_id": task.request_id, "reason": task.reason, "task_base64": body}


def message_values(message: Message) -> dict[str, Any]:
    """A message that was set aside as JSON values."""
    return {"at": message.at, "stage": message.stage.value, "data_ids": list(message.data_ids), "attempt": message.attempt}
