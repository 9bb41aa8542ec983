"""The liveness file of each process: who has no HTTP port is judged by it.

``python -m offchainvm.liveness`` judges the files of this host's user, as a container's health check does. That runs every
half a minute in each container, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

from offchainvm.processes import started

STALE_SECONDS = 60.0
"""A loop that did not turn for so long hangs, unless one turn of it may last longer."""


def liveness_folder() -> Path:
    """Where the liveness files of this user's processes are: OFFCHAINVM_LIVE_DIR, else below the temporary folder."""
    named = os.environ.get("OFFCHAINVM_LIVE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"offchainvm-live-{os.getuid()}"


def liveness_file(name: str) -> Path:
    """The file of the process ``name`` (any text: what no file name can hold is replaced)."""
    return liveness_folder() / re.sub(r"[^A-Za-z0-9@._-]|^\.+", "_", name)


def touch_file(name: str) -> None:
    """Say that process ``name``, this one, is live just now.

    Raises:
        OSError: it cannot be written.
    """
    file = liveness_file(name)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_text(_identity(os.getpid()))


def problems_of_this_host() -> list[str]:
    """What is wrong with the processes of this user, a line each; also that there is none."""
    ages = {file.name: living_age_seconds(file) for file in liveness_folder().glob("*")}
    living = {name: age for name, age in ages.items() if age is not None}
    if not living:
        return [f"no living process has a file in {liveness_folder()}"]
    return [f"{name}: its loop last turned {age:.0f} s ago" for name, age in living.items() if age > STALE_SECONDS]


def living_age_seconds(file: Path) -> float | None:
    """How long ago it was touched; None when there is none, or an earlier process that was killed left it."""
    try:
        written, touched_at = file.read_text(), file.stat().st_mtime
    except OSError:
        return None
    pid = written.partition(" ")[0]
    return time.time() - touched_at if pid.isdigit() and _identity(int(pid)) == written else None


def _identity(pid: int) -> str:
    """``pid start-time``: a process id alone comes again, in a container that restarts most of all. Empty when there is none."""
    if sys.platform != "linux":
        return f"{pid} -"
    began = started(pid)
    return f"{pid} {began}" if began else ""


def main() -> int:
    """Exit code 0 when processes of this host's user live and each one's loop turns; else 1 and a line that says which does not."""
    problems = problems_of_this_host()
    if problems:
        print("; ".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
