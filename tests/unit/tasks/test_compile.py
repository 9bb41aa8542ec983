"""The compile stage's work: one build per source, whatever caches and other fleets do."""

from __future__ import annotations

import time

import pytest
from fake_builder import EMPTY_OUTPUT_MODULE, FakeBuilder

from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.source import source_key
from offchainvm.errors import BuildCode, BuildError, JobCode, JobError, TooLarge, Unavailable
from offchainvm.jobs.record import ModuleRecord, Stage, ToExecute
from offchainvm.jobs.single_flight import Builder as BecomeBuilder
from offchainvm.jobs.single_flight import Built, Failed, Parked
from offchainvm.models import CodeSource
from offchainvm.modules import CachedModule
from offchainvm.tasks.compile import CompileWork

SHA = "1" * 40
REPO = "https://github.com/owner/name"
KEY = source_key(REPO, SHA, "wasm32-wasip1")


class Flight:
    def __init__(self, entrance):
        self.entrance, self.noted_lock = entrance, None

    def enter(self, claim, key):
        assert key == KEY
        return self.entrance

    def noted_coordinator_lock(self, key):
        return self.noted_lock

    def note_coordinator_lock(self, key, lock_key, *, ttl_seconds):
        assert ttl_seconds == 360
        self.noted_lock = lock_key

    def drop_coordinator_lock(self, key):
        self.noted_lock = None


class Coordinator:
    def __init__(self, *, lock_is_free=True, upload_error=None):
        self.lock_is_free, self.upload_error, self.calls = lock_is_free, upload_error, []

    def acquire_lock(self, key, ttl_seconds):
        self.calls.append(("acquire", key, ttl_seconds))
        return self.lock_is_free

    def release_lock(self, key):
        self.calls.append(("release", key))

    def upload(self, checksum, repo_url, commit_hash, wasm):
        self.calls.append(("upload", checksum, repo_url, commit_hash, wasm))
        if self.upload_error:
            raise self.upload_error


class Modules:
    def __init__(self, cached=None):
        self.cached, self.kept = cached, []

    def fetch(self, source_key, sha256=None):
        if self.cached is None:
            raise JobError(JobCode.WASM_UNAVAILABLE, "none")
        return self.cached

    def put(self, source_key, wasm):
        self.kept.append((source_key, wasm))


class Resolver:
    def resolve(self, source):
        assert source.ref == "main"
        return SHA


@pytest.fixture
def rooms():
    return {
        "flight": Flight(BecomeBuilder()),
        "coordinator": Coordinator(),
        "builder": FakeBuilder(),
        "modules": Modules(),
        "resolver": Resolver(),
    }


@pytest.fixture
def work(rooms, make_claim):
    def run(**changes):
        job = {"stage": Stage.COMPILE, "source_key": None, "accepted_at": time.time(), **changes}
        return CompileWork(limits=BuildLimits(timeout_seconds=300), **rooms)(make_claim(**job))

    return run


def test_a_build_is_locked_uploaded_and_released(rooms, work):
    step = work()
    lock = f"compile:{REPO}:{SHA}"
    assert rooms["coordinator"].calls == [("acquire", lock, 360), ("upload", KEY, REPO, SHA, EMPTY_OUTPUT_MODULE), ("release", lock)]
    assert isinstance(step, ToExecute)
    assert (step.source_key, step.commit_sha, step.module_size) == (KEY, SHA, len(EMPTY_OUTPUT_MODULE))
    assert rooms["modules"].kept == [(KEY, EMPTY_OUTPUT_MODULE)]


def test_a_branch_is_resolved_before_anything_is_looked_up(rooms, work):
    step = work(commit_sha=None, source=CodeSource(repo=REPO, commit="main"))
    assert step.commit_sha == SHA
    assert rooms["coordinator"].calls[0] == ("acquire", f"compile:{REPO}:main", 360), "the lock's key is as in the task"


def test_a_cached_module_is_not_built(rooms, work, tmp_path):
    rooms["modules"].cached = CachedModule(path=tmp_path, sha256="ee" * 32, size=5)
    assert work() == ToExecute(source_key=KEY, commit_sha=SHA, module_sha256="ee" * 32, module_size=5)
    assert rooms["builder"].requests == []


def test_a_rebuild_does_not_believe_the_cache(rooms, work, tmp_path):
    rooms["modules"].cached = CachedModule(path=tmp_path, sha256="ee" * 32, size=5)
    work(rebuild=True)
    assert len(rooms["builder"].requests) == 1


def test_a_source_that_is_being_built_parks_the_job(rooms, work):
    rooms["flight"].entrance = Parked()
    assert work() is None
    assert rooms["builder"].requests == []


def test_a_source_that_was_built_meanwhile_goes_on(rooms, work):
    rooms["flight"].entrance = Built(ModuleRecord(sha256="ee" * 32, size=5))
    assert work().module_sha256 == "ee" * 32


def test_a_source_that_just_failed_fails_alike(rooms, work):
    rooms["flight"].entrance = Failed("compile_error", "expected `;`")
    with pytest.raises(BuildError) as caught:
        work()
    assert caught.value.text == "compile_error: expected `;`"


def test_another_fleets_build_is_waited_for_outside_the_pool_slot(rooms, work):
    rooms["coordinator"].lock_is_free = False
    with pytest.raises(Unavailable) as caught:
        work()
    assert caught.value.retry_after_seconds == 5
    assert rooms["builder"].requests == []
    assert rooms["flight"].noted_lock is None, "it is not ours"


def test_a_lock_that_outlived_its_holder_stops_no_job_and_is_left_to_whoever_holds_it(rooms, work):
    rooms["coordinator"].lock_is_free = False
    assert isinstance(work(accepted_at=time.time() - 361), ToExecute)
    assert "release" not in [call[0] for call in rooms["coordinator"].calls]
    assert rooms["flight"].noted_lock is None


@pytest.mark.parametrize("dies", ["as it asked", "with it"])
def test_the_lock_of_a_dead_builder_of_ours_is_taken_over_and_released(rooms, work, monkeypatch, dies):
    coordinator = rooms["coordinator"]

    def die(*_, **__):
        coordinator.lock_is_free = False
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(*((coordinator, "acquire_lock") if dies == "as it asked" else (rooms["builder"], "build")), die)
        patched.setattr(coordinator, "release_lock", die)
        with pytest.raises(SystemExit):
            work()
    assert isinstance(work(), ToExecute)
    assert coordinator.calls[-1] == ("release", f"compile:{REPO}:{SHA}")
    assert rooms["flight"].noted_lock is None


def test_a_lock_that_cannot_be_noted_is_not_asked_for(rooms, work, monkeypatch):
    def away(*_, **__):
        raise Unavailable("redis", "Redis is away.")

    monkeypatch.setattr(rooms["flight"], "note_coordinator_lock", away)
    with pytest.raises(Unavailable):
        work()
    assert rooms["coordinator"].calls == []


def test_the_locks_key_has_the_commit_as_in_the_task(rooms, work):
    work(source=CodeSource(repo=REPO, commit="A" * 40), commit_sha=SHA)
    assert rooms["coordinator"].calls[0][1] == f"compile:{REPO}:{'A' * 40}"


def test_a_failed_build_releases_the_lock(rooms, work):
    rooms["builder"].answers["owner/name"] = BuildError(BuildCode.COMPILE_ERROR, "no")
    with pytest.raises(BuildError):
        work()
    assert rooms["coordinator"].calls[-1] == ("release", f"compile:{REPO}:{SHA}")


def test_a_module_the_coordinator_does_not_take_names_both_sizes(rooms, work):
    rooms["coordinator"].upload_error = TooLarge("the body has 3000000 bytes and the Coordinator takes 2097152", status=413)
    with pytest.raises(BuildError) as caught:
        work()
    assert caught.value.text == "artifact_too_large: the body has 3000000 bytes and the Coordinator takes 2097152"


def test_a_job_without_a_source_says_so(work):
    with pytest.raises(JobError, match="wasm_unavailable"):
        work(source=None)
