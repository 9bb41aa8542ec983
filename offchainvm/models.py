"""What travels: frozen, validated values of the wire contract.

Sizes and names are those of the Coordinator's API, the contract and its events. Whatever is parsed here
was untrusted before and is valid after; unknown fields are ignored, so that a newer server stays readable.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from offchainvm.errors import RejectedTask

DEFAULT_BUILD_TARGET = "wasm32-wasip1"
U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1
REQUEST_ID_MAX = 2**63 - 1
RESOLVE_METHOD = "resolve_execution"
ACCOUNT_ID = re.compile(r"(?=.{2,64}$)(([a-z\d]+[-_])*[a-z\d]+\.)*([a-z\d]+[-_])*[a-z\d]+")


def data_id_from_bytes(untrusted_bytes: list[int] | bytes) -> str:
    """The 64 hex characters of a data id that the chain writes as 32 integers."""
    data = bytes(untrusted_bytes)
    if len(data) != 32:
        raise ValueError(f"a data id has 32 bytes, not {len(data)}")
    return data.hex()


def _lower_hex(value: str) -> str:
    return value.lower()


def _account_or_nothing(untrusted_value: Any) -> str:
    return untrusted_value if isinstance(untrusted_value, str) and ACCOUNT_ID.fullmatch(untrusted_value) else ""


DataId = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$"), AfterValidator(_lower_hex)]
Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SenderId = Annotated[str, BeforeValidator(_account_or_nothing)]
"""The account that sent a request; empty where it is none."""
RequestId = Annotated[int, Field(ge=0, le=REQUEST_ID_MAX)]
U64 = Annotated[int, Field(ge=0, le=U64_MAX)]
U32 = Annotated[int, Field(ge=0, le=U32_MAX)]


class Wire(BaseModel):
    """Base of all values that cross a boundary."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class CodeSource(Wire):
    """Where a program's source is: still a stranger's strings, checked by ``compiler.source``."""

    type: Literal["GitHub"] = "GitHub"
    repo: Annotated[str, Field(max_length=2048)]
    commit: Annotated[str, Field(max_length=512)]
    build_target: Annotated[str, BeforeValidator(lambda value: DEFAULT_BUILD_TARGET if value is None else value)] = DEFAULT_BUILD_TARGET


class ResourceLimits(Wire):
    """Limits of one execution; None where the request left one out."""

    max_instructions: U64 | None = None
    max_memory_mb: U32 | None = None
    max_execution_seconds: U64 | None = None

    def or_else(self, defaults: ResourceLimits) -> ResourceLimits:
        """These limits, with what is missing taken from ``defaults``."""
        return defaults.model_copy(update=self.model_dump(exclude_none=True))


class _TaskBase(Wire):
    request_id: RequestId
    data_id: DataId
    resource_limits: Annotated[ResourceLimits, BeforeValidator(lambda value: {} if value is None else value)] = ResourceLimits()


class CompileTask(_TaskBase):
    """A request whose module may not exist yet."""

    type: Literal["Compile"] = "Compile"
    code_source: CodeSource
    input_data: str | None = None


class ExecuteTask(_TaskBase):
    """A request whose module the Coordinator believes to have, under its source key ``wasm_checksum``."""

    type: Literal["Execute"] = "Execute"
    wasm_checksum: Checksum
    code_source: CodeSource | None = None
    input_data: str | None = None


Task = Annotated[CompileTask | ExecuteTask, Field(discriminator="type")]
_TASK: TypeAdapter[CompileTask | ExecuteTask] = TypeAdapter(Task)


def parse_task(untrusted_task: bytes) -> CompileTask | ExecuteTask:
    """The task in one body of ``GET /tasks/poll``.

    Raises:
        RejectedTask: with the request id, where that much can be read.
    """
    try:
        return _TASK.validate_json(untrusted_task)
    except ValidationError as error:
        raise RejectedTask(_first_problem(error), request_id=_request_id_of(untrusted_task)) from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in problem["loc"]) or "the task"
    return f"{place}: {problem['msg']}"


def _request_id_of(untrusted_task: bytes) -> int | None:
    try:
        value = json.loads(untrusted_task)["request_id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= REQUEST_ID_MAX else None


class ResourcesUsed(Wire):
    """What the contract charges for: executed instructions, peak linear memory, whole seconds of execution."""

    instructions: U64 = 0
    memory_bytes: U64 = 0
    time_seconds: U64 = 0


class ExecutionResponse(Wire):
    """The ``response`` of ``resolve_execution``, fields in the order in which the contract writes them."""

    success: bool
    return_value: bytes | None = None
    error: str | None = None
    resources_used: ResourcesUsed = ResourcesUsed()

    def as_json(self) -> dict[str, Any]:
        """JSON values as the contract takes them: bytes as a list of integers."""
        return {
            "success": self.success,
            "return_value": None if self.return_value is None else list(self.return_value),
            "error": self.error,
            "resources_used": self.resources_used.model_dump(),
        }


class ExecutionReport(Wire):
    """Body of ``POST /tasks/complete``: an answer of ours is final on chain."""

    request_id: RequestId
    success: bool
    output: bytes | None = None
    error: str | None = None
    execution_time_ms: U64 = 0

    def as_json(self) -> dict[str, Any]:
        return {**self.model_dump(), "output": None if self.output is None else list(self.output)}


class NewTask(Wire):
    """Body of ``POST /tasks/create``; every field is required there, and no limit may be null."""

    request_id: RequestId
    data_id: DataId
    code_source: CodeSource
    resource_limits: ResourceLimits
    input_data: str


class KeptRequest(Wire):
    """What the contract keeps of a request that is not settled: the answer of its view ``get_request``."""

    data_id: Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(min_length=32, max_length=32)]
    sender_id: SenderId = ""
    code_source: CodeSource | None = None


class RequestData(Wire):
    """The JSON text inside an ``execution_requested`` event."""

    request_id: RequestId
    sender_id: SenderId
    code_source: CodeSource
    resource_limits: Annotated[ResourceLimits, BeforeValidator(lambda value: {} if value is None else value)] = ResourceLimits()
    input_data: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = ""
    payment: str = "0"
    timestamp: U64 = 0


class ExecutionRequested(Wire):
    """One request, as an event of the contract announced it."""

    data_id: DataId
    request: RequestData
    block_height: int
