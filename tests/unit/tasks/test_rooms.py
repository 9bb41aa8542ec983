"""What an execute worker looks at before it takes a job."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offchainvm.errors import SettingsError
from offchainvm.settings import Settings, load_only
from offchainvm.tasks import execute, rooms

Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    def configure(**values: str) -> Settings:
        monkeypatch.setenv("STATE_DIR", str(tmp_path))
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        names = ["state_dir", "wasm_cache_max_mb", "wasm_runtime", "wasmer_python", "wasm_components", "metering", "max_execution_seconds"]
        return load_only(names)

    return configure


def python_that_ends_with(folder: Path, exit_code: int) -> Path:
    program = folder / "python3.10"
    program.write_text(f"#!/bin/sh\necho '[\"1.1.0\", []]'\nexit {exit_code}\n")
    program.chmod(stat.S_IRWXU)
    return program


def test_what_the_engine_can_do_here_is_no_problem(configure: Configure) -> None:
    assert rooms.engine_problems(configure()) == []


def test_the_engines_own_sentence_ends_the_start(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_settings: Settings) -> None:
        raise SettingsError(["METERING: not in this version. Set METERING=native."])

    monkeypatch.setattr(rooms, "executor", refuse)
    with pytest.raises(SettingsError) as caught:
        execute.prepare(None, configure())
    assert caught.value.problems == ["METERING: not in this version. Set METERING=native."]


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_python_for_wasmer_has_to_have_it(configure: Configure, tmp_path: Path, exit_code: int) -> None:
    python = python_that_ends_with(tmp_path, exit_code)
    problems = rooms.engine_problems(configure(WASM_RUNTIME="wasmer", WASMER_PYTHON=str(python)))
    assert [problem.startswith(f"WASMER_PYTHON: {python} is no Python 3.10") for problem in problems] == [True] * exit_code


def test_a_setting_of_the_other_engine_is_told_and_refuses_nothing(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(rooms, "log", SimpleNamespace(warning=lambda _event, **fields: told.append(fields)))
    assert rooms.engine_problems(configure(WASM_RUNTIME="wasmtime", WASMER_PYTHON="/no/such/python")) == []
    assert [fields["reason"].startswith("WASMER_PYTHON: /no/such/python") for fields in told] == [True]


def test_a_state_folder_that_cannot_be_used_is_a_problem_with_its_remedy(configure: Configure) -> None:
    [problem] = rooms.engine_problems(configure(STATE_DIR="/proc/no-such-folder"))
    assert problem.startswith("STATE_DIR: /proc/no-such-folder cannot be used")
