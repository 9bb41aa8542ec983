"""Real guests in a real engine, and what is done to them in the middle of their work."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import psutil
from workers import wait_until

from offchainvm.engine.supervisor import Supervisor

KILL_GRACE_SECONDS = 2.0
"""On a busy machine a child may be without a processor for longer than it is given in production."""
_WORK_SECONDS = 0.1
"""Of the processor: more than a child needs to begin, and many slices of instructions."""


def a_child_works(zygote: int) -> bool:
    """Whether a child of this zygote is in the middle of a guest, or of compiling one."""
    with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
        return any(child.cpu_times().user > _WORK_SECONDS for child in psutil.Process(zygote).children())
    return False


def guest_is_busy(executor: Supervisor) -> bool:
    return executor._zygote is not None and a_child_works(executor._zygote.pid)


def once_busy(executor: Supervisor, act: Callable[[], object]) -> threading.Thread:
    """A thread that acts in the middle of the next execution; to be joined after it."""

    def wait_and_act() -> None:
        wait_until(lambda: guest_is_busy(executor), "the guest to be in the middle of its work")
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def child_standing_by(zygote: int) -> psutil.Process:
    """The one child that a zygote has when it is settled."""
    process = psutil.Process(zygote)
    wait_until(lambda: _statuses(process) == [psutil.STATUS_SLEEPING], "one child, and no more, to stand by")
    return process.children()[0]


def _statuses(zygote: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):  # the last job's child, which is just going
        return [str(child.status()) for child in zygote.children(recursive=True)]
    return []
