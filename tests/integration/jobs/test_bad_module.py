"""A Coordinator's cache that holds what is no module, met by a real record, a real folder of modules and a real engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import wasmtime

from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.executions import Executions
from offchainvm.jobs.record import Stage, ToExecute
from offchainvm.modules import ModuleCache
from offchainvm.tasks.execute import ExecuteWork
from offchainvm.tasks.stage import StageRunner

GOOD = bytes(wasmtime.wat2wasm('(module (func (export "_start") (drop (i32.const 7))))'))
INVALID = GOOD.replace(b"\x41\x07\x1a", b"\x42\x07\x01")
"""It leaves an i64 where nothing may be left: of the right form, and not valid."""


@pytest.fixture
def execute(house, tmp_path):
    coordinator = SimpleNamespace(download=lambda *_, **__: INVALID)
    modules = ModuleCache(tmp_path / "modules", max_bytes=MIB, coordinator=coordinator)
    chain = SimpleNamespace(environment_of=lambda _: {})
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=MIB) as executor:
        work = ExecuteWork(executions=Executions(records=house.store, modules=modules, chain=chain), executor=executor, chain=chain)
        runner = StageRunner(stage=Stage.EXECUTE, store=house.store, work=work, owner="w1", hard_limit_seconds=600)
        yield modules, lambda data_id: runner.run({"data_ids": [data_id]})


@pytest.mark.parametrize("built", [GOOD, INVALID], ids=["good", "invalid"])
def test_a_cached_module_that_is_not_valid_counts_as_absent_and_what_was_built_is_run(house, execute, built):
    modules, run = execute
    key, data_id = house.source_key(), house.accept(source_key=house.source_key())
    run(data_id)
    job = house.store.get(data_id)
    assert (job.stage, job.rebuild, job.response) == (Stage.COMPILE, True, None)
    kept = modules.put(key, built)
    house.store.commit(house.claim(data_id, Stage.COMPILE), ToExecute(key, "1" * 40, kept.sha256, kept.size))
    run(data_id)
    told = house.store.get(data_id).response
    assert told.success if built is GOOD else told.error.startswith("invalid_module: ")
