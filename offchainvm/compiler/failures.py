"""From how a container ended, and what it printed last, to one code of the closed set.

The log is a stranger's, so the engine's own facts are asked first: memory, deadlines, exit codes of our scripts. A
build that prints what another failure would print gets that failure's code: it names its own build only.
"""

from __future__ import annotations

import re

from offchainvm.authorities import not_accepted
from offchainvm.compiler.base import BuildRequest
from offchainvm.compiler.git import not_trusted
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.sandbox import PhaseResult
from offchainvm.errors import BuildCode, BuildError

_DISK_FULL = re.compile(r"No space left on device|ENOSPC|os error 28", re.IGNORECASE)
_NO_PROCESS = re.compile(r"Resource temporarily unavailable|os error 11\b|Cannot fork", re.IGNORECASE)
_NO_REPOSITORY = re.compile(
    r"[Rr]epository.*not found|could not read Username|does not appear to be a git repository|Authentication failed"
)
_NO_COMMIT = re.compile(r"not our ref|no such remote ref|couldn't find remote ref|unadvertised object|did not send all necessary objects")
# Whole phrases of curl, git and cargo: their messages hold names of crates and repositories too.
_NETWORK = re.compile(
    r"Could not resolve host|Could not connect|Couldn't connect|Connection (?:refused|reset|timed out)|\btimed out\b|Timeout was reached|"
    r"network failure seems|spurious network error|SSL connect error|SSL_(?:connect|read|write|ERROR)|error:\w+:SSL routines|"
    r"TLS connect error|gnutls_handshake\(\) failed|RPC failed|early EOF|"
    r"requested URL returned error: (?:429|5)|got (?:429|5\d\d)\b|download of \S+ failed",
    re.IGNORECASE,
)
_LOCK_OUTDATED = re.compile(r"lock file .* needs to be updated|cannot (?:create|update) the lock file")
_LOCK_VERSION = re.compile(r"lock file version .* (?:was found|requires)|failed to parse lock file")
_NO_CRATE = re.compile(r"no matching package|failed to select a version")
_NO_DEPENDENCY = re.compile(
    r"no matching package|failed to select a version|could not find `|failed to load source|Unable to update|not found in registry"
)
_NO_MANIFEST = re.compile(r"failed to read `[^`]+/Cargo\.toml`")
_NOT_ALLOWED = re.compile(r"transport '[^']*' not allowed")
_BUILD_SCRIPT = re.compile(r"failed to run custom build command")
# And the place in the source, where the compiler tells one below it.
_ERROR_LINE = re.compile(r"^((?:error|fatal)(?:\[E\d+\])?: .+)(?:\n +--> (\S+:\d+:\d+)$)?", re.MULTILINE)
# SIGXCPU, the kernel's signal for a process that has used up its processor time: as cargo tells it, and as an exit code.
_PROCESSOR_TIME = re.compile(r"\(signal: 24\b")
_KILLED, _OUT_OF_PROCESSOR_TIME = 137, 152


def of_source(result: PhaseResult, request: BuildRequest) -> BuildError:
    """Why the commit could not be checked out."""
    name = f"{request.source.owner}/{request.source.name}"
    if error := _of_limits(result, "getting the source", request.limits):
        too_big = error.code in {BuildCode.DISK_FULL.value, BuildCode.OUT_OF_MEMORY.value}
        return (
            _error(BuildCode.REPO_TOO_LARGE, f"The repository {name} is over {request.limits.source_mb} MiB.", result) if too_big else error
        )
    if result.exit_code == 32 or _NO_COMMIT.search(result.log_tail):
        return _error(BuildCode.COMMIT_NOT_FOUND, f"The repository {name} has no commit {request.commit_sha}.", result)
    if _NO_REPOSITORY.search(result.log_tail):
        return _error(BuildCode.REPO_NOT_FOUND, f"The repository {name} does not exist, or is private.", result)
    if not_accepted(result.log_tail):
        return not_trusted(f"the host of the repository {name}", log_tail=result.log_tail)
    by_step = {
        31: (BuildCode.FETCH_NETWORK, f"The repository {name} cannot be fetched: {_reason(result)}"),
        33: (BuildCode.REPO_TOO_LARGE, f"The files of {name} do not fit into {request.limits.source_mb} MiB."),
        34: (BuildCode.MANIFEST_INVALID, f"Cargo.toml cannot be read: {_reason(result)}"),
    }
    otherwise = (BuildCode.SANDBOX_ERROR, f"The source could not be checked out (exit code {result.exit_code}).")
    return _error(*by_step.get(result.exit_code, otherwise), result)


def of_lock(result: PhaseResult) -> BuildError:
    """Why no Cargo.lock could be made."""
    return _of_limits(result, "resolving dependencies", None) or _of_resolver(result)


def of_fetch(result: PhaseResult, *, with_git: bool) -> BuildError:
    """Why what Cargo.lock names could not be laid down for the build; ``with_git``: some of it comes from repositories."""
    if error := _of_limits(result, "fetching dependencies", None):
        return error
    text = result.log_tail
    if result.exit_code == 41:
        return _error(BuildCode.DEPENDENCY_NOT_FOUND, "A crate of the registry cannot be unpacked.", result)
    if _LOCK_VERSION.search(text):
        return _error(BuildCode.MANIFEST_INVALID, f"Cargo.lock cannot be read by this toolchain: {_reason(result)}", result)
    if _NO_MANIFEST.search(text):
        return _of_resolver(result)
    # All crates that Cargo.lock names are there: one that is missed is one that it does not name.
    if _LOCK_OUTDATED.search(text) or _NO_CRATE.search(text) or (not with_git and _NO_DEPENDENCY.search(text)):
        remedy = "Run `cargo generate-lockfile` or `cargo update --workspace`, and commit Cargo.lock."
        return _error(BuildCode.LOCKFILE_OUTDATED, "Cargo.lock does not agree with Cargo.toml.", result, remedy)
    return _of_resolver(result)


def _of_resolver(result: PhaseResult) -> BuildError:
    if not_accepted(result.log_tail):
        return not_trusted("the host of a dependency, or of its index,", log_tail=result.log_tail)
    table = (
        (_NO_MANIFEST, BuildCode.MANIFEST_INVALID, "A path of a dependency or patch leads to no Cargo.toml"),
        (_NOT_ALLOWED, BuildCode.UNSUPPORTED_SOURCE, "A dependency comes from a place that is not allowed"),
        (_NO_CRATE, BuildCode.DEPENDENCY_NOT_FOUND, "A dependency cannot be found"),
        (_NETWORK, BuildCode.FETCH_NETWORK, "Dependencies cannot be fetched"),
        (_NO_DEPENDENCY, BuildCode.DEPENDENCY_NOT_FOUND, "A dependency cannot be found"),
    )
    otherwise = (BuildCode.MANIFEST_INVALID, "The dependencies cannot be resolved")
    code, sentence = next(((code, sentence) for pattern, code, sentence in table if pattern.search(result.log_tail)), otherwise)
    return _error(code, f"{sentence}: {_reason(result)}", result)


def of_compile(result: PhaseResult, limits: BuildLimits) -> BuildError:
    """Why the compile phase gave nothing."""
    if error := _of_limits(result, "compiling", limits):
        return error
    if result.exit_code == _KILLED:
        return _error(BuildCode.KILLED_BY_BUILD, "The build killed its own processes.", result)
    if _NO_PROCESS.search(result.log_tail):
        return _error(BuildCode.TOO_MANY_PROCESSES, f"The build wanted more than {limits.processes} processes.", result)
    if _BUILD_SCRIPT.search(result.log_tail):
        return _error(BuildCode.BUILD_SCRIPT_FAILED, f"A build script failed: {_reason(result)}", result)
    return _error(BuildCode.COMPILE_ERROR, f"The program does not compile: {_reason(result)}", result)


def _of_limits(result: PhaseResult, doing: str, limits: BuildLimits | None) -> BuildError | None:
    if result.stopped == "timeout":
        allowed = f" within {limits.timeout_seconds} s" if limits else ""
        return _error(BuildCode.TIMEOUT, f"The build did not end{allowed}; it was {doing}.", result)
    if result.stopped == "no_output":
        return _error(BuildCode.NO_OUTPUT, f"The build was silent for {limits.idle_seconds if limits else 0} s.", result)
    if result.out_of_memory:
        allowed = f"{limits.memory_mb} MiB" if limits else "its memory"
        return _error(BuildCode.OUT_OF_MEMORY, f"The build used more than {allowed}.", result)
    if result.exit_code == _OUT_OF_PROCESSOR_TIME or (result.exit_code and _PROCESSOR_TIME.search(result.log_tail)):
        return _error(BuildCode.TIMEOUT, f"A process of the build used up its processor time; it was {doing}.", result)
    if result.exit_code and _DISK_FULL.search(result.log_tail):
        allowed = f"{limits.disk_mb} MiB" if limits else "its quota"
        return _error(BuildCode.DISK_FULL, f"The build's files need more than {allowed}.", result)
    return None


def _reason(result: PhaseResult) -> str:
    """The first line of the tools that calls itself an error, and its place in the source where that is told."""
    match = _ERROR_LINE.search(result.log_tail)
    if match is None:
        return f"exit code {result.exit_code}"
    return match[1][:200] + (f" ({match[2][:100]})" if match[2] else "")


def _error(code: BuildCode, sentence: str, result: PhaseResult, remedy: str = "") -> BuildError:
    return BuildError(code, sentence, log_tail=result.log_tail, remedy=remedy)
