"""Names of sources: which repository, which commit, which target.

The strings come from strangers and end as arguments of git, so each is checked against a narrow alphabet first.
Nothing here reads a repository; ``git ls-remote`` at most asks its host for the commit of a branch or tag.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from offchainvm import authorities
from offchainvm.compiler import git, logtext
from offchainvm.errors import BuildCode, BuildError
from offchainvm.models import CodeSource

TARGETS = ("wasm32-wasip1", "wasm32-unknown-unknown")
ALIASES = {"wasm32-wasi": "wasm32-wasip1"}
CACHE_SECONDS = 30.0
_REPO = re.compile(r"(?:https://)?(?:www\.)?github\.com/(?P<url_path>.+)|(?P<path>[^/:@]+/[^/:@]+)", re.IGNORECASE)
_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SHA = re.compile(r"[0-9a-fA-F]{40}")
_OTHER_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[^/]+@[^/]+:|[^/]+\.[a-z]+/")
# git check-ref-format(1): what no reference may hold. `*`, `?` and `[` would be patterns of ls-remote.
_BAD_REF = re.compile(r"[\x00-\x20\x7f-\x9f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|/\.|[/.]$|\.lock(?:/|$)|^@$")
_MAX_REF_CHARS = 255
_CACHE_ENTRIES = 4096


@dataclass(frozen=True)
class Source:
    """A validated source. ``repo`` and ``target`` stay byte for byte as in the task: the source key needs them so."""

    repo: str
    owner: str
    name: str
    ref: str
    """A branch, a tag, or a full SHA in lower case."""
    target: str
    clone_url: str

    @property
    def rust_target(self) -> str:
        """The target by today's name: ``wasm32-wasi`` is called ``wasm32-wasip1``."""
        return ALIASES.get(self.target, self.target)

    @property
    def is_full_sha(self) -> bool:
        return is_full_sha(self.ref)


def is_full_sha(text: str) -> bool:
    """Whether ``text`` is a full SHA-1 of git: 40 hex characters."""
    return _SHA.fullmatch(text) is not None


def parse_source(untrusted_source: CodeSource, *, mirror_url: str = "") -> Source:
    """Check a task's code source: an https GitHub URL or ``owner/name``, a reference, a target.

    Args:
        mirror_url: base that replaces GitHub when cloning; ``file://DIR`` is a folder of bare repositories.

    Raises:
        BuildError: ``invalid_request``, or ``unsupported_source`` for what lies elsewhere than on GitHub.
    """
    owner, name = _owner_and_name(untrusted_source.repo)
    return Source(
        repo=untrusted_source.repo,
        owner=owner,
        name=name,
        ref=_checked_ref(untrusted_source.commit),
        target=_checked_target(untrusted_source.build_target),
        clone_url=clone_url(owner, name, mirror_url=mirror_url),
    )


def clone_url(owner: str, name: str, *, mirror_url: str = "") -> str:
    """Where to clone a repository from: GitHub, or the mirror that stands for it."""
    base = f"{mirror_url.rstrip('/')}/" if mirror_url else git.GITHUB
    return f"{base}{owner}/{name}.git"


def source_key(repo: str, commit_sha: str, build_target: str) -> str:
    """The key under which workers share a module: SHA-256, hex, of the three strings joined with nothing between.

    It names the source, not the bytes (wire contract, section 1): ``commit_sha`` is the full SHA, the others
    stay as in the task.
    """
    return hashlib.sha256(f"{repo}{commit_sha}{build_target}".encode()).hexdigest()


class Resolver:
    """Turns references into full SHAs; answers are kept for 30 s. Safe to share between threads.

    Args:
        mirror_url: where to ask; empty = where the source's own ``clone_url`` says.
    """

    def __init__(
        self, mirror_url: str = "", *, cache_seconds: float = CACHE_SECONDS, timeout_seconds: float = 20.0, ca_bundle: Path | None = None
    ) -> None:
        self._mirror_url = mirror_url
        self._cache_seconds = cache_seconds
        self._timeout_seconds = timeout_seconds
        self._ca_pem = authorities.pem(ca_bundle)
        self._known: dict[tuple[str, str], tuple[float, str]] = {}
        self._lock = threading.Lock()

    def resolve(self, source: Source) -> str:
        """The full SHA of ``source.ref``; a full SHA is returned as it is, without asking whether it exists.

        Raises:
            BuildError: ``repo_not_found``, ``commit_not_found``, ``fetch_network``.
            Unavailable: git is not installed on this host (service ``git``).
        """
        if source.is_full_sha:
            return source.ref
        url = clone_url(source.owner, source.name, mirror_url=self._mirror_url) if self._mirror_url else source.clone_url
        key = (url, source.ref)
        with self._lock:
            at, sha = self._known.get(key, (0.0, ""))
        if sha and time.monotonic() - at < self._cache_seconds:
            return sha
        sha = self._ask(source, url)
        with self._lock:
            if len(self._known) >= _CACHE_ENTRIES:
                self._known.clear()
            self._known[key] = (time.monotonic(), sha)
        return sha

    def _ask(self, source: Source, url: str) -> str:
        # A tag object's own SHA is no commit: the peeled name comes first.
        ref = source.ref
        wanted = [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"]
        if ref == "HEAD" or ref.startswith("refs/"):
            wanted = [f"{ref}^{{}}", ref]
        refs = git.ls_remote(url, wanted, timeout_seconds=self._timeout_seconds, ca_pem=self._ca_pem)
        for name in wanted:
            if is_full_sha(refs.get(name, "")):
                return refs[name]
        hint = " An abbreviated commit is not enough." if re.fullmatch(r"[0-9a-fA-F]{4,39}", source.ref) else ""
        raise BuildError(
            BuildCode.COMMIT_NOT_FOUND,
            f"{source.owner}/{source.name} has no branch or tag {source.ref}.{hint}",
            remedy="Name a branch, a tag, or the full 40 characters of a commit.",
        )


def _owner_and_name(untrusted_repo: str) -> tuple[str, str]:
    if not untrusted_repo or re.search(r"[^\x21-\x7e]", untrusted_repo) or untrusted_repo.startswith("-"):
        raise BuildError(
            BuildCode.INVALID_REQUEST, "The repository's name is empty, or holds spaces, control characters or a leading dash."
        )
    match = _REPO.fullmatch(untrusted_repo)
    if match is None:
        code = BuildCode.UNSUPPORTED_SOURCE if _OTHER_ADDRESS.match(untrusted_repo) else BuildCode.INVALID_REQUEST
        raise BuildError(code, "The repository must be https://github.com/OWNER/NAME, or OWNER/NAME.")
    names = _names(match["url_path"] or match["path"])
    if names is None:
        raise BuildError(
            BuildCode.INVALID_REQUEST, "The repository must be https://github.com/OWNER/NAME, or OWNER/NAME, by names that GitHub allows."
        )
    return names


def is_on_github(untrusted_url: str) -> bool:
    """Whether it is the address of a repository, https://github.com/OWNER/NAME, and of nothing else that a mirror might have."""
    return untrusted_url.startswith(git.GITHUB) and _names(untrusted_url.removeprefix(git.GITHUB)) is not None


def _names(untrusted_path: str) -> tuple[str, str] | None:
    owner, _, name = untrusted_path.removesuffix("/").removesuffix(".git").partition("/")
    return (owner, name) if _OWNER.fullmatch(owner) and _NAME.fullmatch(name) and name not in {".", ".."} else None


def _checked_ref(untrusted_ref: str) -> str:
    if is_full_sha(untrusted_ref):
        return untrusted_ref.lower()
    if not untrusted_ref or len(untrusted_ref) > _MAX_REF_CHARS or _BAD_REF.search(untrusted_ref) or logtext.HIDDEN.search(untrusted_ref):
        raise BuildError(BuildCode.INVALID_REQUEST, "The commit is no valid branch, tag or SHA.")
    return untrusted_ref


def _checked_target(untrusted_target: str) -> str:
    if untrusted_target not in (*TARGETS, *ALIASES):
        raise BuildError(BuildCode.INVALID_REQUEST, f"The build target must be one of {', '.join((*TARGETS, *ALIASES))}.")
    return untrusted_target
