"""Whether this host has a place for journals, caches and build logs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from offchainvm.errors import OffchainVMError
from offchainvm.settings import load_only

_LEAST_FREE_MB = 1024


def check_state_dir() -> str:
    """The state folder can be written."""
    folder = load_only(["state_dir"]).state_dir
    if not os.access(_existing(folder), os.W_OK | os.X_OK):
        raise OffchainVMError(f"{folder} cannot be written by this user.", remedy="Change its owner, or set STATE_DIR.")
    return str(folder)


def check_disk() -> str:
    """The disk of the state folder has room: a journal that cannot be written stops its process."""
    folder = load_only(["state_dir"]).state_dir
    free = shutil.disk_usage(_existing(folder)).free // 2**20
    if free < _LEAST_FREE_MB:
        raise OffchainVMError(
            f"The disk of {folder} has {free} MiB left, less than {_LEAST_FREE_MB}.",
            remedy="Make room, or set STATE_DIR to a folder on a larger disk.",
        )
    return f"{free} MiB free below {folder}"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())
