"""What is counted: within closed sets, in the process that has the port."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from offchainvm import metrics
from offchainvm.errors import OffchainVMError
from offchainvm.jobs.record import Stage, Verdict
from offchainvm.metrics import pool, series
from offchainvm.settings import Role


@pytest.fixture
def fresh_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pool, "_ways", pool._Ways())
    yield
    if pool._ways.sending is not None:
        pool._ways.sending.setblocking(True)
        pool._ways.sending.send(b"")  # ends the thread that takes
        pool._ways.sending.close()


def shown() -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample, by its name and its label values."""
    families = text_string_to_metric_families(metrics.exposition()[0].decode())
    return {(sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_what_is_no_known_label_value_is_told_as_other() -> None:
    before = shown().get(("offchainvm_executions_total", ("other",)), 0)
    metrics.EXECUTIONS.add(status="https://github.com/a/secret")
    text = metrics.exposition()[0].decode()
    assert "secret" not in text
    assert shown()["offchainvm_executions_total", ("other",)] == before + 1


def test_a_label_that_is_missing_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        metrics.EXECUTIONS.add()


def test_the_table_knows_every_stage_verdict_and_role() -> None:
    assert {stage.value for stage in Stage} == set(metrics.STAGES)
    assert {verdict.value for verdict in Verdict} == set(metrics.VERDICTS)
    assert {role.value for role in Role} - {"dashboard"} == set(metrics.ROLES)


def test_names_and_units_follow_the_conventions_of_prometheus() -> None:
    for one in metrics.ALL.values():
        assert one.name.endswith("_total") == (one.kind == "counter"), one.name
        assert not one.name.endswith(("_ms", "_mb", "_minutes")), one.name
        assert one.help.endswith("."), one.name


def test_a_source_that_cannot_be_read_leaves_out_only_its_own() -> None:
    def away() -> dict[metrics.Reading, metrics.Values]:
        raise OffchainVMError("Redis is away.")

    metrics.add_source("test: away", away)
    metrics.add_source("test: well", lambda: {metrics.REPORTS_WAITING: {(): 3.0}})
    try:
        assert shown()["offchainvm_reports_waiting", ()] == 3.0
    finally:
        for name in ("test: away", "test: well"):
            series._sources.by_name.pop(name)


def test_what_a_pool_process_counts_is_shown_by_the_main_process_though_it_is_killed(fresh_pool: None) -> None:
    before = shown().get(("offchainvm_builds_total", ("made",)), 0)
    pool.receive(metrics.apply)
    child = os.fork()
    if child == 0:
        metrics.BUILDS.add(outcome="made")
        metrics.BUILDS.add(outcome="made")
        metrics.STAGE_SECONDS.observe(2.0, stage="compile")
        pool.flush()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 30
    while shown().get(("offchainvm_builds_total", ("made",)), 0) != before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_full_socket_holds_up_no_job_and_loses_nothing(fresh_pool: None) -> None:
    taken: list[str] = []
    pool.receive(lambda name, _amount, _values: taken.append(name) or time.sleep(0.0001))
    pool._ways.receiver_pid = 0  # as in a pool process
    for number in range(5000):
        assert pool.hand_over(str(number), 1, ())
    deadline = time.monotonic() + 30
    while len(taken) < 5000:
        pool.flush()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert taken == [str(number) for number in range(5000)]
