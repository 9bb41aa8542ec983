"""What a tree of processes used: CPU seconds and peak memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """``cpu_seconds`` of a process and all it ever started; ``peak_mib`` the sum of the living ones' peaks."""

    cpu_seconds: float
    peak_mib: float


def usage_of(pid: int) -> Usage:
    """Usage of the tree below ``pid``, ended and reaped children included."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    return Usage(cpu_seconds=sum(map(_cpu_seconds, tree)), peak_mib=sum(map(_peak_mib, tree)))


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _peak_mib(process: psutil.Process) -> float:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
