"""Who cleans up after builds: containers and volumes past their deadline, or of a process that has ended.

A build is alive until its process is known to be dead or its deadline is over. A process can be known by its own host
only, and in one process namespace: elsewhere the deadline decides.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import docker.errors

from offchainvm.compiler import engine
from offchainvm.errors import OffchainVMError
from offchainvm.logs import get_logger
from offchainvm.processes import started

if TYPE_CHECKING:
    from docker.client import DockerClient

log = get_logger()
LABEL_OWNER, LABEL_BUILD, LABEL_DEADLINE = "offchainvm.owner", "offchainvm.build", "offchainvm.deadline"
LABEL_PROCESS = "offchainvm.process"
REAP_SECONDS = 15.0
"""Short: what the engine was making for a worker as that died comes to be just after the next one's look at its start."""
_REMOVE_TRIES = 4
_PROC = Path("/proc")


def labels(owner: str, build_id: str, *, lifetime_seconds: float) -> dict[str, str]:
    """What every container and volume of a build carries."""
    deadline = str(math.ceil(time.time() + lifetime_seconds))
    return {LABEL_OWNER: owner, LABEL_BUILD: build_id, LABEL_DEADLINE: deadline, LABEL_PROCESS: _this_process()}


def reap(client: DockerClient, *, now: float | None = None) -> list[str]:
    """Remove containers and volumes of builds that are over; the names of what went.

    Raises:
        Unavailable: the engine does not answer (service ``docker``).
    """
    with engine.translated():
        containers = client.containers.list(all=True, filters={"label": LABEL_DEADLINE}, ignore_removed=True)
        volumes = client.volumes.list(filters={"label": LABEL_DEADLINE})
        found = [container.labels for container in containers] + [volume.attrs.get("Labels") or {} for volume in volumes]
        over = {item.get(LABEL_BUILD, "") for item in found if _is_over(item, time.time() if now is None else now)}
        removed = [name for build in sorted(over - {""}) for name in remove_labelled(client, f"{LABEL_BUILD}={build}")]
    if removed:
        log.info("What builds left behind is removed.", action="reap", removed=removed)
    return removed


def remove_labelled(client: DockerClient, label: str) -> list[str]:
    """Remove the containers and volumes that carry ``label``; their names.

    A loaded engine refuses now and then (a kill not seen in time, a volume still in use): what is left is tried again.
    """
    removed = list[str]()
    for attempt in range(_REMOVE_TRIES):
        time.sleep(attempt)
        containers = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        found = [(str(container.name), partial(container.remove, force=True, v=True)) for container in containers]
        found += [(str(volume.name), partial(volume.remove, force=True)) for volume in client.volumes.list(filters={"label": label})]
        went = [name for name, remove in found if gone(remove)]
        removed += went
        if len(went) == len(found):
            return removed
    log.warning("Containers or volumes of a build could not be removed; the reaper will.", action="sandbox_left", label=label)
    return removed


def gone(remove: Callable[[], object]) -> bool:
    """Whether ``remove`` has removed it, or found nothing."""
    try:
        remove()
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as error:
        log.debug("The engine did not remove it.", action="remove_failed", error=str(error.explanation))
        return False
    return True


class Reaper:
    """Reaps again and again from one thread of this process, idle or busy, as long as the process lives."""

    def __init__(self, *, every_seconds: float = REAP_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="reaper", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End it; a removal under way is waited for."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            try:
                # A client of its own each time: an engine that was away or restarted is found again.
                with contextlib.closing(engine.connect()) as client:
                    reap(client)
            except OffchainVMError as error:
                log.warning("What builds left behind is not removed now.", action="reap", reason=str(error))
            except Exception:
                # Whatever it is: nobody else would clean up from now on.
                log.exception("The reaper met an error that it does not know.", action="reap")


def _is_over(untrusted_labels: dict[str, str], now: float) -> bool:
    """Labels are ours, but anyone with the engine's socket can write them: one that cannot be read is left alone."""
    deadline = untrusted_labels.get(LABEL_DEADLINE, "")
    late = deadline.isascii() and deadline.isdigit() and len(deadline) < 20 and int(deadline) < now
    return late or _has_ended(untrusted_labels.get(LABEL_PROCESS, ""))


def _host() -> str:
    """This start of the kernel, and this namespace of process ids; empty where the system has no such names."""
    try:
        namespace = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    try:
        return f"{(_PROC / 'sys/kernel/random/boot_id').read_text().strip()} {namespace}"
    except OSError:  # a service may see the processes of its /proc alone
        return f"{socket.gethostname()} {namespace}"


def _this_process() -> str:
    return f"{host} {os.getpid()} {started(os.getpid(), proc=_PROC)}" if (host := _host()) else ""


def _has_ended(name: str) -> bool:
    """Whether the process is known to be dead; its id alone comes again."""
    host, _, process = name.rpartition("] ")
    pid, _, began = process.partition(" ")
    if f"{host}]" != _host() or not (pid.isascii() and pid.isdigit()):
        return False
    now = started(int(pid), proc=_PROC)
    # One that is not seen may be another user's: a system can hide those, and the first process with them.
    return now != began and bool(now or started(1, proc=_PROC))
