"""What this operator runs, by repository and by sender: allow and deny lists, told as an answer and never by silence.

Who is not known is refused wherever a list is set: a list that can be slipped past by telling less is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from offchainvm.errors import JobCode, JobError


@dataclass(frozen=True)
class Patterns:
    """Who is allowed (empty: everyone who is not denied) and who is denied, allowed too or not."""

    allow: Sequence[str] = ()
    deny: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.allow or self.deny)

    def refuse(self, name: str, matches: Callable[[str, str], bool]) -> bool:
        """Whether nothing is done for ``name``, where ``matches(name, pattern)`` compares."""
        denied = any(matches(name, pattern) for pattern in self.deny)
        return denied or (bool(self.allow) and not any(matches(name, pattern) for pattern in self.allow))


@dataclass(frozen=True)
class Origin:
    """Where a request comes from; None: that is not known.

    ``repository``: ``owner/name``; empty for a source that is none, of which nothing can be built.
    """

    sender_id: str | None = None
    repository: str | None = None


@dataclass(frozen=True)
class Lists:
    """Both lists of an operator: patterns of ``owner/name`` (``*`` and ``?``, in any case), accounts and ``*.account``."""

    repositories: Patterns = field(default_factory=Patterns)
    senders: Patterns = field(default_factory=Patterns)

    def decide(self, origin: Origin) -> bool:
        """Whether ``origin`` tells all that the lists ask for."""
        unknown = (bool(self.senders) and origin.sender_id is None) or (bool(self.repositories) and origin.repository is None)
        return not unknown

    def check(self, origin: Origin) -> None:
        """Raises: JobError: ``not_allowed``."""
        sender, repository = origin.sender_id, origin.repository
        if self.senders and (sender is None or self.senders.refuse(sender, _sender_matches)):
            raise JobError(JobCode.NOT_ALLOWED, f"this worker does not run requests of {sender or 'an unknown sender'}")
        if self.repositories and (repository is None or self.repositories.refuse(repository, _repository_matches)):
            raise JobError(JobCode.NOT_ALLOWED, f"this worker does not run code of {repository or 'an unknown repository'}")


def _repository_matches(repository: str, pattern: str) -> bool:
    return fnmatchcase(repository.lower(), pattern.lower())


def _sender_matches(sender_id: str, pattern: str) -> bool:
    return sender_id.endswith(pattern[1:]) if pattern.startswith("*.") else sender_id == pattern
