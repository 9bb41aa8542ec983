"""Whose code this operator runs: allow and deny lists, told as an answer and never by silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from offchainvm.errors import JobCode, JobError


@dataclass(frozen=True)
class RepositoryLists:
    """Patterns of ``owner/name`` (``*`` and ``?``), in any case. A denied one is refused even where it is allowed too."""

    allow: Sequence[str] = ()
    """Empty: everything that is not denied."""
    deny: Sequence[str] = ()

    def check(self, repository: str) -> None:
        """``repository``: ``owner/name``; empty for a task that names none, or something that is none.

        Raises:
            JobError: ``not_allowed``.
        """
        if _matches(repository, self.deny):
            raise JobError(JobCode.NOT_ALLOWED, f"this worker does not run code of {repository}")
        if self.allow and not _matches(repository, self.allow):
            raise JobError(
                JobCode.NOT_ALLOWED, f"this worker runs code of chosen repositories only, not of {repository or 'an unnamed one'}"
            )


def _matches(repository: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(repository.lower(), pattern.lower()) for pattern in patterns)
