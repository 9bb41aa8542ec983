"""The disk cache of modules: what may come in, what is checked on the way out, what goes first."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import cast

import pytest
import wasmtime

from offchainvm.coordinator import Coordinator
from offchainvm.errors import JobError, TooLarge
from offchainvm.modules import ModuleCache

KEY, OTHER = "a" * 64, "b" * 64


def _module(note: str = "") -> bytes:
    return bytes(wasmtime.wat2wasm(f'(module (memory (export "memory") 1) (func (export "_start")) (data (i32.const 0) "{note}"))'))


class Shelf:
    """A Coordinator that has what the test put there."""

    def __init__(self) -> None:
        self.modules: dict[str, bytes] = {}
        self.downloads = 0

    def download(self, checksum: str, *, max_bytes: int) -> bytes | None:
        self.downloads += 1
        wasm = self.modules.get(checksum)
        if wasm is not None and len(wasm) > max_bytes:
            raise TooLarge("more bytes than we take", status=200)
        return wasm


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def cache(tmp_path: Path, shelf: Shelf) -> ModuleCache:
    return ModuleCache(tmp_path, max_bytes=1_000_000, coordinator=cast("Coordinator", shelf))


def test_a_module_is_downloaded_once(cache: ModuleCache, shelf: Shelf) -> None:
    shelf.modules[KEY] = _module()
    first, second = cache.fetch(KEY, None), cache.fetch(KEY, hashlib.sha256(_module()).hexdigest())
    assert first == second
    assert first.path.read_bytes() == _module()
    assert (first.sha256, first.size) == (hashlib.sha256(_module()).hexdigest(), len(_module()))
    assert shelf.downloads == 1


def test_changed_bytes_on_disk_are_never_handed_out(cache: ModuleCache, shelf: Shelf) -> None:
    shelf.modules[KEY] = _module()
    path = cache.fetch(KEY).path
    path.write_bytes(_module("changed"))
    assert cache.fetch(KEY).path.read_bytes() == _module()
    assert shelf.downloads == 2


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, "has none"),
        (b"\0asm\1\0\0\0", "no usable module"),
        (b"<html>", "no usable module"),
        (b"x" * 1_000_001, "more bytes than we take"),
    ],
)
def test_nothing_and_rubbish_are_unavailable(cache: ModuleCache, shelf: Shelf, tmp_path: Path, stored: bytes | None, said: str) -> None:
    if stored is not None:
        shelf.modules[KEY] = stored
    with pytest.raises(JobError, match=said) as raised:
        cache.fetch(KEY)
    assert raised.value.code == "wasm_unavailable"
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_than_those_built_are_unavailable(cache: ModuleCache, shelf: Shelf) -> None:
    shelf.modules[KEY] = _module("theirs")
    with pytest.raises(JobError, match="other bytes"):
        cache.fetch(KEY, hashlib.sha256(_module("ours")).hexdigest())


def test_a_put_module_needs_no_coordinator(cache: ModuleCache, shelf: Shelf) -> None:
    put = cache.put(KEY, _module())
    assert cache.fetch(KEY, put.sha256) == put
    assert shelf.downloads == 0


def test_a_module_that_an_engine_refused_is_asked_for_again(cache: ModuleCache, shelf: Shelf) -> None:
    refused = cache.put(KEY, _module("refused"))
    cache.forget(KEY, refused.sha256)
    shelf.modules[KEY] = _module("built")
    assert cache.fetch(KEY).path.read_bytes() == _module("built")


def test_a_rebuild_beats_the_older_bytes(cache: ModuleCache) -> None:
    old = cache.put(KEY, _module("old"))
    os.utime(old.path, (1, 1))
    assert cache.fetch(KEY) != cache.put(KEY, _module("new"))
    os.utime(old.path, (1, 1))
    assert cache.fetch(KEY).path.read_bytes() == _module("new")


def test_the_least_recently_used_goes_first(tmp_path: Path, shelf: Shelf) -> None:
    size = len(_module("0"))
    cache = ModuleCache(tmp_path, max_bytes=2 * size, coordinator=cast("Coordinator", shelf))
    paths = [cache.put(f"{number}" * 64, _module(str(number))).path for number in range(2)]
    for age, path in zip((500, 1000), paths, strict=True):
        os.utime(path, (age, age))
    newest = cache.put(OTHER, _module("2"))
    assert [path.exists() for path in (*paths, newest.path)] == [False, True, True]


def test_what_was_just_handed_out_stays(tmp_path: Path, shelf: Shelf) -> None:
    cache = ModuleCache(tmp_path, max_bytes=1, coordinator=cast("Coordinator", shelf))
    first, second = cache.put(KEY, _module("1")), cache.put(OTHER, _module("2"))
    assert first.path.exists()
    assert second.path.exists()


@pytest.mark.parametrize("key", ["../../etc", "*", "A" * 64, ""])
def test_a_key_that_is_no_key_touches_no_path(cache: ModuleCache, key: str) -> None:
    with pytest.raises(ValueError, match="64 hex"):
        cache.fetch(key)
