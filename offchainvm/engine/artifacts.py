"""Verified native code, open in this process: sealed memory files that a child can map and nobody can change."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass

from offchainvm.engine.limits import MIB
from offchainvm.engine.module import ModuleInfo

_FILES_MAX = 32
_BYTES_MAX = 256 * MIB


@dataclass(frozen=True)
class Artifact:
    """Native code behind ``descriptor``, and what is known of its module."""

    module: ModuleInfo
    descriptor: int
    size: int


class Artifacts:
    """The native code used last, by key: at most 32 files and 256 MiB, but always the newest one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Artifact] = OrderedDict()

    def get(self, key: str) -> Artifact | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, module: ModuleInfo, native: bytes) -> Artifact:
        self.discard(key)
        artifact = self._kept[key] = Artifact(module, _sealed(native), len(native))
        while len(self._kept) > 1 and (len(self._kept) > _FILES_MAX or sum(item.size for item in self._kept.values()) > _BYTES_MAX):
            self.discard(next(iter(self._kept)))
        return artifact

    def discard(self, key: str) -> None:
        if (artifact := self._kept.pop(key, None)) is not None:
            os.close(artifact.descriptor)

    def close(self) -> None:
        """Close every file."""
        for key in list(self._kept):
            self.discard(key)


def _sealed(native: bytes) -> int:
    if not hasattr(os, "memfd_create"):
        return _unnamed(native)
    descriptor = os.memfd_create("offchainvm-native", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    _write_all(descriptor, native)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return descriptor


def _unnamed(native: bytes) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(native)
        file.flush()
        return os.dup(file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
