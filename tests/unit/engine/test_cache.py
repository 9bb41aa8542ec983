"""The cache of native code gives back what it was given, or nothing."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import threading
import time
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


def test_a_key_that_others_could_read_is_made_anew(cache):
    cache.put(KEY, {}, b"native code")
    (cache.folder / "key").chmod(0o644)
    assert cache.get(KEY) is None
    assert stat.S_IMODE((cache.folder / "key").stat().st_mode) == 0o600
    (cache.folder / "key").rename(cache.folder / "elsewhere")
    (cache.folder / "key").symlink_to("elsewhere")
    cache.put(KEY, {}, b"native code")
    assert not (cache.folder / "key").is_symlink()


@pytest.mark.parametrize("loss", ["the key", "everything"])
def test_processes_agree_again_after_somebody_removed(cache, loss):
    other = NativeCache(cache.folder, max_bytes=10_000)
    cache.put(KEY, {}, b"native code")
    for path in cache.folder.iterdir():
        if loss == "everything" or path.name == "key":
            path.unlink()
    if loss == "everything":
        cache.folder.rmdir()
    assert other.get(KEY) is None
    other.put(KEY, {}, b"made again")
    assert cache.get(KEY) == other.get(KEY) == ({}, b"made again")


def test_a_full_disk_leaves_nothing_half_written_and_is_no_error(cache):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # to this process, writing more fails as on a full disk
    try:
        cache.put(KEY, {}, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cache.get(KEY) is None
    assert [path.name for path in cache.folder.iterdir()] == ["key"]
    cache.put(KEY, {}, bytes(5000))
    assert cache.get(KEY) == ({}, bytes(5000))


def test_a_folder_that_became_unusable_is_no_error_of_a_job(cache):
    cache.put(KEY, {}, b"native code")
    cache.folder.rename(cache.folder.with_name("moved"))
    cache.folder.write_text("now a file")
    assert cache.get(KEY) is None
    cache.put(KEY, {}, b"native code")
    cache.discard(KEY)
    with pytest.raises(OSError, match="native"):
        NativeCache(cache.folder, max_bytes=1)


def test_what_is_larger_than_all_may_be_drives_nothing_out(cache):
    cache.put(KEY, {}, b"native code")
    cache.put(OTHER, {}, bytes(20_000))
    assert cache.get(KEY) == ({}, b"native code")
    assert cache.get(OTHER) is None


WRITER = """
import sys
from pathlib import Path
from offchainvm.engine.cache import NativeCache
cache = NativeCache(Path(sys.argv[1]), max_bytes=40 << 20)
for number in range(10**9):
    cache.put(f"{number % 8:064x}", {"number": number}, bytes([number % 256]) * (4 << 20))
"""


def test_writers_that_are_killed_leave_whole_files_or_none(tmp_path):
    """Two at once, evicting each other's files, while a third process reads."""
    reader, deadline = NativeCache(tmp_path, max_bytes=40 << 20), time.monotonic() + 30
    for _ in range(3):
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) for _ in range(2)]
        found = reads = 0
        while found < 12:
            assert time.monotonic() < deadline
            reads += 1
            if (kept := reader.get(f"{reads % 8:064x}")) is not None:
                found += 1
                assert kept[1] == bytes([kept[0]["number"] % 256]) * (4 << 20)
        for writer in writers:
            writer.kill()
            writer.wait()
    for path in tmp_path.glob("*.part"):
        os.utime(path, (1, 1))
    reader.put(KEY, {}, b"native code")
    assert list(tmp_path.glob("*.part")) == []
    assert reader.size_bytes() <= 40 << 20


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
