"""The cache of native code gives back what it was given, or nothing."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from offchainvm.engine.artifacts import Artifacts
from offchainvm.engine.cache import NativeCache

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def cache(tmp_path: Path) -> NativeCache:
    return NativeCache(tmp_path / "native", max_bytes=10_000)


def test_what_was_put_comes_back_in_another_process_too(cache):
    cache.put(KEY, {"entry": "execute"}, b"native")
    assert cache.get(KEY) == ({"entry": "execute"}, b"native")
    assert NativeCache(cache.folder, max_bytes=1).get(KEY) == ({"entry": "execute"}, b"native")


def test_what_is_absent_is_none(cache):
    assert cache.get(KEY) is None


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:40] + b"X" + data[41:], lambda data: b"\0" * 32 + data[32:]]
)
def test_a_changed_file_counts_as_absent_and_is_removed(cache, damage):
    cache.put(KEY, {}, b"native code")
    path = cache.folder / f"{KEY}.native"
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY) is None
    assert not path.exists()


def test_a_file_under_another_key_does_not_count(cache):
    cache.put(KEY, {}, b"native code")
    (cache.folder / f"{KEY}.native").rename(cache.folder / f"{OTHER}.native")
    assert cache.get(OTHER) is None


def test_files_of_another_folder_do_not_count(cache, tmp_path):
    other = NativeCache(tmp_path / "other", max_bytes=10_000)
    other.put(KEY, {}, b"native code")
    (cache.folder / f"{KEY}.native").write_bytes((other.folder / f"{KEY}.native").read_bytes())
    assert cache.get(KEY) is None


def test_key_and_files_are_for_the_owner_alone(cache):
    cache.put(KEY, {}, b"native code")
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.folder.iterdir()} == {0o600}
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_a_torn_key_is_made_anew(cache):
    cache.put(KEY, {}, b"native code")
    (cache.folder / "key").write_bytes(b"short")
    again = NativeCache(cache.folder, max_bytes=10_000)
    assert again.get(KEY) is None
    again.put(KEY, {}, b"native code")
    assert again.get(KEY) == ({}, b"native code")


def test_the_entry_unused_longest_goes_first(cache):
    for number, key in enumerate("cdef"):
        cache.put(key * 64, {}, bytes(3000))
        os.utime(cache.folder / f"{key * 64}.native", (number + 1, number + 1))
    assert cache.get("c" * 64) is None
    assert cache.get("d" * 64) is not None
    cache.put(KEY, {}, bytes(3000))
    assert cache.get("e" * 64) is None
    assert cache.get("d" * 64) is not None
    assert cache.size_bytes() <= 10_000


def test_what_a_crash_left_behind_is_swept(cache):
    left = cache.folder / "x.part"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    cache.put(KEY, {}, b"native")
    assert not left.exists()


def test_many_openers_agree_on_one_key(tmp_path):
    caches: list[NativeCache] = []
    threads = [threading.Thread(target=lambda: caches.append(NativeCache(tmp_path, max_bytes=10_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    caches[0].put(KEY, {}, b"native")
    assert [cache.get(KEY) for cache in caches] == [({}, b"native")] * 8
    assert {path.name for path in tmp_path.iterdir()} == {"key", f"{KEY}.native"}


def test_a_sealed_artifact_can_be_read_and_not_written():
    artifacts = Artifacts()
    artifact = artifacts.put(KEY, {"entry": "_start"}, b"native")
    with pytest.raises(OSError, match=r"."):
        os.pwrite(artifact.descriptor, b"X", 0)
    assert os.pread(artifact.descriptor, 100, 0) == b"native"
    artifacts.close()
    assert artifacts.get(KEY) is None


def test_artifacts_keep_the_newest_and_close_the_rest():
    artifacts = Artifacts()
    for number in range(40):
        artifacts.put(str(number), {}, b"x")
    assert artifacts.get("0") is None
    assert artifacts.get("39") is not None
    artifacts.close()
