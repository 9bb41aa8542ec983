"""What to do about each way in which a job can fail: for the operator and whoever asks him."""

from __future__ import annotations

from offchainvm.errors import BuildCode, JobCode, Status

_CALLER = "The source is what it is: its owner has to change it, and the caller to ask again."
_SMALLER = 'Build with opt-level = "s" and lto = true, and split huge functions.'
_OPERATOR = "A fault on the worker's side: its log says more. `offchainvm doctor` looks at what it needs."

_BY_CODE: dict[BuildCode | Status | JobCode, str] = {
    BuildCode.INVALID_REQUEST: "The request itself does not hold: the caller has to change it.",
    BuildCode.REPO_NOT_FOUND: "Check the repository's name; private repositories cannot be built.",
    BuildCode.COMMIT_NOT_FOUND: "Check the commit: it must be pushed, and reachable from a branch or tag.",
    BuildCode.REPO_TOO_LARGE: "Keep large files out of the repository.",
    BuildCode.UNSUPPORTED_SOURCE: "Name a public repository on github.com.",
    BuildCode.MANIFEST_MISSING: "One Cargo.toml must stand above all others: in the root, or in the one folder that has any.",
    BuildCode.MANIFEST_INVALID: "Run `cargo metadata` in the repository; it names the line.",
    BuildCode.LOCKFILE_MISSING: "Commit Cargo.lock, or set REQUIRE_LOCKFILE=false.",
    BuildCode.LOCKFILE_OUTDATED: "Run `cargo update --workspace`, and commit Cargo.lock.",
    BuildCode.DEPENDENCY_NOT_FOUND: "Check the names and versions of the dependencies.",
    BuildCode.FETCH_NETWORK: "The network of the compile worker's host, or the other side's: retry the job later.",
    BuildCode.COMPILE_ERROR: "The build log shows the compiler's words. " + _CALLER,
    BuildCode.BUILD_SCRIPT_FAILED: "Build scripts run without network and with a read-only source. " + _CALLER,
    BuildCode.NO_ARTIFACT: "The package needs a library of crate-type cdylib, or a binary.",
    BuildCode.AMBIGUOUS_ARTIFACT: "Leave one library or binary in the package, or name default-run.",
    BuildCode.OUT_OF_MEMORY: "Raise COMPILE_MEMORY_LIMIT_MB, or make the build smaller.",
    BuildCode.TIMEOUT: "A program: allow it more time (max_execution_seconds). A build: raise COMPILE_TIMEOUT_SECONDS.",
    BuildCode.NO_OUTPUT: "The build printed nothing for too long: it hangs. " + _CALLER,
    BuildCode.DISK_FULL: "Raise BUILD_DISK_MB, or make the build smaller.",
    BuildCode.TOO_MANY_PROCESSES: "The build starts too many processes. " + _CALLER,
    BuildCode.KILLED_BY_BUILD: "The build ended its own sandbox. " + _CALLER,
    BuildCode.ARTIFACT_TOO_LARGE: _SMALLER,
    BuildCode.ARTIFACT_INVALID: "What the build left is no WebAssembly module. " + _CALLER,
    BuildCode.NOT_REPRODUCIBLE: "Two builds gave two modules: keep time, paths and chance out of the build.",
    BuildCode.SANDBOX_ERROR: _OPERATOR,
    Status.GUEST_EXIT: "The program ended itself with a failure; its last words are in the error.",
    Status.TRAP: "The program panicked or broke a rule of WebAssembly: run it with the same input by `offchainvm run`.",
    Status.OUT_OF_FUEL: "Ask for more instructions; `offchainvm run` tells how many are needed.",
    Status.MEMORY_LIMIT: "Ask for more memory, or declare less.",
    Status.OUTPUT_LIMIT: "Return less: the chain takes some hundred bytes.",
    Status.STACK_OVERFLOW: "Recurse less.",
    Status.INVALID_MODULE: "The file is no valid WebAssembly: build again.",
    Status.UNSUPPORTED_FEATURE: "Build for a supported target, without threads and the like (docs/guests.md).",
    Status.MODULE_TOO_COMPLEX: _SMALLER,
    Status.LINK_ERROR: "The module imports what does not exist here, or exports no `execute` or `_start`.",
    Status.COMPILE_TIMEOUT: _SMALLER,
    Status.COMPILE_RESOURCE_LIMIT: _SMALLER,
    Status.ENGINE_CRASH: "The engine's process died twice: please report the module.",
    Status.CANCELLED: "Somebody ended the job by hand: `offchainvm jobs cancel`.",
    Status.INTERNAL_ERROR: _OPERATOR,
    JobCode.INPUT_UNAVAILABLE: "No input came with the task, nor from the chain: is the event monitor running and near the head?",
    JobCode.WASM_UNAVAILABLE: "The module is gone and its source is unknown: ask again with a source.",
    JobCode.OUTPUT_TOO_LARGE: "Return less: the answer does not fit into a transaction.",
    JobCode.POISON: "Three workers died of this job. Their logs, and the kernel's (memory?), say of what.",
    JobCode.EXPIRED: "200 blocks passed before there was an answer: are there enough workers?",
    JobCode.NOT_ALLOWED: "The operator's lists refuse this repository, or this sender (docs/jobs.md).",
}
REMEDIES = {code.value: remedy for code, remedy in _BY_CODE.items()}
"""By ``JobError.code``. Codes that two sets share (timeout, cancelled, internal_error) stand once."""


def remedy_of(error: str) -> str:
    """The remedy of an error as the contract gets it (``code: sentence``); empty for a code that is none of ours."""
    return REMEDIES.get(error.partition(":")[0], "")
