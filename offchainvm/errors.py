"""Everything that can go wrong, as a closed set.

    OffchainVMError                 code · sentence · remedy
    ├── SettingsError               all problems of a configuration at once
    ├── RejectedTask                a task that cannot be parsed: set aside, never dropped
    ├── JobError                    ends or repeats a job, by its code (RETRIES); the contract is told
    │   ├── BuildError              what a repository did, or the build sandbox around it
    │   └── ExecutionError          what a module did, or the engine around it
    ├── Refused                     a service answered, and said no: repeating the same changes nothing
    │   ├── Unauthorized            401, 403
    │   └── TooLarge                413
    ├── Cancelled                   work that was ended at the wish of whoever asked for it
    └── Unavailable                 a service of ours is away: for ever, with back-off, uncounted

``JobError.code`` is stable: contracts see it as ``code: one sentence`` and may compare it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class RetryRule:
    """How often a job may meet one error again before it ends with it."""

    times: int
    """Repeats after the first try."""
    delay_seconds: float = 0.0


NEVER = RetryRule(0)


class BuildCode(str, Enum):
    """Why a build gave no module (closed set; the values are the codes that a contract sees)."""

    INVALID_REQUEST = "invalid_request"
    REPO_NOT_FOUND = "repo_not_found"
    COMMIT_NOT_FOUND = "commit_not_found"
    REPO_TOO_LARGE = "repo_too_large"
    UNSUPPORTED_SOURCE = "unsupported_source"
    MANIFEST_MISSING = "manifest_missing"
    MANIFEST_INVALID = "manifest_invalid"
    LOCKFILE_MISSING = "lockfile_missing"
    LOCKFILE_OUTDATED = "lockfile_outdated"
    DEPENDENCY_NOT_FOUND = "dependency_not_found"
    FETCH_NETWORK = "fetch_network"
    COMPILE_ERROR = "compile_error"
    BUILD_SCRIPT_FAILED = "build_script_failed"
    NO_ARTIFACT = "no_artifact"
    AMBIGUOUS_ARTIFACT = "ambiguous_artifact"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    NO_OUTPUT = "no_output"
    DISK_FULL = "disk_full"
    TOO_MANY_PROCESSES = "too_many_processes"
    KILLED_BY_BUILD = "killed_by_build"
    ARTIFACT_TOO_LARGE = "artifact_too_large"
    ARTIFACT_INVALID = "artifact_invalid"
    NOT_REPRODUCIBLE = "not_reproducible"
    SANDBOX_ERROR = "sandbox_error"


class Status(str, Enum):
    """How an execution ended (closed set; every value but OK is also an error code)."""

    OK = "ok"
    GUEST_EXIT = "guest_exit"
    TRAP = "trap"
    OUT_OF_FUEL = "out_of_fuel"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    STACK_OVERFLOW = "stack_overflow"
    INVALID_MODULE = "invalid_module"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    MODULE_TOO_COMPLEX = "module_too_complex"
    LINK_ERROR = "link_error"
    COMPILE_TIMEOUT = "compile_timeout"
    COMPILE_RESOURCE_LIMIT = "compile_resource_limit"
    ENGINE_CRASH = "engine_crash"
    CANCELLED = "cancelled"
    INTERNAL_ERROR = "internal_error"


class JobCode(str, Enum):
    """Why a job ended that is neither the build's nor the module's doing."""

    INPUT_UNAVAILABLE = "input_unavailable"
    WASM_UNAVAILABLE = "wasm_unavailable"
    OUTPUT_TOO_LARGE = "output_too_large"
    POISON = "poison"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    NOT_ALLOWED = "not_allowed"
    INTERNAL_ERROR = "internal_error"


# The one table of repeats. What untrusted code did is never repeated: a code that is absent here.
RETRIES: dict[str, RetryRule] = {
    Status.ENGINE_CRASH.value: RetryRule(1),
    Status.INTERNAL_ERROR.value: RetryRule(2),
    BuildCode.FETCH_NETWORK.value: RetryRule(3, delay_seconds=10),
    BuildCode.SANDBOX_ERROR.value: RetryRule(2, delay_seconds=5),
    # The event monitor may still be on its way to the request's block, or go it again after Redis forgot its last second.
    JobCode.INPUT_UNAVAILABLE.value: RetryRule(3, delay_seconds=5),
}


class OffchainVMError(Exception):
    """Base of all errors of this package.

    ``sentence`` says what happened, ``remedy`` what the reader can do about it.
    """

    code: str = "internal_error"

    def __init__(self, sentence: str, *, remedy: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".rstrip()


class SettingsError(OffchainVMError):
    """The configuration of a process does not hold; ``problems`` has one line each, with its remedy."""

    code = "settings_invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(["The settings do not hold:", *(f"  - {line}" for line in problems)]))
        self.problems = problems


class RejectedTask(OffchainVMError):
    """A task from the wire that cannot be read; ``request_id`` where that much could be read."""

    code = "invalid_request"

    def __init__(self, sentence: str, *, request_id: int | None = None) -> None:
        super().__init__(sentence)
        self.request_id = request_id


class JobError(OffchainVMError):
    """What ends a job (or repeats it, see ``retry``); the contract gets ``text``."""

    def __init__(self, code: str | Enum, sentence: str, *, remedy: str = "") -> None:
        super().__init__(sentence, remedy=remedy)
        self.code = str(code.value) if isinstance(code, Enum) else code

    @property
    def retry(self) -> RetryRule:
        return RETRIES.get(self.code, NEVER)

    @property
    def text(self) -> str:
        """``code: one sentence``, as the contract and the Coordinator get it."""
        return f"{self.code}: {self.sentence}"

    def __str__(self) -> str:
        return self.text


class BuildError(JobError):
    """A build that gave no module; ``log_tail`` is sanitised text of the build, at most a few lines."""

    def __init__(self, code: BuildCode, sentence: str, *, log_tail: str = "", remedy: str = "") -> None:
        super().__init__(code, sentence, remedy=remedy)
        self.log_tail = log_tail


class ExecutionError(JobError):
    """An execution that gave no answer, told before or after the module ran."""

    def __init__(self, status: Status, sentence: str, *, remedy: str = "") -> None:
        super().__init__(status, sentence, remedy=remedy)
        self.status = status


class Refused(OffchainVMError):
    """A service took the request and refused it: the same request again would be refused again."""

    code = "refused"

    def __init__(self, sentence: str, *, status: int, remedy: str = "") -> None:
        super().__init__(sentence, remedy=remedy)
        self.status = status


class Unauthorized(Refused):
    """The service does not know our token or key."""

    code = "unauthorized"


class TooLarge(Refused):
    """The service does not take a body of this size."""

    code = "too_large"


class Unavailable(OffchainVMError):
    """A service of ours does not answer, or answers 429 or 5xx: repeat with back-off, for ever, uncounted.

    ``retry_after_seconds`` is the service's own wish, where it stated one.
    """

    code = "unavailable"

    def __init__(self, service: str, sentence: str, *, remedy: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(sentence, remedy=remedy)
        self.service = service
        self.retry_after_seconds = retry_after_seconds


class Cancelled(OffchainVMError):
    """The work was ended at the wish of whoever asked for it (``cancellation``): there is no result, and nobody is to blame."""

    code = "cancelled"


class ImageMismatch(Unavailable):
    """The builder image is not the one to build in: the operator's trouble, which no job must end with."""

    code = "image_mismatch"

    def __init__(self, sentence: str, *, remedy: str) -> None:
        super().__init__("docker", sentence, remedy=remedy)
