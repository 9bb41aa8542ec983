"""Which process is known to be dead, by what a system shows of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from offchainvm.compiler import reaper

BOOT_ID = "sys/kernel/random/boot_id"
NEVER = 2**40
Show = Callable[[int, int], None]


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc of this test, in which nothing runs yet."""
    (tmp_path / BOOT_ID).parent.mkdir(parents=True)
    (tmp_path / BOOT_ID).write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").symlink_to("pid:[4026531836]")
    monkeypatch.setattr(reaper, "_PROC", tmp_path)
    return tmp_path


@pytest.fixture
def show(proc: Path) -> Show:
    """Let a process be seen, with the tick of its start."""

    def run(pid: int, started: int) -> None:
        (proc / str(pid)).mkdir(exist_ok=True)
        (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) S {'0 ' * 18}{started} 0 0\n")

    return run


def is_over(process: str) -> bool:
    return reaper._is_over({reaper.LABEL_DEADLINE: str(NEVER), reaper.LABEL_PROCESS: process}, now=0)


def label(show: Show) -> str:
    """The label of this process, while it is seen."""
    show(os.getpid(), 70)
    return reaper.labels("", "", lifetime_seconds=0)[reaper.LABEL_PROCESS]


@pytest.mark.parametrize("boot_id", ["readable", "hidden"])
def test_a_dead_process_is_known_by_its_host(proc: Path, show: Show, boot_id: str) -> None:
    if boot_id == "hidden":
        (proc / BOOT_ID).unlink()
    show(1, 0)
    process = label(show)
    assert not is_over(process)

    show(os.getpid(), 71)
    assert is_over(process), "its number was given to another one"
    (proc / str(os.getpid()) / "stat").unlink()
    assert is_over(process)
    assert not is_over(process.replace("pid:[4", "pid:[5")), "another container's"


def test_a_process_that_is_hidden_is_not_taken_for_a_dead_one(proc: Path, show: Show) -> None:
    """Neither is the first one seen: a system that hides other users' processes shows them as none."""
    process = label(show)
    (proc / str(os.getpid()) / "stat").unlink()

    assert not is_over(process)
    show(os.getpid(), 71)
    assert is_over(process)
