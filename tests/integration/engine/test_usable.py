"""Which engines can be used here: what doctor finds out by running a module in each, and wasmer in the worker's own interpreter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime

from offchainvm.cli.checks.engines import check_engines
from offchainvm.engine import identity, process
from offchainvm.engine.base import ExecutionRequest, Limits
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import OffchainVMError
from offchainvm.settings import load_only
from offchainvm.tasks import rooms
from tests.integration.engine.conftest import GOOD

NOWHERE = "/no/such/python"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFCHAINVM_ENV_FILE", "")
    for name in ("WASM_RUNTIME", "WASMER_PYTHON", "METERING", "WASM_COMPONENTS"):
        monkeypatch.delenv(name, raising=False)


def test_an_engine_that_is_not_used_is_told_with_the_reason_and_is_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASMER_PYTHON", NOWHERE)
    used, other = check_engines().splitlines()
    assert used.startswith("wasmtime ")
    assert "runs modules, components too, counts injected-" in used
    assert used.endswith(" (in use)")
    assert other.startswith(f"wasmer cannot be used: WASMER_PYTHON: {NOWHERE} is no Python 3.10")


def test_the_engine_in_use_is_wrong_where_it_is_missing_or_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASMER_PYTHON", NOWHERE)
    monkeypatch.setenv("WASM_RUNTIME", "wasmer")
    with pytest.raises(
        OffchainVMError, match=rf"(?s)^wasmer cannot be used: WASMER_PYTHON: {NOWHERE} .*\nwasmtime .* runs modules"
    ) as missing:
        check_engines()
    assert "WASMER_PYTHON" in missing.value.remedy
    monkeypatch.delenv("WASM_RUNTIME")
    monkeypatch.setattr(process, "_MAIN", "raise SystemExit")
    with pytest.raises(
        OffchainVMError, match=r"^wasmtime cannot be used: it ran no module here: The engine's process was lost: it ended\."
    ):
        check_engines()


def test_wasmer_is_told_as_it_runs_and_components_as_they_are_allowed(monkeypatch: pytest.MonkeyPatch, wasmer_python: Path) -> None:
    for name, value in {"WASM_RUNTIME": "wasmer", "WASMER_PYTHON": str(wasmer_python), "WASM_COMPONENTS": "false"}.items():
        monkeypatch.setenv(name, value)
    other, used = check_engines().splitlines()
    assert "runs modules, no components, counts injected-" in other
    assert used.startswith("wasmer 1.1.0 runs modules, no components, counts injected-")
    assert used.endswith(" (in use)")


@pytest.fixture
def own_python(monkeypatch: pytest.MonkeyPatch, wasmer_python: Path) -> Iterator[None]:
    """As in a worker whose own interpreter is a Python 3.10 with wasmer."""
    identity._wasmer_of.cache_clear()
    monkeypatch.setattr(sys, "executable", str(wasmer_python))
    yield
    identity._wasmer_of.cache_clear()


@pytest.mark.usefixtures("own_python")
def test_wasmer_in_the_own_interpreter_needs_no_setting(tmp_path: Path) -> None:
    module = tmp_path / "module.wasm"
    module.write_bytes(bytes(wasmtime.wat2wasm(GOOD)))
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=MIB, engine="wasmer") as supervisor:
        result = supervisor.execute(module, ExecutionRequest(b"", Limits(instructions=1000, memory_bytes=MIB, wall_seconds=5)))
    assert (result.stdout, result.engine) == (b"ok", "wasmer")


def test_a_worker_whose_engine_runs_nothing_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_only(["wasm_runtime", "metering", "wasm_cache_max_mb", "wasm_components"])
    assert rooms.check_engine(settings).startswith("wasmtime ")
    monkeypatch.setattr(process, "_MAIN", "raise SystemExit")
    with pytest.raises(OffchainVMError, match="The engine runs nothing here: engine_crash") as told:
        rooms.check_engine(settings)
    assert "offchainvm doctor" in told.value.remedy
