"""The job record: every change is one script, fenced and repeatable.

A stage asks ``claim``, works, and ends with ``commit`` or ``put_back``. Each takes a call token (made here, unless the
caller brings one): a client that lost the reply and asks again with the same token gets the same answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from enum import Enum

from redis import Redis

from offchainvm.jobs.lookups import Lookups
from offchainvm.jobs.record import (
    SCHEMA_VERSION,
    Claim,
    Stage,
    ToCompile,
    ToExecute,
    ToResolve,
    Transition,
    encode_bytes,
    fixed_text,
    parse_job,
    report_text,
    response_text,
)
from offchainvm.jobs.server import flat, milliseconds, new_token, plain
from offchainvm.models import CompileTask, ExecuteTask, ExecutionReport, ResourceLimits

DEFAULT_RETENTION_SECONDS = 72 * 3600
_BRIEF_REPORT_BYTES = 4096
_INPUT_SECONDS = 86400


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
    """Somebody works on it at this moment."""
    CARRIED = "carried"
    """A transaction carried its payload: another payload must never follow."""


class CancelAnswer(str, Enum):
    """What ``cancel`` did, or why it did not."""

    CANCELLED = "cancelled"
    """Now, or by an earlier call."""
    UNKNOWN = "unknown"
    BUSY = "busy"
    """Its answer is being signed at this moment."""
    CARRIED = "carried"
    """A transaction carried its answer: another answer must never follow."""
    SETTLED = "settled"


class JobStore(Lookups):
    """Reads (see ``Lookups``) and changes records. Every method raises ``errors.Unavailable`` while Redis is away."""

    def __init__(self, redis: Redis, *, retention_seconds: int = DEFAULT_RETENTION_SECONDS, fair_share: bool = True) -> None:
        """Of jobs accepted here.

        Args:
            retention_seconds: how long a record outlives its settling; a tombstone stays 30 days at least.
            fair_share: they take turns by sender and repository; False: first come, first served.
        """
        super().__init__(redis)
        self._retention_seconds, self._fair_share = retention_seconds, fair_share

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
        repository: str = "",
        sender_id: str = "",
        refusal: ToResolve | None = None,
        token: str | None = None,
    ) -> Acceptance:
        """Make a job of a task, once for each data_id; a settled one has its report queued again, even after retention.

        Where the monitor recorded the request's event, its height gives the deadline instead of ``deadline_height``.
        ``repository``: ``owner/name``, ``sender_id``: an account, by which the job can be found, and with which it takes its turns.
        ``refusal``: its answer, where nobody is to work on it.
        """
        fixed = fixed_text(
            data_id=task.data_id,
            request_id=task.request_id,
            source=task.code_source,
            limits=limits,
            limits_clamped=limits_clamped,
            input_data=task.input_data,
        )
        deadline = "" if deadline_height is None else deadline_height
        arguments = (
            task.data_id,
            fixed,
            stage.value,
            source_key or "",
            commit_sha or "",
            deadline,
            task.request_id,
            self._retention_seconds,
            repository.lower(),
            *(_payload(refusal)[:4] if refusal else ("",) * 4),
            sender_id,
            "1" if self._fair_share else "",
        )
        return Acceptance(self._server.run("accept", token or new_token(), *arguments))

    def claim(self, data_id: str, stage: Stage, *, owner: str, lease_seconds: float, token: str | None = None) -> Claim | None:
        """Take the right to work on the job of this stage whose turn it is; None: none waits that is due.

        ``data_id``: whom the message names. A message is a call for a worker, and who is served is decided when it is answered.
        """
        token = token or new_token()
        fields = self._server.run("claim", token, data_id, stage.value, owner, milliseconds(lease_seconds), SCHEMA_VERSION)
        if fields is None:
            return None
        job = parse_job(flat(fields))
        return Claim(job=job, fence=job.fence, owner=owner, token=token)

    def renew(self, claim: Claim, *, lease_seconds: float) -> bool:
        """Prolong the lease; False: the claim is lost, stop working. A late renewal counts until the reconciler judged the lease."""
        return bool(self._server.run("renew", claim.data_id, claim.fence, milliseconds(lease_seconds)))

    def commit(self, claim: Claim, transition: Transition, *, token: str | None = None) -> bool:
        """Write the outcome of a stage and the next message, together; False: fenced out, nothing was written."""
        head = (token or new_token(), claim.data_id, claim.fence)
        if isinstance(transition, ToExecute):
            module = (transition.source_key, transition.commit_sha or "", transition.module_sha256, transition.module_size)
            return bool(self._server.run("commit_execute", *head, *module))
        if isinstance(transition, ToCompile):
            source = "" if transition.source is None else transition.source.model_dump_json()
            return bool(self._server.run("commit_compile", *head, plain(transition.reason), transition.bad_sha256 or "", source))
        return bool(self._server.run("commit_resolve", *head, *_payload(transition), transition.module_sha256))

    def put_back(self, claim: Claim, *, delay_seconds: float, note: str, counted: bool, token: str | None = None) -> bool:
        """End a claim without an outcome: QUEUED again, published after the delay; ``counted`` raises ``attempt``. False: fenced out."""
        arguments = (milliseconds(delay_seconds), plain(note), int(counted))
        return bool(self._server.run("put_back", token or new_token(), claim.data_id, claim.fence, *arguments))

    def hand_back(self, data_ids: Sequence[str], stage: Stage, *, token: str | None = None) -> int:
        """Publish the rest of a grouped message again, as far as jobs wait; how many were published."""
        return int(self._server.run("hand_back", token or new_token(), stage.value, *data_ids)) if data_ids else 0

    def retry(self, data_id: str, *, token: str | None = None) -> RetryAnswer:
        """Begin a job anew, at compile where its source is known; refused once a transaction ever carried its payload."""
        job = self.get(data_id)
        if job is None:
            return RetryAnswer.UNKNOWN
        stage = Stage.EXECUTE if job.source is None else Stage.COMPILE
        return RetryAnswer(self._server.run("retry", token or new_token(), data_id, stage.value))

    def cancel(self, data_id: str, answer: ToResolve, *, token: str | None = None) -> CancelAnswer:
        """End a job with ``answer``, wherever it stands, unless a transaction carried another; who works on it loses its lease."""
        return CancelAnswer(self._server.run("cancel", token or new_token(), data_id, *_payload(answer)[:4]))

    def record_input(self, data_id: str, input_data: str, height: int, *, sender_id: str = "", ttl_seconds: int = _INPUT_SECONDS) -> None:
        """Keep the input, the height and the sender of a request's event, whether its task came before or comes later."""
        kept = encode_bytes(input_data.encode("utf-8", "surrogatepass")) or ""
        self._server.run("record_input", data_id, kept, height, ttl_seconds, sender_id)

    def reject(self, untrusted_task: bytes, reason: str, request_id: int | None, *, token: str | None = None) -> bool:
        """Set a task aside that cannot be read; with a request id, the Coordinator is told by ``Reports`` that it failed.

        False when a call with this ``token`` did so in the last two minutes.
        """
        entry = json.dumps({"request_id": request_id, "reason": plain(reason), "task": encode_bytes(untrusted_task[:65536])})
        error = plain(f"invalid_request: {reason}")
        told = ("", "") if request_id is None else (f"rejected-{request_id}", _failure_report(request_id, error))
        return bool(self._server.run("reject", token or new_token(), entry, *told, error))


def _failure_report(request_id: int, error: str) -> str:
    return report_text(ExecutionReport(request_id=request_id, success=False, error=error))


def _payload(transition: ToResolve) -> tuple[str, str, str, str, str]:
    """Arguments, response, report, short report and build failure, as ``commit_resolve.lua`` takes them."""
    report = report_text(transition.report)
    brief = report_text(transition.report, with_output=False) if len(report) > _BRIEF_REPORT_BYTES else ""
    failure = "" if transition.build_failure is None else json.dumps([plain(part, limit=2000) for part in transition.build_failure])
    return base64.b64encode(transition.arguments).decode("ascii"), response_text(transition.response), report, brief, failure
