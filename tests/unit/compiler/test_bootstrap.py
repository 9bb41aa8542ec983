"""The builder image out of Debian packages: where the mirror comes from, and an archive that repeats."""

from __future__ import annotations

import gc
import os
import tarfile
from pathlib import Path

import pytest

from offchainvm.compiler.bootstrap import PACKAGES, debian_archive, find_mirror, pack
from offchainvm.compiler.image import DOCKERFILE
from offchainvm.errors import Unavailable

STANZAS = """Types: deb
URIs: https://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
# a comment
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
"""


def test_the_mirror_is_the_one_of_the_machines_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(STANZAS)

    assert find_mirror(tmp_path) == "https://mirror.example/debian"


@pytest.mark.parametrize(
    "line",
    ["deb https://mirror.example/debian trixie main contrib", "deb [arch=amd64 signed-by=/x] https://mirror.example/debian stable main"],
)
def test_the_old_list_is_read_too(tmp_path: Path, line: str) -> None:
    security = "deb https://mirror.example/debian-security trixie-security main\n"
    (tmp_path / "sources.list").write_text(f"# comment\n{security}{line}\n")

    assert find_mirror(tmp_path) == "https://mirror.example/debian"


def test_another_distribution_has_no_mirror(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb https://mirror.example/ubuntu noble main\n")

    with pytest.raises(Unavailable, match="--mirror"):
        find_mirror(tmp_path)


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(Unavailable, match="root"), debian_archive(say=print, mirror="https://mirror.example/debian"):
        pass


def test_a_bootstrap_that_fails_is_told_in_its_own_words_and_leaves_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/bin/sh\necho I: Retrieving\necho E: no space left on the mirror\necho E: mmdebstrap failed to run\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(Unavailable, match="no space left on the mirror"), debian_archive(say=print, mirror="https://mirror.example/debian"):
        pass
    gc.collect()  # an open pipe would warn here, and a warning is an error


def make_tree(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "bin").symlink_to("usr/bin")


def test_the_archive_repeats_and_leaves_out_what_differs(tmp_path: Path) -> None:
    kept = ["usr/bin/tool", "usr/share/x", "etc/passwd", "var/lib/x"]
    noise = ["var/log/x.log", "etc/machine-id", "tmp/x", "proc/1/x", "usr/share/doc/x/y", "var/cache/apt/x.deb"]
    make_tree(tmp_path / "one", [*kept, *noise])
    make_tree(tmp_path / "two", [*reversed(kept), "var/log/other", "tmp/y", "proc/2", "var/cache/z", "etc/hostname"])
    pack(tmp_path / "one", tmp_path / "one.tar")
    pack(tmp_path / "two", tmp_path / "two.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        names = tar.getnames()
        assert tar.getmember("bin").issym()
    assert {"usr/bin/tool", "etc/passwd", "tmp", "proc", "var/log"} <= set(names)
    assert not {"var/log/x.log", "etc/machine-id", "tmp/x", "proc/1", "usr/share/doc"} & set(names)


def test_the_dockerfile_installs_packages_that_the_bootstrap_installs_too() -> None:
    """The bootstrap runs wherever the tests do, the Dockerfile's apt-get where a base has neither git nor clang: the names must be real."""
    [line] = [line for line in DOCKERFILE.read_text().splitlines() if "apt-get install" in line]

    named = line.partition("--no-install-recommends")[2].strip(" ;\\").split()

    assert "clang" in named
    assert set(named) <= {*PACKAGES, "$llvm"}
