"""The compile stage: from a repository to a module in the Coordinator's cache, one build per source key.

A job whose source is being built by another parks in Redis, not in a pool slot; the builder's commit wakes it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from offchainvm import health, logs, metrics
from offchainvm.app import app
from offchainvm.cancellation import Cancellation, InHand
from offchainvm.compiler.base import Builder, BuildEvent, BuildRequest, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.reaper import Reaper
from offchainvm.compiler.source import Resolver, Source, parse_source, source_key
from offchainvm.coordinator import Coordinator
from offchainvm.errors import BuildCode, BuildError, Cancelled, JobCode, JobError, OffchainVMError, TooLarge, Unavailable
from offchainvm.jobs.record import Claim, Job, Stage, ToExecute, Transition
from offchainvm.jobs.single_flight import Built, Failed, Parked, SingleFlight
from offchainvm.modules import CachedModule, ModuleCache
from offchainvm.settings import Role, Settings, load
from offchainvm.tasks import rooms
from offchainvm.tasks.stage import StageRunner

log = logs.get_logger()

LOCK_MARGIN_SECONDS = 60
FOREIGN_BUILD_PAUSE_SECONDS = 5.0
_reaper = Reaper()


class CompileWork:
    """Finds or makes the module of a job's source."""

    def __init__(
        self,
        *,
        flight: SingleFlight,
        coordinator: Coordinator,
        modules: ModuleCache,
        builder: Builder,
        resolver: Resolver,
        limits: BuildLimits,
        mirror_url: str = "",
        require_lockfile: bool = False,
    ) -> None:
        self._flight = flight
        self._coordinator = coordinator
        self._modules = modules
        self._builder = builder
        self._resolver = resolver
        self._limits = limits
        self._mirror_url = mirror_url
        self._require_lockfile = require_lockfile
        self._in_hand = InHand[Claim]()

    def __call__(self, claim: Claim) -> Transition | None:
        job, cancellation = claim.job, self._in_hand.begin(claim)
        if job.source is None:
            raise JobError(JobCode.WASM_UNAVAILABLE, "the job names no source that could be built")
        source = parse_source(job.source, mirror_url=self._mirror_url)
        commit_sha = job.commit_sha or self._resolver.resolve(source)
        key = source_key(job.source.repo, commit_sha, job.source.build_target)
        cached = None if job.rebuild else self._cached(key)
        if cached is not None:
            metrics.BUILDS.add(outcome="cached")
            return ToExecute(source_key=key, commit_sha=commit_sha, module_sha256=cached.sha256, module_size=cached.size)
        entered = self._flight.enter(claim, key)
        if isinstance(entered, Parked):
            metrics.BUILDS.add(outcome="shared")
            log.info("Another worker builds this source; the job is parked.", action="park_job", source_key=key)
            return None
        if isinstance(entered, Failed):
            raise BuildError(BuildCode(entered.code), entered.sentence)
        if isinstance(entered, Built):
            return ToExecute(source_key=key, commit_sha=commit_sha, module_sha256=entered.module.sha256, module_size=entered.module.size)
        lock_key = f"compile:{job.source.repo}:{job.source.commit}"
        with self._locked_against_other_fleets(job, key, lock_key):
            return self._build(source, commit_sha, key, cancellation)

    def abandon(self, claim: Claim) -> None:
        """Called from another thread when the claim is lost: its build, should it run, is ended at once."""
        self._in_hand.cancel(claim)

    def _cached(self, key: str) -> CachedModule | None:
        """The Coordinator's module, where it has one that passes our own checks."""
        try:
            return self._modules.fetch(key)
        except JobError as error:
            log.debug("No usable module in the cache.", action="miss_cache", source_key=key, reason=error.sentence)
            return None

    def _build(self, source: Source, commit_sha: str, key: str, cancellation: Cancellation) -> ToExecute:
        built = self._built(BuildRequest(source, commit_sha, self._limits, require_lockfile=self._require_lockfile), cancellation)
        self._modules.put(key, built.wasm)  # an execute worker on this host need not download it
        self._upload(key, source.repo, commit_sha, built.wasm)
        return ToExecute(source_key=key, commit_sha=commit_sha, module_sha256=built.sha256, module_size=built.size)

    def _built(self, request: BuildRequest, cancellation: Cancellation) -> BuiltModule:
        outcome, began = BuildCode.SANDBOX_ERROR.value, time.monotonic()
        try:
            built, outcome = self._builder.build(request, on_event=_log_event, cancellation=cancellation), "made"
        except (BuildError, Cancelled) as error:
            outcome = error.code
            raise
        finally:
            metrics.BUILDS.add(outcome=outcome)
            metrics.BUILD_SECONDS.observe(time.monotonic() - began)
        return built

    @contextmanager
    def _locked_against_other_fleets(self, job: Job, key: str, lock_key: str) -> Iterator[None]:
        """Holds the Coordinator's lock where it is to be had. Advisory: never a reason to fail a job."""
        held = self._acquire(job, key, lock_key)
        try:
            yield
        finally:
            if held:
                self._release(key, lock_key)

    def _acquire(self, job: Job, key: str, lock_key: str) -> bool:
        """Waits for another operator's build, outside the pool slot; False when that was long enough."""
        is_ours = self._flight.noted_coordinator_lock(key) == lock_key  # a builder of ours died with it, or as it asked for it
        # Noted before it is asked for: who dies in between would keep its own fleet waiting for the lock's end.
        self._flight.note_coordinator_lock(key, lock_key, ttl_seconds=self._lock_seconds)
        if self._coordinator.acquire_lock(lock_key, ttl_seconds=self._lock_seconds) or is_ours:
            return True
        self._flight.drop_coordinator_lock(key)
        if time.time() - job.accepted_at < self._lock_seconds:
            pause = FOREIGN_BUILD_PAUSE_SECONDS
            raise Unavailable("coordinator lock", "Another fleet builds this source.", retry_after_seconds=pause)
        log.warning("The Coordinator's lock outlived its holder; building without it.", action="ignore_lock", lock_key=lock_key)
        return False

    @property
    def _lock_seconds(self) -> int:
        return int(self._limits.timeout_seconds) + LOCK_MARGIN_SECONDS

    def _release(self, key: str, lock_key: str) -> None:
        try:
            self._coordinator.release_lock(lock_key)
            self._flight.drop_coordinator_lock(key)
        except OffchainVMError as error:  # it runs out by itself
            log.warning("The Coordinator's lock could not be released.", action="release_lock", error=str(error))

    def _upload(self, key: str, repo: str, commit_sha: str, wasm: bytes) -> None:
        try:
            self._coordinator.upload(key, repo, commit_sha, wasm)
        except TooLarge as error:
            raise BuildError(BuildCode.ARTIFACT_TOO_LARGE, error.sentence) from error


def _log_event(event: BuildEvent) -> None:
    log.debug("A line of the build.", action="build_line", phase=event.phase, untrusted_line=event.text[:200])


def prepare(_app: Any, settings: Settings) -> None:
    """Look at what this role needs besides its settings; clear away what dead builds left behind, now and from time to time.

    Raises:
        Unavailable: no container engine answers, or it has no builder image.
    """
    with SandboxBuilder.from_settings(settings) as builder:
        builder.check()
    health.add_check("coordinator", rooms.coordinator(settings).health)
    health.add_check("docker", lambda: _can_build(settings))
    _reaper.start()
    compile_job.time_limit = settings.compile_timeout_seconds + 4 * LOCK_MARGIN_SECONDS


def _can_build(settings: Settings) -> str:
    with SandboxBuilder.from_settings(settings) as builder:
        return builder.look()


@functools.cache
def _runner() -> StageRunner:
    settings = load([Role.COMPILE])
    store = rooms.job_store(settings)
    work = CompileWork(
        flight=rooms.single_flight(settings),
        coordinator=rooms.coordinator(settings),
        modules=rooms.module_cache(settings),
        builder=SandboxBuilder.from_settings(settings),
        resolver=Resolver(settings.source_mirror_url, ca_bundle=settings.ca_bundle),
        limits=BuildLimits.from_settings(settings),
        mirror_url=settings.source_mirror_url,
        require_lockfile=settings.require_lockfile,
    )
    hard_limit_seconds = settings.compile_timeout_seconds + 3 * LOCK_MARGIN_SECONDS
    return StageRunner(stage=Stage.COMPILE, store=store, work=work, owner=rooms.owner(settings), hard_limit_seconds=hard_limit_seconds)


@app.task(name="offchainvm.compile")  # type: ignore[untyped-decorator]
def compile_job(message: dict[str, Any]) -> None:
    """Celery's entry to the compile stage."""
    _runner().run(message)
