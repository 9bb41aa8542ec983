"""At which stage a task begins, with which limits and which deadline."""

from __future__ import annotations

from typing import Any, cast

import pytest

from offchainvm.bridge.admission import Admission, LimitPolicy
from offchainvm.bridge.lists import Lists, Patterns
from offchainvm.compiler.source import source_key
from offchainvm.errors import BuildCode, BuildError, OffchainVMError, Refused, Unavailable
from offchainvm.jobs.record import ModuleRecord, Stage
from offchainvm.models import CodeSource, CompileTask, ExecuteTask, ResourceLimits

DATA_ID, SHA = "ab" * 32, "c" * 40
REPO = "https://github.com/near/guest"
KEY = source_key(REPO, SHA, "wasm32-wasip1")


class FakeResolver:
    def __init__(self) -> None:
        self.answer: str | OffchainVMError = SHA
        self.asked = 0

    def resolve(self, source: Any) -> str:
        self.asked += 1
        if isinstance(self.answer, OffchainVMError):
            raise self.answer
        return self.answer


class FakeCoordinator:
    def __init__(self) -> None:
        self.answer: bool | OffchainVMError = False
        self.asked: list[str] = []

    def wasm_exists(self, checksum: str) -> bool:
        self.asked.append(checksum)
        if isinstance(self.answer, OffchainVMError):
            raise self.answer
        return self.answer


class Gate:
    def __init__(self, store: Any, lists: Lists | None = None) -> None:
        self.store, self.resolver, self.coordinator = store, FakeResolver(), FakeCoordinator()
        self.head: int | None = 1000
        self.admission = Admission(
            store=store,
            coordinator=cast("Any", self.coordinator),
            resolver=cast("Any", self.resolver),
            limits=LimitPolicy(
                defaults=ResourceLimits(max_instructions=100, max_memory_mb=64, max_execution_seconds=10),
                most=ResourceLimits(max_instructions=1000, max_memory_mb=128, max_execution_seconds=20),
            ),
            mirror_url="",
            lists=lists,
            head=lambda: self.head,
        )

    def admit(self, task: CompileTask | ExecuteTask | None = None) -> dict[str, Any]:
        self.admission.admit(task or _task())
        return dict(self.store.accepted[-1][1])


def _task(commit: str = "main", repo: str = REPO, **limits: int) -> CompileTask:
    return CompileTask(
        request_id=1, data_id=DATA_ID, code_source=CodeSource(repo=repo, commit=commit), resource_limits=ResourceLimits(**limits)
    )


@pytest.fixture
def gate(store: Any) -> Gate:
    return Gate(store)


def test_an_unknown_source_is_compiled_at_the_resolved_commit(gate: Gate) -> None:
    place = gate.admit()
    assert (place["stage"], place["source_key"], place["commit_sha"]) == (Stage.COMPILE, KEY, SHA)


def test_a_module_that_we_know_is_executed_without_asking_the_coordinator(gate: Gate) -> None:
    gate.store.modules[KEY] = ModuleRecord("d" * 64, 10)
    assert gate.admit()["stage"] is Stage.EXECUTE
    assert gate.coordinator.asked == []


def test_a_module_of_the_coordinator_is_executed_and_asked_for_once(gate: Gate) -> None:
    gate.coordinator.answer = True
    assert [gate.admit()["stage"] for _ in range(3)] == [Stage.EXECUTE] * 3
    assert gate.coordinator.asked == [KEY]


@pytest.mark.parametrize("error", [Unavailable("coordinator", "away"), Refused("odd", status=418)])
def test_a_coordinator_that_cannot_say_means_compile(gate: Gate, error: OffchainVMError) -> None:
    gate.coordinator.answer = error
    assert gate.admit()["stage"] is Stage.COMPILE


@pytest.mark.parametrize(("repo", "commit"), [("https://gitlab.com/a/b", "main"), ("near/guest", "../x")])
def test_a_bad_source_is_left_to_the_compile_stage(gate: Gate, repo: str, commit: str) -> None:
    place = gate.admit(_task(repo=repo, commit=commit))
    assert (place["stage"], place["source_key"], place["commit_sha"]) == (Stage.COMPILE, None, None)
    assert gate.resolver.asked == 0


def test_a_network_that_is_away_is_not_waited_for_again_and_again(gate: Gate) -> None:
    gate.resolver.answer = BuildError(BuildCode.FETCH_NETWORK, "github is away")
    for _ in range(5):
        assert gate.admit()["commit_sha"] is None
    assert gate.resolver.asked == 1
    gate.resolver.answer = SHA
    assert gate.admit(_task(commit=SHA))["commit_sha"] == SHA


def test_a_missing_branch_is_asked_for_every_time(gate: Gate) -> None:
    gate.resolver.answer = BuildError(BuildCode.COMMIT_NOT_FOUND, "no such branch")
    gate.admit()
    gate.admit()
    assert gate.resolver.asked == 2


def test_an_execute_task_keeps_its_source_key(gate: Gate) -> None:
    place = gate.admit(ExecuteTask(request_id=1, data_id=DATA_ID, wasm_checksum="e" * 64))
    assert (place["stage"], place["source_key"]) == (Stage.EXECUTE, "e" * 64)


@pytest.mark.parametrize(
    ("allow", "deny", "refused"),
    [
        ((), (), False),
        (("Owner/*",), (), False),
        (("other/*", "owner/nam?"), (), False),
        (("other/*",), (), True),
        ((), ("OWNER/*",), True),
        ((), ("other/*",), False),
        (("owner/name",), ("*/name",), True),
    ],
)
def test_code_of_a_repository_that_is_not_allowed_gets_an_answer_and_no_work(store: Any, allow: Any, deny: Any, refused: bool) -> None:
    gate = Gate(store, Lists(Patterns(allow, deny)))
    place = gate.admit(_task(repo="https://github.com/owner/name"))
    assert (place["refusal"] is not None) is refused
    if refused:
        assert place["refusal"].response.error.startswith("not_allowed: ")
        assert (gate.resolver.asked, gate.coordinator.asked) == (0, []), "nobody is asked about it"


def test_missing_limits_are_filled_and_large_ones_clamped(gate: Gate) -> None:
    place = gate.admit(_task(max_instructions=5000, max_memory_mb=32))
    assert place["limits"] == ResourceLimits(max_instructions=1000, max_memory_mb=32, max_execution_seconds=10)
    assert place["limits_clamped"] == ("max_instructions",)


def test_the_deadline_counts_from_the_head_and_is_unknown_without_one(gate: Gate) -> None:
    assert gate.admit()["deadline_height"] == 1200
    gate.head = None
    assert gate.admit()["deadline_height"] is None


def test_only_redis_stops_an_admission(gate: Gate) -> None:
    gate.store.away = True
    with pytest.raises(Unavailable):
        gate.admission.admit(_task())
