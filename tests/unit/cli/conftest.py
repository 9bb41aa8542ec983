"""What tests of the commands share: jobs that no Redis holds, and a run of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from offchainvm import cli, logs
from offchainvm.jobs.record import Event, Job, Stage, State, Verdict
from offchainvm.models import CodeSource, ExecutionResponse, ResourceLimits, ResourcesUsed

DATA_ID = "ab" * 32


@pytest.fixture
def make_job() -> Callable[..., Job]:
    def make(**changes: Any) -> Job:
        values: dict[str, Any] = {
            "data_id": DATA_ID,
            "request_id": 7,
            "stage": Stage.RESOLVE,
            "state": State.SETTLED,
            "source": CodeSource(repo="https://github.com/examples/word-count", commit="main"),
            "commit_sha": "c" * 40,
            "source_key": "d" * 64,
            "module_sha256": "e" * 64,
            "limits": ResourceLimits(max_instructions=1000, max_memory_mb=16, max_execution_seconds=2),
            "limits_clamped": ("max_memory_mb",),
            "input_data": "secret of the requester",
            "attempt": 0,
            "deaths": 0,
            "fence": 3,
            "owner": "",
            "rebuild": False,
            "deadline_height": 1200,
            "event_height": 1000,
            "response": ExecutionResponse(
                success=True, return_value=b"42", resources_used=ResourcesUsed(instructions=9, memory_bytes=65536)
            ),
            "verdict": Verdict.ACCEPTED,
            "transaction_hash": "Hash",
            "error": None,
            "accepted_at": 1_700_000_000.0,
            "updated_at": 1_700_000_009.0,
        }
        return Job(**{**values, **changes})

    return make


@pytest.fixture
def history() -> list[Event]:
    return [
        Event(1_700_000_000.0, "compile", "accepted", ""),
        Event(1_700_000_001.0, "compile", "building", "d" * 64),
        Event(1_700_000_008.0, "execute", "done", ""),
        Event(1_700_000_009.0, "resolve", "accepted", "Hash"),
    ]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs ``offchainvm WORDS`` in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("OFFCHAINVM_ENV_FILE", "")
    monkeypatch.setattr(logs, "configure", lambda **_: None)  # the logging of the test run stays as it is

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call
