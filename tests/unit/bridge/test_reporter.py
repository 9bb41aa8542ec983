"""Reports are sent until they are taken, each by itself."""

from __future__ import annotations

from typing import Any, cast

from offchainvm.bridge.reporter import Reporter
from offchainvm.errors import Refused, Unavailable
from offchainvm.jobs.reports import DueReport
from offchainvm.models import ExecutionReport


class FakeReports:
    def __init__(self, *due: DueReport) -> None:
        self.waiting, self.finished, self.delayed = list(due), list[str](), dict[str, float]()

    def due(self, limit: int) -> list[DueReport]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def done(self, data_id: str) -> None:
        self.finished.append(data_id)

    def later(self, data_id: str, delay_seconds: float) -> None:
        self.delayed[data_id] = delay_seconds


class FakeCoordinator:
    def __init__(self, **errors: Exception) -> None:
        self.errors, self.completed, self.failed = errors, list[int](), list[tuple[int, str]]()

    def complete(self, report: ExecutionReport) -> None:
        if (error := self.errors.get(f"r{report.request_id}")) is not None:
            raise error
        self.completed.append(report.request_id)

    def fail(self, request_id: int, error: str) -> None:
        self.failed.append((request_id, error))


def _due(number: int, *, failed: bool = False, tries: int = 0) -> DueReport:
    return DueReport(f"job-{number}", ExecutionReport(request_id=number, success=True), failed, "expired: too late", tries)


def _run(reports: FakeReports, coordinator: FakeCoordinator) -> None:
    reporter = Reporter(reports=cast("Any", reports), coordinator=cast("Any", coordinator))
    reporter.turn()
    reporter.close()


def test_answers_are_completed_and_the_others_failed() -> None:
    reports, coordinator = FakeReports(_due(1), _due(2, failed=True)), FakeCoordinator()
    _run(reports, coordinator)
    assert (coordinator.completed, coordinator.failed) == ([1], [(2, "expired: too late")])
    assert sorted(reports.finished) == ["job-1", "job-2"]


def test_one_that_is_refused_for_ever_delays_no_other() -> None:
    reports = FakeReports(*(_due(number) for number in range(1, 6)))
    coordinator = FakeCoordinator(r1=Refused("odd", status=418), r2=Unavailable("coordinator", "HTTP 500"))
    _run(reports, coordinator)
    assert sorted(coordinator.completed) == [3, 4, 5]
    assert set(reports.delayed) == {"job-1", "job-2"}


def test_one_that_cannot_be_written_delays_no_other() -> None:
    reports = FakeReports(*(_due(number) for number in range(1, 10)))
    _run(reports, FakeCoordinator(r1=UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")))
    assert (len(reports.finished), list(reports.delayed)) == (8, ["job-1"])


def test_the_pause_of_a_refused_report_grows_further_than_that_of_an_outage() -> None:
    reports = FakeReports(_due(1, tries=20), _due(2, tries=20))
    _run(reports, FakeCoordinator(r1=Refused("odd", status=418), r2=Unavailable("coordinator", "away")))
    assert reports.delayed["job-1"] >= 300
    assert reports.delayed["job-2"] <= 15
