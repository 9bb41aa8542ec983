"""How a container ended, as a code of the closed set."""

from __future__ import annotations

import pytest

from offchainvm.compiler import failures
from offchainvm.compiler.base import BuildRequest
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.sandbox import PhaseResult
from offchainvm.compiler.source import parse_source
from offchainvm.models import CodeSource

REQUEST = BuildRequest(parse_source(CodeSource(repo="owner/name", commit="main")), "a" * 40)


def result(log: str = "", *, exit_code: int = 101, out_of_memory: bool = False, stopped: str = "") -> PhaseResult:
    return PhaseResult(exit_code, out_of_memory, log, stopped)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (result("fatal: repository 'x' not found", exit_code=31), "repo_not_found"),
        (result("fatal: could not read Username for 'https://x': terminal prompts disabled", exit_code=31), "repo_not_found"),
        (result("fatal: remote error: upload-pack: not our ref aaaa", exit_code=31), "commit_not_found"),
        (result(exit_code=32), "commit_not_found"),
        (result(exit_code=33), "repo_too_large"),
        (result("fatal: unable to access 'x': Could not resolve host: x", exit_code=31), "fetch_network"),
        (result("error: failed to parse manifest", exit_code=34), "manifest_invalid"),
        (result("fatal: write error: No space left on device", exit_code=31), "repo_too_large"),
        (result(exit_code=137, out_of_memory=True), "repo_too_large"),
        (result(exit_code=137, stopped="timeout"), "timeout"),
        (result(exit_code=2), "sandbox_error"),
    ],
)
def test_of_source(ended: PhaseResult, code: str) -> None:
    assert failures.of_source(ended, REQUEST).code == code


@pytest.mark.parametrize(
    ("log", "of_lock", "of_fetch", "of_fetch_with_git"),
    [
        (
            "error: the lock file /src/Cargo.lock needs to be updated but --locked was passed",
            "manifest_invalid",
            *["lockfile_outdated"] * 2,
        ),
        (
            "error: failed to parse lock file\nlock file version `9` was found, perhaps Cargo needs to be updated?",
            *["manifest_invalid"] * 3,
        ),
        ("error: no matching package named `x` found", "dependency_not_found", *["lockfile_outdated"] * 2),
        ('error: failed to select a version for the requirement `x = "=9"`', "dependency_not_found", *["lockfile_outdated"] * 2),
        ("error: no matching package named `rustls-certificate-timeout` found", "dependency_not_found", *["lockfile_outdated"] * 2),
        ("error: failed to select a version for `openssl-sys`.", "dependency_not_found", *["lockfile_outdated"] * 2),
        ("error: could not find `native-tls` in registry `crates-io`", "dependency_not_found", "lockfile_outdated", "dependency_not_found"),
        ("warning: timed out\nerror: no matching package named `x` found", "dependency_not_found", *["lockfile_outdated"] * 2),
        (
            "fatal: unable to access 'x': The requested URL returned error: 429\nerror: failed to load source for dependency `x`",
            *("fetch_network", "lockfile_outdated", "fetch_network"),
        ),
        ("error: failed to get `x`\n  [35] SSL connect error (TLS connect error: error:0A000126:SSL routines::)", *["fetch_network"] * 3),
        ("error: failed to get successful HTTP response from `https://x`, got 429", *["fetch_network"] * 3),
        ("error: failed to load source for dependency `x`", "dependency_not_found", "lockfile_outdated", "dependency_not_found"),
        ("warning: spurious network error (3 tries remaining): [6] Could not resolve hostname", *["fetch_network"] * 3),
        ("fatal: transport 'ssh' not allowed", *["unsupported_source"] * 3),
        ("error: failed to load source for dependency `x`\nfailed to read `/etc/Cargo.toml`", *["manifest_invalid"] * 3),
        ("error: something new", *["manifest_invalid"] * 3),
    ],
)
def test_of_dependencies(log: str, of_lock: str, of_fetch: str, of_fetch_with_git: str) -> None:
    assert failures.of_lock(result(log)).code == of_lock
    assert failures.of_fetch(result(log), with_git=False).code == of_fetch
    assert failures.of_fetch(result(log), with_git=True).code == of_fetch_with_git


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (result("error[E0308]: mismatched types"), "compile_error"),
        (result("error: failed to run custom build command for `x`"), "build_script_failed"),
        (result("error: could not write: No space left on device (os error 28)"), "disk_full"),
        (result('Os { code: 11, message: "Resource temporarily unavailable" }'), "too_many_processes"),
        (result(exit_code=0, out_of_memory=True), "out_of_memory"),
        (result("No space left on device", out_of_memory=True), "out_of_memory"),
        (result("process didn't exit successfully: `build-script-build` (signal: 24)"), "timeout"),
        (result(exit_code=152), "timeout"),
        (result(exit_code=137), "killed_by_build"),
        (result(exit_code=137, stopped="timeout"), "timeout"),
        (result(exit_code=137, stopped="no_output"), "no_output"),
    ],
)
def test_of_compile(ended: PhaseResult, code: str) -> None:
    assert failures.of_compile(ended, BuildLimits()).code == code


def test_the_sentence_holds_the_first_error_of_the_tools() -> None:
    error = failures.of_compile(result("warning: x\nerror[E0308]: mismatched types\nerror: aborting"), BuildLimits())

    assert error.sentence == "The program does not compile: error[E0308]: mismatched types"
    assert "aborting" in error.log_tail


def test_the_sentence_tells_the_place_in_the_source_where_the_compiler_does() -> None:
    told = "warning: x\n --> src/a.rs:1:1\nerror[E0308]: mismatched types\n  --> src/lib.rs:3:5\n   |\nerror: aborting"

    error = failures.of_compile(result(told), BuildLimits())

    assert error.sentence == "The program does not compile: error[E0308]: mismatched types (src/lib.rs:3:5)"
