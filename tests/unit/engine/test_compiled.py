"""What a compilation gave is found again, also when it gave nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from offchainvm.engine.cache import NativeCache
from offchainvm.engine.compiled import Compiled
from offchainvm.engine.limits import MIB
from offchainvm.engine.module import ModuleInfo
from offchainvm.errors import ExecutionError, Status

KEY, MODULE = "ab" * 32, ModuleInfo(("_start",), ("fd_write",))


@pytest.fixture
def compiled(tmp_path: Path) -> Iterator[Compiled]:
    made = Compiled(NativeCache(tmp_path, max_bytes=MIB))
    yield made
    made.close()


def failed(compiled: Compiled) -> tuple[Status, str] | None:
    try:
        assert compiled.get(KEY) is None
    except ExecutionError as error:
        return error.status, error.sentence
    return None


def test_native_code_is_found_with_what_is_known_of_its_module(compiled: Compiled, tmp_path: Path) -> None:
    compiled.put(KEY, MODULE, b"native")
    for place in (compiled, other := Compiled(NativeCache(tmp_path, max_bytes=MIB))):
        artifact = place.get(KEY)
        assert artifact is not None
        assert (artifact.module, artifact.size) == (MODULE, 6)
    other.close()


@pytest.mark.parametrize("status", [Status.INVALID_MODULE, Status.UNSUPPORTED_FEATURE, Status.MODULE_TOO_COMPLEX, Status.LINK_ERROR])
def test_what_the_module_alone_decides_is_remembered_for_good(compiled: Compiled, monkeypatch: pytest.MonkeyPatch, status: Status) -> None:
    compiled.put_failure(KEY, ExecutionError(status, "It is wrong."))
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert failed(compiled) == (status, "It is wrong.")


@pytest.mark.parametrize("status", [Status.COMPILE_TIMEOUT, Status.COMPILE_RESOURCE_LIMIT])
def test_what_the_host_decides_too_is_tried_again_after_some_minutes(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    compiled.put_failure(KEY, ExecutionError(status, "It was too much."))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 200)
    assert failed(compiled) == (status, "It was too much.")
    monkeypatch.setattr(time, "time", lambda: now + 400)
    assert failed(compiled) is None


@pytest.mark.parametrize("status", [Status.ENGINE_CRASH, Status.CANCELLED, Status.INTERNAL_ERROR])
def test_what_was_not_the_modules_doing_is_not_remembered(compiled: Compiled, status: Status) -> None:
    compiled.put_failure(KEY, ExecutionError(status, "It happened."))
    assert failed(compiled) is None


def test_native_code_takes_the_place_of_a_failure(compiled: Compiled) -> None:
    compiled.put_failure(KEY, ExecutionError(Status.COMPILE_TIMEOUT, "It was too much."))
    compiled.put(KEY, MODULE, b"native")
    assert compiled.get(KEY) is not None
