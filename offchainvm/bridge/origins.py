"""Who sent a request, and whose code it names: from the task, from its event, and where a list wants to know, from the contract."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from offchainvm.bridge.lists import Lists, Origin
from offchainvm.compiler.source import parse_source
from offchainvm.errors import BuildError, OffchainVMError, Unavailable
from offchainvm.jobs.lookups import Lookups
from offchainvm.models import CodeSource, CompileTask, ExecuteTask, KeptRequest

PATIENCE_SECONDS = 15.0
"""How long a request that the contract does not know is asked for again: an RPC node may be some blocks behind the Coordinator."""
_CHAIN_RESTS_SECONDS = 5.0
_MOST_WAITING = 10_000


class Undecided(OffchainVMError):
    """Whether a list refuses a task cannot be said yet: it is to be asked again, in seconds."""

    code = "undecided"


class Origins:
    """Finds the origin of tasks.

    Args:
        kept: what the contract keeps of a request (data id, request id), None where it keeps none.
    """

    def __init__(
        self, *, records: Lookups, lists: Lists, mirror_url: str, kept: Callable[[str, int], KeptRequest | None] = lambda *_: None
    ) -> None:
        self._records, self._lists, self._mirror_url, self._kept = records, lists, mirror_url, kept
        self._unknown_since: dict[str, float] = {}
        self._chain_rests_until = 0.0

    def of(self, task: CompileTask | ExecuteTask) -> Origin:
        """As much of a task's origin as the lists need.

        Raises:
            Undecided: the chain cannot be asked, or does not know the request yet.
            Unavailable: Redis is away.
        """
        origin = Origin(repository=self._named(task))
        if self._lists.senders:
            origin = replace(origin, sender_id=self._records.recorded_sender(task.data_id))
        if self._lists.decide(origin):
            return origin
        origin = self._completed(origin, self._ask(task))
        if not self._lists.decide(origin):
            self._wait_for(task)
        self._unknown_since.pop(task.data_id, None)
        return origin

    def _named(self, task: CompileTask | ExecuteTask) -> str | None:
        """What cannot be built is refused by the compile stage, with a better reason; a module is run whatever its task names."""
        named = self._repository(task.code_source)
        return named or None if isinstance(task, ExecuteTask) else named

    def _repository(self, untrusted_source: CodeSource | None) -> str:
        try:
            source = None if untrusted_source is None else parse_source(untrusted_source, mirror_url=self._mirror_url)
        except BuildError:
            source = None
        return "" if source is None else f"{source.owner}/{source.name}"

    def _ask(self, task: CompileTask | ExecuteTask) -> KeptRequest | None:
        if time.monotonic() < self._chain_rests_until:
            raise Undecided("The chain was away a moment ago.")
        try:
            return self._kept(task.data_id, task.request_id)
        except Unavailable as error:
            self._chain_rests_until = time.monotonic() + _CHAIN_RESTS_SECONDS
            raise Undecided(error.sentence, remedy=error.remedy) from error

    def _completed(self, origin: Origin, kept: KeptRequest | None) -> Origin:
        if kept is None:
            return origin
        return Origin(origin.sender_id or kept.sender_id or None, origin.repository or self._repository(kept.code_source) or None)

    def _wait_for(self, task: CompileTask | ExecuteTask) -> None:
        if len(self._unknown_since) > _MOST_WAITING:
            self._unknown_since.clear()
        if time.monotonic() - self._unknown_since.setdefault(task.data_id, time.monotonic()) < PATIENCE_SECONDS:
            raise Undecided("The contract does not know this request, or not yet.")
