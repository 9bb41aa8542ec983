"""A worker that lost its job, with a real guest in the middle of a loop, a real record, and a reconciler that judged it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import wasmtime
from guests import guest_is_busy

from offchainvm.answers import failure
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import JobCode, JobError
from offchainvm.executions import Executions
from offchainvm.jobs.record import Stage
from offchainvm.jobs.store import CancelAnswer
from offchainvm.tasks import lease, stage
from offchainvm.tasks.execute import ExecuteWork
from offchainvm.tasks.stage import StageRunner

ENDLESS = '(module (func (export "_start") (loop (br 0))))'


def wait_for(true) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lease_is_judged(house, data_id: str) -> bool:
    """Its lease runs out, and the reconciler looks before the next renewal."""
    house.redis.zadd("ovm:running", {data_id: 1}, xx=True)
    return house.reconcile().deaths == 1


def is_cancelled(house, data_id: str) -> bool:
    """Its operator ended it."""
    answer = failure(house.store.get(data_id), JobError(JobCode.CANCELLED, "by hand"))
    return house.store.cancel(data_id, answer) is CancelAnswer.CANCELLED


@pytest.mark.parametrize("lose", [lease_is_judged, is_cancelled])
def test_its_guest_is_ended_at_once_and_the_record_stays_as_it_became(house, tmp_path, monkeypatch, lose):
    monkeypatch.setattr(stage, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "TICK_SECONDS", 0.02)
    module = tmp_path / "module.wasm"
    module.write_bytes(bytes(wasmtime.wat2wasm(ENDLESS)))
    modules = SimpleNamespace(fetch=lambda *_: SimpleNamespace(path=module))
    chain = SimpleNamespace(environment_of=lambda _: {})
    data_id = house.accept(source_key=house.source_key())
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=MIB) as executor:
        work = ExecuteWork(executions=Executions(records=house.store, modules=modules, chain=chain), executor=executor, chain=chain)
        runner = StageRunner(stage=Stage.EXECUTE, store=house.store, work=work, owner="w1", hard_limit_seconds=600)
        running = threading.Thread(target=runner.run, args=({"data_ids": [data_id]},))
        running.start()
        wait_for(lambda: guest_is_busy(executor))
        wait_for(lambda: lose(house, data_id))
        theirs = house.claim(data_id, owner="w2") if lose is lease_is_judged else None
        running.join(20)
        assert not running.is_alive()
    job = house.store.get(data_id)
    if theirs is None:
        assert (job.deaths, job.response.error) == (0, "cancelled: by hand")
    else:
        assert house.store.commit(theirs, house.answer(data_id))
        assert (job.deaths, job.attempt) == (1, 0)
