"""The disk cache of modules: bytes by source key, with the SHA-256 of the bytes in the file's name and checked at every read.

    folder/SOURCE_KEY.SHA256.wasm

A source key names a source, not the bytes, and the Coordinator's own cache may hold rubbish under it: what comes in is
checked as a module before it gets a name here. Processes share the folder: files appear by rename, the least
recently used go first.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from offchainvm import disk
from offchainvm.coordinator import Coordinator
from offchainvm.engine.module import check_module
from offchainvm.errors import ExecutionError, JobCode, JobError, TooLarge
from offchainvm.logs import get_logger

log = get_logger()

MODULE_MAX_BYTES = 64 * 1024 * 1024
"""More than any engine here takes; bounds what one download may bring."""
_HEX_64 = re.compile(r"[0-9a-f]{64}")
_IN_USE_SECONDS = 60
"""What was handed out this recently is not removed: an engine may be about to open it."""


@dataclass(frozen=True)
class CachedModule:
    """A module on this host's disk, checked a moment ago."""

    path: Path
    sha256: str
    size: int


class ModuleCache:
    """Modules by source key, at most ``max_bytes`` of them, downloaded where they are not here."""

    def __init__(self, folder: Path, *, max_bytes: int, coordinator: Coordinator) -> None:
        self._folder, self._max_bytes, self._coordinator = folder, max_bytes, coordinator
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def fetch(self, source_key: str, sha256: str | None = None) -> CachedModule:
        """The module of a source key, with exactly the bytes of ``sha256`` where that is known.

        Raises:
            JobError: ``wasm_unavailable``: the Coordinator has none, or rubbish, or other bytes.
            Unavailable: the Coordinator is away.
        """
        _check_key(source_key)
        return self._on_disk(source_key, sha256) or self._downloaded(source_key, sha256)

    def put(self, source_key: str, wasm: bytes) -> CachedModule:
        """Keep a module that was just built.

        Raises:
            ExecutionError: by its structure it is not a module that the engines take; whether it is valid is found where it is compiled.
        """
        _check_key(source_key)
        check_module(wasm)
        sha256 = hashlib.sha256(wasm).hexdigest()
        path = self._folder / f"{source_key}.{sha256}.wasm"
        disk.write_atomically(path, wasm)
        disk.make_room(self._folder.glob("*.wasm"), max_bytes=self._max_bytes, spare_seconds=_IN_USE_SECONDS)
        return CachedModule(path, sha256, len(wasm))

    def forget(self, source_key: str, sha256: str) -> None:
        """Keep these bytes no longer: an engine found that they are no valid module."""
        for path in self._files_of(source_key, sha256):
            path.unlink(missing_ok=True)

    def _on_disk(self, source_key: str, sha256: str | None) -> CachedModule | None:
        for path in self._files_of(source_key, sha256):
            named, data = path.name.split(".")[1], _read(path)
            if data is None:
                continue
            if hashlib.sha256(data).hexdigest() == named:
                disk.mark_used(path)
                return CachedModule(path, named, len(data))
            log.error("cached module does not have its own bytes any more", action="drop_cached_module", source_key=source_key)
            path.unlink(missing_ok=True)
        return None

    def _files_of(self, source_key: str, sha256: str | None) -> list[Path]:
        if sha256 is not None:
            return [self._folder / f"{source_key}.{sha256}.wasm"]
        return sorted(self._folder.glob(f"{source_key}.*.wasm"), key=disk.last_use, reverse=True)

    def _downloaded(self, source_key: str, sha256: str | None) -> CachedModule:
        try:
            untrusted_wasm = self._coordinator.download(source_key, max_bytes=min(self._max_bytes, MODULE_MAX_BYTES))
        except TooLarge as error:
            raise _unavailable(source_key, error.sentence) from error
        if untrusted_wasm is None:
            raise _unavailable(source_key, "the Coordinator has none")
        if sha256 not in (None, hashlib.sha256(untrusted_wasm).hexdigest()):
            raise _unavailable(source_key, "the Coordinator has other bytes than those that were built")
        try:
            return self.put(source_key, untrusted_wasm)
        except ExecutionError as error:
            reason = f"the Coordinator has {len(untrusted_wasm)} bytes that are no usable module ({error.text})"
            raise _unavailable(source_key, reason) from error


def _check_key(source_key: str) -> None:
    # It becomes part of a path.
    if not _HEX_64.fullmatch(source_key):
        raise ValueError("a source key is 64 hex characters")


def _unavailable(source_key: str, reason: str) -> JobError:
    return JobError(JobCode.WASM_UNAVAILABLE, f"no module for {source_key}: {reason}")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
