"""What is kept of builds stays bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path

from offchainvm.compiler.records import BuildLog, Records


def test_a_log_keeps_its_head_and_its_tail() -> None:
    log = BuildLog(head_chars=20, tail_chars=30)
    for number in range(1000):
        log.add(f"line {number:03}")

    assert log.text().splitlines() == ["line 000", "line 001", "... 995 lines are not kept ...", "line 997", "line 998", "line 999"]


def test_a_short_log_is_kept_whole() -> None:
    log = BuildLog(head_chars=10, tail_chars=100)
    for line in ("first", "second", "third"):
        log.add(line)

    assert log.text() == "first\nsecond\nthird\n"


def test_the_folder_keeps_its_newest_files(tmp_path: Path) -> None:
    records = Records(tmp_path / "builds", max_files=4, max_bytes=10_000)
    for number in range(6):
        path = records.write(f"build{number}", text="x", provenance={"number": number} if number else None)
        assert path is not None
        for file in path.parent.glob(f"build{number}*"):
            os.utime(file, (number, number))

    left = sorted(file.name for file in (tmp_path / "builds").iterdir())
    assert left == ["build4.log", "build4.provenance.json", "build5.log", "build5.provenance.json"]
    assert json.loads((tmp_path / "builds" / "build5.provenance.json").read_text()) == {"number": 5}


def test_the_folder_keeps_to_its_bytes(tmp_path: Path) -> None:
    records = Records(tmp_path, max_files=100, max_bytes=1000)
    for name in ("a", "b", "c"):
        records.write(name, text="x" * 450, provenance=None)
        os.utime(tmp_path / f"{name}.log", (ord(name), ord(name)))

    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.log", "c.log"]


def test_a_disk_that_takes_nothing_costs_the_record_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert Records(tmp_path / "file" / "builds").write("a", text="x", provenance=None) is None
