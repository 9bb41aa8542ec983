"""What a compilation gave is found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offchainvm.engine.cache import NativeCache
from offchainvm.engine.compiled import Compiled
from offchainvm.engine.limits import MIB
from offchainvm.engine.module import ModuleInfo

KEY, MODULE = "ab" * 32, ModuleInfo(("_start",), ("fd_write",))


@pytest.fixture
def compiled(tmp_path: Path) -> Iterator[Compiled]:
    made = Compiled(NativeCache(tmp_path, max_bytes=MIB))
    yield made
    made.close()


def test_native_code_is_found_with_what_is_known_of_its_module(compiled: Compiled, tmp_path: Path) -> None:
    compiled.put(KEY, MODULE, b"native")
    for place in (compiled, other := Compiled(NativeCache(tmp_path, max_bytes=MIB))):
        artifact = place.get(KEY)
        assert artifact is not None
        assert (artifact.module, artifact.size) == (MODULE, 6)
    other.close()
