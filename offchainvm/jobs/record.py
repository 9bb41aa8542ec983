"""What is known of one job, and what a stage may do with it.

A record is a hash in Redis: ``fixed`` is the JSON text written once at acceptance, everything else is small and changes.
Unknown fields are ignored, so that old and new processes can run side by side; ``needs`` is the oldest
``SCHEMA_VERSION`` that may touch a record, and a process older than that leaves the job to a newer one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from offchainvm.errors import OffchainVMError
from offchainvm.models import CodeSource, ExecutionReport, ExecutionResponse, ResourceLimits

SCHEMA_VERSION = 1
POISON_DEATHS = 3
LEASE_SECONDS = 15.0
"""How long a claim lives without renewal, at every stage. Nothing is judged dead before Redis was seen for so long."""
DEADLINE_HEIGHTS = 200
"""Heights after its event within which a request can be resolved (wire.md §2)."""


class Stage(str, Enum):
    """The three queues a job walks through."""

    COMPILE = "compile"
    EXECUTE = "execute"
    RESOLVE = "resolve"


class State(str, Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    RESOLVING = "resolving"
    SETTLED = "settled"


class Verdict(str, Enum):
    """How a job ended on chain."""

    ACCEPTED = "accepted"
    RESOLVED_ELSEWHERE = "resolved_elsewhere"
    EXPIRED = "expired"
    REFUSED = "refused"


class UnreadableRecord(OffchainVMError):
    """A record that a newer version wrote, and that this one must not touch."""

    code = "record_too_new"


@dataclass(frozen=True)
class Job:
    """One job as its record stood at one moment; times are seconds since 1970 by Redis' clock."""

    data_id: str
    request_id: int
    stage: Stage
    state: State
    source: CodeSource | None
    commit_sha: str | None
    source_key: str | None
    module_sha256: str | None
    limits: ResourceLimits
    limits_clamped: tuple[str, ...]
    input_data: str | None
    attempt: int
    """Counted repeats within this stage."""
    deaths: int
    """Claims of this stage that ended in nothing; while compiling, those of every builder of the source."""
    fence: int
    owner: str
    rebuild: bool
    """An execution found the cached module bad: it was, or is to be, built anew."""
    deadline_height: int | None
    event_height: int | None
    response: ExecutionResponse | None
    verdict: Verdict | None
    transaction_hash: str | None
    error: str | None
    accepted_at: float
    updated_at: float
    sender_id: str | None = None
    """The account that sent the request, where the chain was asked, or its event was seen."""

    @property
    def untrusted_problem(self) -> str:
        """What went wrong, as ``code: sentence``; empty where nothing did."""
        return (self.response.error if self.response else None) or self.error or ""

    @property
    def untrusted_origin(self) -> str:
        """Where its program comes from, in short: REPOSITORY@COMMIT, as far as it is known."""
        if self.source is None:
            return f"source key {self.source_key[:12]}…" if self.source_key else "unknown"
        return f"{self.source.repo}@{(self.commit_sha or self.source.commit)[:12]}"


@dataclass(frozen=True)
class Claim:
    """The right to work on one stage of a job, until a higher fence is seen."""

    job: Job
    fence: int
    owner: str
    token: str

    @property
    def data_id(self) -> str:
        return self.job.data_id

    @property
    def poisoned(self) -> bool:
        """Too many claims of this stage ended in nothing: do not work, commit the failure."""
        return self.job.deaths >= POISON_DEATHS


@dataclass(frozen=True)
class Message:
    """One message to publish; ``attempt`` makes its task id (for the resolve doorbell: the number of the ring)."""

    stage: Stage
    data_ids: tuple[str, ...]
    entry_id: str
    deliveries: int
    attempt: int = 0

    @property
    def at(self) -> float:
        """When it was written (or set aside), in seconds since 1970: the server's clock is in the id."""
        return int(self.entry_id.partition("-")[0]) / 1000


@dataclass(frozen=True)
class Event:
    """One line of a job's history; ``at`` in seconds since 1970."""

    at: float
    stage: str
    what: str
    detail: str


@dataclass(frozen=True)
class ModuleRecord:
    """The module that a source key stood for when it was last built or verified."""

    sha256: str
    size: int


@dataclass(frozen=True)
class ToExecute:
    """The module is known: execute next (and, for a builder, release all that wait for it)."""

    source_key: str
    commit_sha: str | None
    module_sha256: str
    module_size: int


@dataclass(frozen=True)
class ToCompile:
    """The cached module is absent or bad: build it anew. ``bad_sha256`` is what was found, where anything was."""

    reason: str
    bad_sha256: str | None = None
    source: CodeSource | None = None
    """What the contract keeps as the request's source, where the task named none."""


@dataclass(frozen=True)
class ToResolve:
    """The answer is known and fixed: ``arguments`` are the exact bytes that the contract will get."""

    arguments: bytes
    response: ExecutionResponse
    report: ExecutionReport
    build_failure: tuple[str, str] | None = None
    """Code and sentence, where the build itself failed: whoever waits for the same source fails alike."""
    module_sha256: str = ""
    """What ran, where anything did."""


Transition = ToExecute | ToCompile | ToResolve


def encode_bytes(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def decode_bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)


def fixed_text(
    *,
    data_id: str,
    request_id: int,
    source: CodeSource | None = None,
    limits: ResourceLimits | None = None,
    limits_clamped: tuple[str, ...] = (),
    input_data: str | None = None,
) -> str:
    """The part of a record that never changes, as JSON text."""
    return json.dumps(
        {
            "v": SCHEMA_VERSION,
            "data_id": data_id,
            "request_id": request_id,
            "source": None if source is None else source.model_dump(),
            "limits": (limits or ResourceLimits()).model_dump(),
            "clamped": limits_clamped,
            "input": input_data,
        },
        separators=(",", ":"),
    )


def response_text(response: ExecutionResponse) -> str:
    """A response as JSON text, its bytes in base64."""
    return json.dumps({**response.model_dump(), "return_value": encode_bytes(response.return_value)}, separators=(",", ":"))


def parse_response(text: str) -> ExecutionResponse:
    values = json.loads(text)
    return ExecutionResponse.model_validate({**values, "return_value": decode_bytes(values.get("return_value"))})


def report_text(report: ExecutionReport, *, with_output: bool = True) -> str:
    """A report as JSON text, its output in base64."""
    output = encode_bytes(report.output) if with_output else None
    return json.dumps({**report.model_dump(), "output": output}, separators=(",", ":"))


def parse_report(text: str) -> ExecutionReport:
    values = json.loads(text)
    return ExecutionReport.model_validate({**values, "output": decode_bytes(values.get("output"))})


def parse_job(fields: Mapping[str, str]) -> Job:
    """The job in one hash.

    Raises:
        UnreadableRecord: a newer version wrote it in a way that this one does not understand.
    """
    if int(fields.get("needs") or 1) > SCHEMA_VERSION:
        raise UnreadableRecord("This job's record was written by a newer version.", remedy="Finish the upgrade of this process.")
    try:
        found_source = json.loads(fields.get("source") or "null")
        return Job(**_fixed(json.loads(fields["fixed"]), found_source), **_progress(fields), **_outcome(fields))
    except (KeyError, ValueError) as error:
        raise UnreadableRecord(f"This job's record cannot be read: {error}.", remedy="Finish the upgrade of this process.") from error


def _fixed(values: Mapping[str, Any], found_source: Any) -> dict[str, Any]:
    source = values.get("source") or found_source
    return {
        "data_id": values["data_id"],
        "request_id": values["request_id"],
        "source": None if source is None else CodeSource.model_validate(source),
        "limits": ResourceLimits.model_validate(values.get("limits") or {}),
        "limits_clamped": tuple(values.get("clamped") or ()),
        "input_data": values.get("input"),
    }


def _progress(fields: Mapping[str, str]) -> dict[str, Any]:
    return {
        "stage": Stage(fields["stage"]),
        "state": State(fields["state"]),
        "attempt": int(fields.get("attempt") or 0),
        "deaths": int(fields.get("deaths") or 0),
        "fence": int(fields.get("fence") or 0),
        "owner": fields.get("owner") or "",
        "rebuild": fields.get("rebuild") == "1",
        "commit_sha": fields.get("commit") or None,
        "source_key": fields.get("source_key") or None,
        "module_sha256": fields.get("module") or None,
        "accepted_at": int(fields.get("accepted") or 0) / 1000,
        "updated_at": int(fields.get("updated") or 0) / 1000,
    }


def _outcome(fields: Mapping[str, str]) -> dict[str, Any]:
    response, verdict = fields.get("response"), fields.get("verdict")
    return {
        "deadline_height": _height(fields.get("deadline")),
        "event_height": _height(fields.get("event")),
        "response": parse_response(response) if response else None,
        "verdict": Verdict(verdict) if verdict else None,
        "transaction_hash": fields.get("tx") or None,
        "error": fields.get("error") or None,
        "sender_id": fields.get("sender") or None,
    }


def _height(text: str | None) -> int | None:
    return int(text) if text else None
