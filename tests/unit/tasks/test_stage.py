"""One stage, one shape: what happens to a job whatever its work does."""

from __future__ import annotations

import json
import time

import pytest

from offchainvm.errors import BuildCode, BuildError, ExecutionError, Status, Unauthorized, Unavailable
from offchainvm.jobs.record import Stage, ToExecute, ToResolve
from offchainvm.tasks import lease
from offchainvm.tasks import stage as stage_module
from offchainvm.tasks.stage import StageRunner

ONE, TWO, THREE = ("11" * 32, "22" * 32, "33" * 32)
STEP = ToExecute(source_key="cd" * 32, commit_sha=None, module_sha256="ef" * 32, module_size=8)


@pytest.fixture
def run(store):
    def run(work, *data_ids, stage=Stage.EXECUTE):
        runner = StageRunner(stage=stage, store=store, work=work, owner="me", hard_limit_seconds=60)
        runner.run({"v": 1, "data_ids": list(data_ids)})

    return run


def raising(error):
    def work(claim):
        raise error

    return work


def test_a_step_is_committed_with_its_message(store, make_claim, run):
    store.claims[ONE] = make_claim(ONE)
    run(lambda claim: STEP, ONE)
    assert [(data_id, step) for data_id, step, _token in store.made("commit")] == [(ONE, STEP)]


def test_a_job_that_another_holds_is_skipped(store, run):
    run(lambda claim: pytest.fail("worked without a claim"), ONE)
    assert store.calls == []


def test_a_parked_job_commits_nothing(store, make_claim, run):
    store.claims[ONE] = make_claim(ONE)
    run(lambda claim: None, ONE)
    assert store.calls == []


def test_what_untrusted_code_did_is_told_to_the_contract_at_once(store, make_claim, run):
    store.claims[ONE] = make_claim(ONE, stage=Stage.COMPILE)
    run(raising(BuildError(BuildCode.COMPILE_ERROR, "expected `;`")), ONE, stage=Stage.COMPILE)
    [(_, step, _)] = store.made("commit")
    assert isinstance(step, ToResolve)
    assert json.loads(step.arguments)["response"]["error"] == "compile_error: expected `;`"
    assert json.loads(step.arguments)["data_id"] == list(bytes.fromhex(ONE))
    assert step.build_failure == ("compile_error", "expected `;`")
    assert step.report.success is False


def test_an_engine_crash_is_repeated_once_and_then_told(store, make_claim, run):
    crash = raising(ExecutionError(Status.ENGINE_CRASH, "the engine died"))
    store.claims[ONE] = make_claim(ONE, attempt=0)
    run(crash, ONE)
    assert store.made("put_back") == [(ONE, 0.0, True)]
    store.claims[ONE] = make_claim(ONE, attempt=1)
    run(crash, ONE)
    assert json.loads(store.made("commit")[0][1].arguments)["response"]["error"] == "engine_crash: the engine died"


def test_a_service_that_is_away_is_waited_for_without_counting(store, make_claim, run):
    store.claims[ONE] = make_claim(ONE, attempt=9)
    run(raising(Unavailable("docker", "no answer", retry_after_seconds=5)), ONE)
    assert store.made("put_back") == [(ONE, 5, False)]
    assert store.made("commit") == []


def test_a_token_that_is_refused_is_no_reason_to_fail_a_job(store, make_claim, run):
    store.claims[ONE] = make_claim(ONE, attempt=9)
    run(raising(Unauthorized("the token is not accepted", status=401)), ONE)
    assert store.made("put_back") == [(ONE, 30.0, False)]
    assert store.made("commit") == []


def test_an_error_that_nobody_expected_is_repeated_twice_and_never_shows_its_text(store, make_claim, run):
    store.claims[ONE] = make_claim(ONE, attempt=1)
    run(raising(RuntimeError("secret detail")), ONE)
    assert store.made("put_back") == [(ONE, 0.0, True)]
    store.claims[ONE] = make_claim(ONE, attempt=2)
    run(raising(RuntimeError("secret detail")), ONE)
    text = json.loads(store.made("commit")[0][1].arguments)["response"]["error"]
    assert text == "internal_error: RuntimeError in the execute stage"


def test_a_poisoned_job_fails_without_being_worked_on(store, make_claim, run):
    store.claims[ONE] = make_claim(ONE, deaths=3)
    run(lambda claim: pytest.fail("worked on a poisoned job"), ONE)
    assert json.loads(store.made("commit")[0][1].arguments)["response"]["error"].startswith("poison: ")


def test_a_commit_outlasts_a_redis_that_goes_away(store, make_claim, run, monkeypatch):
    monkeypatch.setattr(stage_module, "COMMIT_PAUSES_SECONDS", (0.0, 0.0, 0.0))
    store.claims[ONE] = make_claim(ONE)
    store.commit_answers = [Unavailable("redis", "gone"), Unavailable("redis", "gone"), True]
    run(lambda claim: STEP, ONE)
    tokens = {token for _, _, token in store.made("commit")}
    assert len(store.made("commit")) == 3
    assert len(tokens) == 1, "a repeat must carry the token of the first try"


def test_giving_a_job_back_outlasts_a_redis_that_goes_away(store, make_claim, run, monkeypatch):
    monkeypatch.setattr(stage_module, "COMMIT_PAUSES_SECONDS", (0.0, 0.0))
    store.claims[ONE] = make_claim(ONE)
    store.put_back_answers = [Unavailable("redis", "gone"), Unavailable("redis", "gone"), True]
    run(raising(Unavailable("coordinator", "gone too", retry_after_seconds=5)), ONE)
    assert store.made("put_back") == [(ONE, 5, False)]


def test_leases_are_renewed_again_after_a_redis_that_was_away(store, make_claim, run, monkeypatch):
    monkeypatch.setattr(lease, "TICK_SECONDS", 0.005)
    monkeypatch.setattr(stage_module, "LEASE_SECONDS", 0.01)
    store.claims[ONE] = make_claim(ONE)
    store.renew_answers = [Unavailable("redis", "gone"), RuntimeError("what nobody thought of")]

    def work(claim):
        until = time.monotonic() + 5
        while len(store.made("renew")) < 4 and time.monotonic() < until:
            time.sleep(0.005)
        return STEP

    run(work, ONE)
    assert len(store.made("renew")) >= 4


def test_jobs_behind_a_slow_one_are_handed_back(store, make_claim, run):
    store.claims = {data_id: make_claim(data_id) for data_id in (ONE, TWO, THREE)}

    def work(claim):
        while claim.data_id == ONE and not store.made("hand_back"):
            time.sleep(0.01)
        return STEP

    run(work, ONE, TWO, THREE)
    assert store.made("hand_back") == [([TWO, THREE], Stage.EXECUTE)]
    assert [data_id for data_id, _, _ in store.made("commit")] == [ONE]


def test_an_unreadable_message_is_dropped_and_harms_nothing(store):
    runner = StageRunner(stage=Stage.EXECUTE, store=store, work=raising(AssertionError()), owner="me", hard_limit_seconds=60)
    runner.run({"v": 1, "data_ids": 5})
    assert store.calls == []


def test_a_message_of_a_later_version_with_more_fields_is_read(store, make_claim):
    store.claims[ONE] = make_claim(ONE)
    runner = StageRunner(stage=Stage.EXECUTE, store=store, work=lambda claim: STEP, owner="me", hard_limit_seconds=60)
    runner.run({"v": 2, "data_ids": [ONE], "colour": "blue"})
    assert len(store.made("commit")) == 1
