"""`offchainvm demo`, as a stranger runs it: whatever lies in the environment, and whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WITHOUT_DOCKER = "tcp://127.0.0.1:1"


def start(folder: Path) -> subprocess.Popen[str]:
    """The demo in a folder whose name all its processes carry in their environment (TMPDIR)."""
    (folder / ".env").write_text("REDIS_URL=redis://nowhere.invalid\nAPI_BASE_URL=http://nowhere.invalid\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "DOCKER_HOST": WITHOUT_DOCKER,
        "REDIS_URL": "redis://nowhere.invalid:1",
        "MAX_MEMORY_MB": "none",
    }
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "offchainvm", "demo"]
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left_over(folder: Path) -> list[str]:
    """Processes that carry the folder's name."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except OSError:  # it ended meanwhile
            continue
    return found


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_demo_ends_well_without_docker_and_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert "No build here (The Docker engine does not answer.)" in output
    assert '{"lines":3,"words":15,"bytes":88,"longest":"computes."}  as it should be' in output
    assert "0.010100 NEAR charged" in output
    assert left_over(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_ended_takes_everything_with_it(tmp_path: Path, number: int) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "calls request_execution" in line:
            break
    assert len(left_over(tmp_path)) >= 6
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    wait_until(lambda: left_over(tmp_path) == [])
