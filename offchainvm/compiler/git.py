"""Git on the worker's host: ``ls-remote`` only, with everything that a repository or a user could configure switched off."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from offchainvm.authorities import not_accepted
from offchainvm.errors import BuildCode, BuildError, Unavailable

PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
GITHUB = "https://github.com/"
_OUTPUT_LIMIT_BYTES = 1024 * 1024
_TRUST = "Put the certificate of its authority into the file that CA_BUNDLE names, and restart the worker."
# A missing and a private repository look the same: the host asks for a login.
_NOT_FOUND = re.compile(
    r"not found|could not read (?:Username|Password)|Authentication failed|does not exist|does not appear to be|no such", re.IGNORECASE
)
_REF_LINE = re.compile(rb"([0-9a-f]{40})\t(\S+)")


def ls_remote(url: str, refs: Sequence[str], *, timeout_seconds: float, ca_pem: bytes = b"") -> dict[str, str]:
    """Names and SHAs of those of ``refs`` (full names) that the repository at ``url`` has.

    Args:
        ca_pem: the certificate authorities to trust; empty = git's own.

    Raises:
        BuildError: ``repo_not_found``, ``fetch_network``.
        Unavailable: git is not installed (service ``git``).
    """
    # Files, not pipes: a helper process of git that outlives it would hold a pipe open.
    with tempfile.TemporaryDirectory(prefix="offchainvm-git-") as folder, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        home = Path(folder)
        (home / "gitconfig").write_text(git_config(url.rsplit("/", 2)[0]))
        (home / "ca.crt").write_bytes(ca_pem)
        code = _run(
            ["git", "ls-remote", "--", url, *refs],
            cwd=home,
            env={**_environment(home, url), **({"GIT_SSL_CAINFO": str(home / "ca.crt")} if ca_pem else {})},
            files=(out, err),
            timeout_seconds=timeout_seconds,
        )
        out.seek(0)
        err.seek(0)
        untrusted_out, untrusted_err = out.read(_OUTPUT_LIMIT_BYTES), err.read(4096).decode("utf-8", "replace")
    if code != 0:
        raise _failure(url, untrusted_err)
    found = {match[2].decode("utf-8", "replace"): match[1].decode() for match in _REF_LINE.finditer(untrusted_out)}
    return {name: sha for name, sha in found.items() if name in refs}


def git_config(base: str = GITHUB) -> str:
    """A global git configuration that reaches what lies under ``base`` only, asks nobody and runs nothing.

    Args:
        base: https://github.com/, or the mirror that stands for it (git dependencies included).
    """
    base = f"{base.rstrip('/')}/"
    lines = ["[safe]", "directory = *", "[protocol]", "allow = never", f'[protocol "{scheme_of(base)}"]', "allow = always"]
    lines += ["[core]", "hooksPath = /dev/null", "fsmonitor = false", "protectHFS = true", "protectNTFS = true"]
    lines += ["[credential]", "helper =", "[submodule]", "recurse = false", "[fetch]", "recurseSubmodules = false"]
    lines += ["[gc]", "auto = 0", "[advice]", "detachedHead = false"]
    # The longest match wins: every address but those of the base becomes one of a protocol that is not allowed.
    lines += [f'[url "{base}"]', f"insteadOf = {base}", *([] if base == GITHUB else [f"insteadOf = {GITHUB}"])]
    lines += ['[url "blocked://"]', "insteadOf = https://", "insteadOf = http://", "insteadOf = file://"]
    return "\n".join(lines) + "\n"


def scheme_of(url: str) -> str:
    """``https``, ``http`` or ``file``."""
    return urlsplit(url).scheme


def proxy_environment() -> dict[str, str]:
    """This host's proxy variables, for what may use the network."""
    return {name: os.environ[name] for name in PROXY_VARIABLES if os.environ.get(name)}


def _environment(home: Path, url: str) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_SSH_COMMAND": "false",
        "GIT_ALLOW_PROTOCOL": scheme_of(url),
        "GIT_CEILING_DIRECTORIES": str(home.parent),
        **proxy_environment(),
    }


def _run(command: list[str], *, cwd: Path, env: dict[str, str], files: tuple[object, object], timeout_seconds: float) -> int:
    out, err = files
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # type: ignore[call-overload]
        )
    except FileNotFoundError as error:
        raise Unavailable(
            "git", "git is not installed on this host.", remedy="Install git, so that branches and tags can be resolved."
        ) from error
    try:
        code: int = process.wait(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise BuildError(BuildCode.FETCH_NETWORK, f"The repository's host did not answer within {timeout_seconds:g} s.") from None
    finally:
        # Its helpers (git-remote-https) live in the same group.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code


def _failure(url: str, untrusted_error: str) -> BuildError:
    name = "/".join(urlsplit(url).path.removesuffix(".git").split("/")[-2:])
    if _NOT_FOUND.search(untrusted_error):
        return BuildError(BuildCode.REPO_NOT_FOUND, f"The repository {name} does not exist, or is private.")
    log_tail = sentence_of(untrusted_error)
    if not_accepted(untrusted_error):
        return not_trusted(f"the host of the repository {name}", log_tail=log_tail)
    return BuildError(BuildCode.FETCH_NETWORK, f"The host of the repository {name} cannot be reached.", log_tail=log_tail)


def not_trusted(who: str, *, log_tail: str = "") -> BuildError:
    """For a server whose certificate no authority that we trust has signed."""
    sentence = f"The certificate of {who} is not one that this worker trusts (CA_BUNDLE)."
    return BuildError(BuildCode.FETCH_NETWORK, sentence, log_tail=log_tail, remedy=_TRUST)


def sentence_of(untrusted_error: str) -> str:
    """The last line of what a tool complained, printable."""
    lines = [line for line in untrusted_error.strip().splitlines() if line.strip()]
    return re.sub(r"[^\x20-\x7e]", "?", lines[-1])[:300] if lines else ""
