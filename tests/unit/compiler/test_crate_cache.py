"""The cache of crate files: whole, verified, bounded. How it is filled is in the integration tests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from offchainvm.compiler.crates import CrateCache, index_folder
from offchainvm.compiler.lockfile import Crate


def crate(data: bytes) -> Crate:
    return Crate("x", "1.0.0", hashlib.sha256(data).hexdigest())


def test_a_file_that_was_tampered_with_is_removed_and_not_returned(tmp_path: Path) -> None:
    cache, one = CrateCache(tmp_path / "new", max_bytes=100), crate(b"one")
    cache.put(one, b"one")
    assert cache.get(one.sha256) == b"one"

    (tmp_path / "new" / one.sha256).write_bytes(b"evil")

    assert cache.get(one.sha256) is None
    assert not list((tmp_path / "new").iterdir())


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    cache, data = CrateCache(tmp_path, max_bytes=10), [b"aaaa", b"bbbb", b"cccc"]
    for age, each in enumerate(data[:2]):
        cache.put(crate(each), each)
        os.utime(tmp_path / crate(each).sha256, (1000 + age, 1000 + age))
    assert cache.get(crate(data[0]).sha256)

    cache.put(crate(data[2]), data[2])

    assert [cache.get(crate(each).sha256) for each in data] == [b"aaaa", None, b"cccc"]


def test_what_a_killed_writer_left_makes_room_too(tmp_path: Path) -> None:
    left = tmp_path / ".new-x"
    left.write_bytes(b"half a crate")
    os.utime(left, (1000, 1000))

    CrateCache(tmp_path, max_bytes=10).put(crate(b"four"), b"four")

    assert [path.name for path in tmp_path.iterdir()] == [crate(b"four").sha256]


@pytest.mark.parametrize("max_bytes", [0, 3])
def test_what_is_over_the_bound_is_not_kept(tmp_path: Path, max_bytes: int) -> None:
    CrateCache(tmp_path / "crates", max_bytes=max_bytes).put(crate(b"four"), b"four")

    assert not (tmp_path / "crates").exists()


def test_a_disk_that_takes_nothing_costs_no_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = CrateCache(tmp_path / "file", max_bytes=100)

    cache.put(crate(b"x"), b"x")

    assert cache.get(crate(b"x").sha256) is None


@pytest.mark.parametrize(("name", "folder"), [("a", "1"), ("ab", "2"), ("abc", "3/a"), ("Abcd", "Ab/cd"), ("serde_json", "se/rd")])
def test_an_index_has_its_files_in_folders_by_name(name: str, folder: str) -> None:
    assert index_folder(name) == folder
