"""What builds left on this machine: containers and volumes with their owner's label, and processes that outlived their container."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from offchainvm.compiler import reaper, sandbox

if TYPE_CHECKING:
    from docker.client import DockerClient


def left_behind(client: DockerClient, owner: str) -> list[str]:
    """Names of the containers and volumes of ``owner``, which are removed, and orphaned processes of builds."""
    label = f"{reaper.LABEL_OWNER}={owner}"
    found = [
        *client.containers.list(all=True, filters={"label": label}, ignore_removed=True),
        *client.volumes.list(filters={"label": label}),
    ]
    names = [str(item.name) for item in found]
    reaper.remove_labelled(client, label)
    return [*names, *sorted(_orphans_for_long(client))]


def _orphans_for_long(client: DockerClient) -> set[str]:
    """What two looks find: a container that another test is removing just now is gone before its last process."""
    orphans = orphaned_processes(client)
    if orphans:
        time.sleep(1)
        orphans &= orphaned_processes(client)
    return orphans


def orphaned_processes(client: DockerClient) -> set[str]:
    """Processes with the user id of builds, in the control group of a container that the engine does not know any more."""
    found = set[str]()
    for process in Path("/proc").iterdir():
        try:
            is_build = process.name.isdigit() and process.stat().st_uid == sandbox.UID
            container = re.search("[0-9a-f]{64}", (process / "cgroup").read_text()) if is_build else None
        except OSError:  # it has ended meanwhile
            continue
        if container and not client.containers.list(all=True, filters={"id": container[0]}, ignore_removed=True):
            found.add(f"process {process.name} of {container[0]}")
    return found
