"""`offchainvm demo` with a Docker engine: it really builds, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import builder
import pytest

from offchainvm.compiler import reaper

SECONDS = 110


def labelled() -> set[str]:
    """Containers and volumes of builds by the compile worker of any stack."""
    filters = {"label": reaper.LABEL_OWNER}
    with builder.client() as client:
        items = [*client.containers.list(all=True, filters=filters, ignore_removed=True), *client.volumes.list(filters=filters)]
        labels = [item.attrs.get("Labels") or item.attrs["Config"]["Labels"] for item in items]
        return {item.id for item, label in zip(items, labels, strict=True) if label[reaper.LABEL_OWNER].startswith("compile-")}


def processes_of(folder: Path) -> list[str]:
    """Commands of the processes that carry the folder's name in their environment (TMPDIR)."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.usefixtures("builder_image")
def test_the_demo_builds_runs_resolves_and_leaves_nothing(tmp_path: Path) -> None:
    before = labelled()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    passed_on = {name: os.environ[name] for name in ("PATH", "DOCKER_HOST") if name in os.environ}
    environment = {**passed_on, "HOME": str(tmp_path), "TMPDIR": str(temporary), "COLUMNS": "200"}
    command = [sys.executable, "-m", "offchainvm", "demo"]
    demo = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "No build here" not in demo.stdout
    assert "building in a sandbox" in demo.stdout
    assert '{"lines":3,"words":15,"bytes":88,"longest":"computes."}  as it should be' in demo.stdout
    assert "Everything that was started is stopped." in demo.stdout
    assert processes_of(tmp_path) == []
    assert list(temporary.iterdir()) == []
    assert labelled() - before == set()
