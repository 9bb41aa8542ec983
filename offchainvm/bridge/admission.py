"""Where a task enters: its limits, its source, and the stage at which it begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from offchainvm.answers import failure
from offchainvm.bridge.lists import Lists, Origin
from offchainvm.bridge.origins import Origins
from offchainvm.compiler.source import Resolver, Source, parse_source, source_key
from offchainvm.coordinator import Coordinator
from offchainvm.errors import BuildCode, BuildError, JobError, Refused, Unavailable
from offchainvm.jobs.record import DEADLINE_HEIGHTS, Stage, ToResolve
from offchainvm.jobs.store import Acceptance, JobStore
from offchainvm.logs import get_logger
from offchainvm.models import CodeSource, CompileTask, ExecuteTask, KeptRequest, ResourceLimits

log = get_logger()

_SEEN_SECONDS = 30.0
_RESOLVER_REST_SECONDS = 10.0


@dataclass(frozen=True)
class LimitPolicy:
    """What a request gets where it names no limit, and the most that any request gets."""

    defaults: ResourceLimits
    most: ResourceLimits

    def apply(self, asked: ResourceLimits) -> tuple[ResourceLimits, tuple[str, ...]]:
        """All limits filled, and the names of those that were ours and not the request's."""
        filled = asked.or_else(self.defaults).model_dump()
        ceilings = {name: ceiling for name, ceiling in self.most.model_dump().items() if ceiling is not None and filled[name] > ceiling}
        return ResourceLimits(**{**filled, **ceilings}), tuple(ceilings)


@dataclass(frozen=True)
class _Place:
    stage: Stage
    origin: Origin
    source_key: str | None = None
    commit_sha: str | None = None
    refusal: ToResolve | None = None


class Admission:
    """Makes jobs of tasks. Only Redis can stop it: whatever else is away makes it know less of a job, not refuse it.

    Args:
        head: height of a final block of the last seconds, None where the chain cannot be asked.
        lists: whose code and whose requests are run; the contract of any other is told so.
        kept: what the contract keeps of a request (data id, request id): asked where a list needs what nobody told.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        coordinator: Coordinator,
        resolver: Resolver,
        limits: LimitPolicy,
        mirror_url: str,
        head: Callable[[], int | None],
        lists: Lists | None = None,
        kept: Callable[[str, int], KeptRequest | None] = lambda *_: None,
    ) -> None:
        self._store, self._coordinator, self._resolver = store, coordinator, resolver
        self._limits, self._mirror_url, self._head = limits, mirror_url, head
        self._lists = lists or Lists()
        self._origins = Origins(records=store, lists=self._lists, mirror_url=mirror_url, kept=kept)
        self._seen_until: dict[str, float] = {}
        self._resolver_rests_until = 0.0

    def admit(self, task: CompileTask | ExecuteTask) -> Acceptance:
        """Accept a task, once for each data id.

        Raises:
            Undecided: a list needs to know what the chain cannot say yet; the task is to be brought again.
            Unavailable: Redis is away.
        """
        place = self._place(task)
        limits, clamped = self._limits.apply(task.resource_limits)
        head = self._head()
        acceptance = self._store.accept(
            task,
            stage=place.stage,
            limits=limits,
            limits_clamped=clamped,
            source_key=place.source_key,
            commit_sha=place.commit_sha,
            repository=place.origin.repository or "",
            sender_id=place.origin.sender_id or "",
            refusal=place.refusal,
            # Where the monitor recorded the event's height, the script takes that instead.
            deadline_height=None if head is None else head + DEADLINE_HEIGHTS,
        )
        log.info(
            "task accepted",
            action="accept_task",
            data_id=task.data_id,
            request_id=task.request_id,
            stage=place.stage.value,
            acceptance=acceptance.value,
            refused=place.refusal is not None,
        )
        return acceptance

    def _place(self, task: CompileTask | ExecuteTask) -> _Place:
        origin = self._origins.of(task)
        try:
            self._lists.check(origin)
        except JobError as error:
            return _Place(Stage.COMPILE, origin, refusal=failure(task, error))
        if isinstance(task, ExecuteTask):
            return _Place(Stage.EXECUTE, origin, source_key=task.wasm_checksum)
        source = self._source(task.code_source)
        commit_sha = None if source is None else self._resolved(source)
        if source is None or commit_sha is None:
            return _Place(Stage.COMPILE, origin)
        key = source_key(source.repo, commit_sha, source.target)
        stage = Stage.EXECUTE if self._is_cached(key) else Stage.COMPILE
        return _Place(stage, origin, source_key=key, commit_sha=commit_sha)

    def _source(self, untrusted_source: CodeSource) -> Source | None:
        """None where it is none: the compile stage meets the same error, and tells the contract."""
        try:
            return parse_source(untrusted_source, mirror_url=self._mirror_url)
        except BuildError:
            return None

    def _resolved(self, source: Source) -> str | None:
        """The full SHA, or None: then the compile stage looks for itself, with its own repeats."""
        if not source.is_full_sha and time.monotonic() < self._resolver_rests_until:
            return None
        try:
            return self._resolver.resolve(source)
        except BuildError as error:
            if error.code == BuildCode.FETCH_NETWORK.value:
                self._resolver_rests_until = time.monotonic() + _RESOLVER_REST_SECONDS
        except Unavailable as error:
            log.debug(error.sentence, action="resolve_reference_later", service=error.service)
            self._resolver_rests_until = time.monotonic() + _RESOLVER_REST_SECONDS
        return None

    def _is_cached(self, key: str) -> bool:
        """Whether there is a module, perhaps rubbish: the execute stage checks the bytes and sends rubbish back."""
        if self._store.module(key) is not None or self._seen_until.get(key, 0.0) > time.monotonic():
            return True
        try:
            there = self._coordinator.wasm_exists(key)
        except (Unavailable, Refused):
            return False
        if there:
            if len(self._seen_until) > 10_000:
                self._seen_until.clear()
            self._seen_until[key] = time.monotonic() + _SEEN_SECONDS
        return there
