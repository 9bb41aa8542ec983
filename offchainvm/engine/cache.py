"""Native code on disk: what one compilation made, kept for every process of this host.

Native code is run without a further check, so a file counts only with the HMAC of this folder's key (0600, ours, in the
folder): whoever can read that key could run programs as this user anyway. Files appear by an atomic rename and are
never changed, so concurrent processes and crashes leave whole files, or none. The key is read anew each time: where
somebody removed it, or the whole folder, all processes find the new one. No trouble with the disk is an error of a job.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KEY_BYTES = 32
_MAC_BYTES = 32
_HEAD = struct.Struct("<I")
_SUFFIX, _TEMPORARY = ".native", ".part"
_ABANDONED_SECONDS = 3600
_TOUCH_SECONDS = 60


class NativeCache:
    """Native code by key (hex text) under ``folder``, ``max_bytes`` in all; what was unused longest goes first."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Raises OSError where the folder cannot be used."""
        self.folder, self.max_bytes = folder, max_bytes
        _secret_of(folder)

    def get(self, key: str) -> tuple[dict[str, Any], bytes] | None:
        """Head and native code, verified; None when absent. A file that does not verify is removed."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            mac = self._mac(key, data[_MAC_BYTES:])
        except OSError:
            return None
        if len(data) <= _MAC_BYTES + _HEAD.size or not hmac.compare_digest(data[:_MAC_BYTES], mac):
            self.discard(key)
            return None
        self._touch(path)
        start = _MAC_BYTES + _HEAD.size
        (size,) = _HEAD.unpack(data[_MAC_BYTES:start])
        return json.loads(data[start : start + size]), data[start + size :]

    def put(self, key: str, head: dict[str, Any], native: bytes) -> None:
        """Keep ``native``; a full or read-only disk is no error, the next run compiles again.

        What alone is larger than ``max_bytes`` is not kept.
        """
        text = json.dumps(head).encode()
        body = b"".join((_HEAD.pack(len(text)), text, native))
        if _MAC_BYTES + len(body) > self.max_bytes:
            return
        temporary = self.folder / f"{key}.{secrets.token_hex(8)}{_TEMPORARY}"
        try:
            _write_private(temporary, self._mac(key, body) + body)
            temporary.replace(self._path(key))
        except OSError:
            _remove(temporary)
        self._evict()

    def discard(self, key: str) -> None:
        """Forget what is kept under ``key``."""
        _remove(self._path(key))

    def size_bytes(self) -> int:
        """Bytes of all native code that is kept."""
        return sum(size for _, size, _ in self._entries(_SUFFIX))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _mac(self, key: str, body: bytes) -> bytes:
        return hmac.digest(_secret_of(self.folder), key.encode() + b"\0" + body, "sha256")

    def _touch(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _TOUCH_SECONDS:
                os.utime(path)

    def _evict(self) -> None:
        for modified, _, path in self._entries(_TEMPORARY):
            if time.time() - modified > _ABANDONED_SECONDS:
                _remove(path)
        entries = sorted(self._entries(_SUFFIX))
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.max_bytes:
                return
            _remove(path)
            total -= size

    def _entries(self, suffix: str) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob(f"*{suffix}"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path


def _write_private(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _secret_of(folder: Path) -> bytes:
    """The folder's key; made by whoever comes first, which a hard link decides."""
    path = folder / "key"
    secret = _read_secret(path)
    if secret:
        return secret
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = folder / f"key.{secrets.token_hex(8)}{_TEMPORARY}"
    _write_private(temporary, secrets.token_bytes(_KEY_BYTES))
    try:
        if path.is_symlink() or path.exists():  # and no key
            temporary.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
    finally:
        _remove(temporary)
    return path.read_bytes()


def _read_secret(path: Path) -> bytes:
    """The key in this file; empty where it is absent, torn, or not this user's alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        secret = file.read(_KEY_BYTES + 1)
    private = about.st_uid == os.geteuid() and not about.st_mode & 0o077
    return secret if private and len(secret) == _KEY_BYTES else b""
