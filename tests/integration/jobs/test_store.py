"""Claims, fences and commits: dies before, dies after, called twice, frozen and woken."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from offchainvm.errors import Unavailable
from offchainvm.jobs.record import ModuleRecord, Stage, State, ToCompile, Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.jobs.store import Acceptance, JobStore, RetryAnswer
from offchainvm.models import ExecuteTask, ResourceLimits


def test_a_job_is_accepted_once_and_published_once(house: Any) -> None:
    data_id = house.accept()
    assert house.accept_again() is Acceptance.KNOWN
    assert house.sent() == [("execute", (data_id,))]
    job = house.store.get(data_id)
    assert (job.state, job.stage, job.deadline_height, job.request_id) == (State.QUEUED, Stage.EXECUTE, 1000, 1)
    assert job.source.repo == "https://github.com/a/b"


def test_a_lost_reply_to_accept_is_answered_alike(house: Any) -> None:
    task = ExecuteTask(request_id=1, data_id=house.data_id(1), wasm_checksum="a" * 64)
    answers = {house.store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), token="t") for _ in range(2)}
    assert answers == {Acceptance.NEW}


def test_only_one_of_many_claims_wins(house: Any) -> None:
    data_id = house.accept()
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: house.store.claim(data_id, Stage.EXECUTE, owner=f"w{n}", lease_seconds=60), range(32)))
    assert len([claim for claim in claims if claim]) == 1


def test_a_live_lease_is_skipped_and_so_is_another_stage(house: Any) -> None:
    data_id = house.accept()
    assert house.store.claim(data_id, Stage.COMPILE, owner="w", lease_seconds=60) is None
    house.claim(data_id)
    assert house.store.claim(data_id, Stage.EXECUTE, owner="w2", lease_seconds=60) is None


def test_a_lost_reply_to_claim_gives_the_same_claim(house: Any) -> None:
    data_id = house.accept()
    first, second = (house.store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=60, token="t") for _ in range(2))
    assert first == second
    assert first.fence == 1


def test_a_claim_repeated_after_it_was_lost_is_none(house: Any) -> None:
    data_id = house.accept()
    house.store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=0, token="t")
    house.reconcile()
    house.claim(data_id, owner="w2")
    assert house.store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=0, token="t") is None


def test_an_expired_claim_is_fenced_out_once_another_has_it(house: Any) -> None:
    data_id = house.accept()
    frozen = house.claim(data_id, lease=0)
    assert house.reconcile().deaths == 1
    woken = house.claim(data_id, owner="w2")
    assert woken.fence > frozen.fence
    assert not house.store.renew(frozen, lease_seconds=60)
    assert not house.store.commit(frozen, house.answer(data_id, "stale"))
    assert not house.store.put_back(frozen, delay_seconds=0, note="", counted=True)
    assert house.store.commit(woken, house.answer(data_id, "right"))
    assert house.store.get(data_id).response.return_value == b"right"


def test_a_claim_judged_dead_is_fenced_out_before_anybody_claims_again(house: Any) -> None:
    data_id = house.accept()
    frozen = house.claim(data_id, lease=0)
    house.reconcile()
    assert not house.store.commit(frozen, house.answer(data_id))
    assert house.store.get(data_id).state is State.QUEUED


def test_a_late_renewal_saves_a_living_worker_after_an_outage(house: Any) -> None:
    claim = house.claim(house.accept(), lease=0)
    assert house.store.renew(claim, lease_seconds=60)
    assert house.reconcile().deaths == 0
    assert house.store.commit(claim, house.answer(claim.data_id))


def test_a_commit_repeated_with_its_token_is_true_and_done_once(house: Any) -> None:
    claim = house.claim(house.accept())
    house.messages()
    assert [house.store.commit(claim, house.answer(claim.data_id), token="t") for _ in range(2)] == [True, True]
    assert house.sent() == [("resolve", ())]


def test_a_commit_whose_reply_was_lost_is_true_even_when_the_next_stage_has_the_job(house: Any) -> None:
    claim = house.building()
    assert house.store.commit(claim, house.built(), token="t")
    house.claim(claim.data_id)
    assert house.store.commit(claim, house.built(), token="t")


def test_calls_repeated_ten_minutes_later_when_their_tokens_are_forgotten_change_nothing(house: Any) -> None:
    claim = house.claim(house.accept())
    house.store.commit(claim, house.answer(claim.data_id), token="t")
    rows = house.take()
    house.resolves.store(house.transaction(rows), rows, token="s")
    house.redis.delete("ovm:call:t", "ovm:call:s")
    before = house.redis.hgetall(f"ovm:job:{claim.data_id}")
    assert not house.store.commit(claim, house.answer(claim.data_id, "two"), token="t")
    assert not house.resolves.store(house.transaction(rows, hash="h2"), rows, token="s")
    assert house.redis.hgetall(f"ovm:job:{claim.data_id}") == before


def test_a_second_commit_of_one_claim_is_refused(house: Any) -> None:
    claim = house.claim(house.accept())
    assert house.store.commit(claim, house.answer(claim.data_id, "one"))
    assert not house.store.commit(claim, house.answer(claim.data_id, "two"))
    assert house.take()[0].arguments == house.answer(claim.data_id, "one").arguments


def test_state_and_next_message_appear_together(house: Any) -> None:
    claim = house.building()
    house.messages()
    assert house.store.commit(claim, house.built())
    job = house.store.get(claim.data_id)
    assert (job.state, job.stage, job.module_sha256, job.attempt) == (State.QUEUED, Stage.EXECUTE, "5a" * 32, 0)
    assert house.sent() == [("execute", (claim.data_id,))]


def test_what_is_put_back_comes_when_it_is_due_and_not_before(house: Any) -> None:
    claim = house.claim(house.accept())
    house.messages()
    assert house.store.put_back(claim, delay_seconds=3600, note="docker away", counted=True)
    assert house.store.get(claim.data_id).attempt == 1
    assert house.reconcile().due == 0
    assert house.store.claim(claim.data_id, Stage.EXECUTE, owner="w", lease_seconds=9) is None
    assert house.store.queued_count() == 1
    house.redis.zadd("ovm:delayed:execute", {claim.data_id: 1})
    assert house.reconcile().due == 1
    assert house.sent() == [("execute", (claim.data_id,))]


def test_put_back_without_delay_is_published_at_once_and_uncounted_keeps_the_attempt(house: Any) -> None:
    claim = house.claim(house.accept())
    house.messages()
    assert house.store.put_back(claim, delay_seconds=0, note="", counted=False)
    assert house.sent() == [("execute", (claim.data_id,))]
    assert house.claim(claim.data_id).job.attempt == 0


def test_a_service_that_stays_away_is_asked_less_and_less_often(house: Any) -> None:
    data_id, pauses = house.accept(), []
    for _ in range(7):
        assert house.store.put_back(house.claim(data_id), delay_seconds=1, note="docker away", counted=False)
        now_ms = int(house.redis.time()[0]) * 1000
        pauses.append(round((house.redis.zscore("ovm:delayed:execute", data_id) - now_ms) / 1000))
        house.redis.hset(f"ovm:job:{data_id}", "ready", 0)
    assert [abs(pause - wanted) <= 1 for pause, wanted in zip(pauses, [1, 2, 4, 8, 16, 30, 30], strict=True)] == [True] * 7


def test_hand_back_publishes_only_what_still_waits(house: Any) -> None:
    first, second = house.accept(1), house.accept(2)
    house.claim(first)
    house.messages()
    assert house.store.hand_back([first, second], Stage.EXECUTE) == 1
    assert house.sent() == [("execute", (second,))]


def test_a_bad_module_is_rebuilt_but_a_newer_one_is_kept(house: Any) -> None:
    key = house.source_key()
    house.module(sha256="bad", size=8)
    early, late = house.accept(1, source_key=key), house.accept(2, source_key=key)
    assert house.claim(early).job.module_sha256 == "bad"
    claims = [house.store.get(early), house.claim(late)]
    house.store.put_back(claims[1], delay_seconds=0, note="", counted=False)
    house.redis.hset(f"ovm:job:{early}", "state", "queued")
    assert house.store.commit(house.claim(early), ToCompile("8 bytes are no module", bad_sha256="bad"))
    assert house.store.module(key) is None
    assert house.store.get(early).rebuild
    house.module(sha256="good", size=80)
    assert house.store.commit(house.claim(late), ToCompile("8 bytes are no module", bad_sha256="bad"))
    assert house.store.module(key) == ModuleRecord("good", 80)


def test_a_record_of_a_newer_version_is_left_to_a_newer_worker(house: Any) -> None:
    data_id = house.accept()
    house.redis.hset(f"ovm:job:{data_id}", "needs", "2")
    assert house.store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=9) is None
    assert house.store.list_jobs() == []


def test_retry_begins_anew_until_a_transaction_carried_the_payload(house: Any) -> None:
    data_id = house.waiting(1, text="one")
    assert house.store.retry(data_id) is RetryAnswer.QUEUED
    job = house.store.get(data_id)
    assert (job.state, job.stage, job.response) == (State.QUEUED, Stage.COMPILE, None)
    assert house.resolves.waiting_count() == 0
    claim = house.claim(data_id, Stage.COMPILE)
    assert house.store.retry(data_id) is RetryAnswer.BUSY
    assert house.store.commit(claim, house.answer(data_id, "two"))
    rows = house.take()
    assert rows[0].arguments == house.answer(data_id, "two").arguments
    assert house.store.retry(data_id) is RetryAnswer.BUSY
    assert house.resolves.store(house.transaction(rows), rows)
    assert house.store.retry(data_id) is RetryAnswer.CARRIED
    house.resolves.settle("h1", [RowOutcome(Verdict.REFUSED, "gas")])
    assert house.store.retry(data_id) is RetryAnswer.CARRIED
    assert house.store.retry(house.data_id(9)) is RetryAnswer.UNKNOWN


def test_retry_of_an_expired_job_takes_its_report_and_retention_back(house: Any) -> None:
    data_id = house.waiting(1, deadline=5)
    assert house.take(height=5) == []
    assert house.redis.ttl(f"ovm:job:{data_id}") > 0
    assert house.store.retry(data_id) is RetryAnswer.QUEUED
    assert house.redis.ttl(f"ovm:job:{data_id}") == -1
    assert house.reports.count() == 0
    assert house.store.get(data_id).verdict is None


def test_the_chain_tells_input_and_deadline_before_or_after_the_task(house: Any) -> None:
    house.store.record_input(house.data_id(1), "hé\ud800", 500)
    assert house.store.recorded_input(house.data_id(1)) == ("hé\ud800", 500)
    assert house.store.recorded_input(house.data_id(2)) is None
    before, after = house.accept(1, deadline=1), house.accept(2, deadline=1)
    house.store.record_input(after, "", 600)
    assert [house.store.get(one).deadline_height for one in (before, after)] == [700, 800]
    assert [house.store.get(one).event_height for one in (before, after)] == [500, 600]


def test_a_task_that_cannot_be_read_is_kept_and_reported_where_it_has_an_id(house: Any) -> None:
    house.store.reject(b"\xff{", "not JSON", None)
    house.store.reject(b'{"request_id":7}', "no data_id", 7)
    newest, oldest = house.store.rejected()
    assert (newest.request_id, newest.reason, oldest.untrusted_task) == (7, "no data_id", b"\xff{")
    (report,) = house.reports.due(10)
    assert (report.failed, report.report.request_id, report.error) == (True, 7, "invalid_request: no data_id")


def test_history_lists_and_counts_tell_where_each_job_stands(house: Any) -> None:
    queued, running = house.accept(1), house.accept(2)
    house.claim(running, owner="w7")
    house.signed(3)
    house.waiting(4)
    assert [(event.what, event.detail) for event in house.store.history(running)] == [("accepted", ""), ("claimed", "w7")]
    assert [job.data_id for job in house.store.list_jobs(State.QUEUED)] == [queued]
    assert {job.data_id for job in house.store.list_jobs(State.RESOLVING)} == {house.data_id(3), house.data_id(4)}
    assert len(house.store.list_jobs()) == 4
    assert house.store.by_request_id(2).data_id == running
    assert house.store.by_request_id(99) is None
    counts = house.store.counts()
    assert (counts["execute"], counts["running"], counts["waiting"], counts["in_flight"], counts["outbox"]) == (1, 1, 1, 1, 6)


def test_an_absent_redis_is_unavailable_and_not_a_surprise() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    store = JobStore(Redis(port=port, retry=None, socket_connect_timeout=1))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="Redis"):
        store.claim("00", Stage.EXECUTE, owner="w", lease_seconds=1)


def test_a_redis_that_cannot_write_its_disk_is_unavailable_for_now(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ResponseError("MISCONF Redis is configured to save, but cannot")

    monkeypatch.setattr("redis.commands.core.Script.__call__", refuse)
    with pytest.raises(Unavailable, match="MISCONF"):
        house.resolves.ring()


def test_scripts_are_loaded_again_when_the_server_forgot_them(house: Any) -> None:
    house.accept(1)
    house.redis.script_flush()
    assert house.accept_again(1) is Acceptance.KNOWN
    assert len(house.store.server_run_id()) == 40
