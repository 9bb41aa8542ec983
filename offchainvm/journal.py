"""The journal: what must survive Redis and ``kill -9``, on this host's disk.

    folder/ROLE.PID.RANDOM/journal.log     one record after another, written by the process that holds the folder's lock
                          /lock            held with flock for as long as that process lives
    folder/.home                           the name of this place, for as long as its journals are kept

An entry is durable when ``append`` returns; appends of several threads share one fsync. What is discarded gets a
tombstone and goes when the file is rewritten. A process adopts the folders of its role that nobody holds any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from offchainvm import metrics
from offchainvm.errors import Unavailable
from offchainvm.logs import get_logger

log = get_logger()

Entry = tuple[str, str, bytes]
"""kind, key, body"""

_HEADER = b"offchainvm journal 1\n"
_FRAME = struct.Struct("<II")
"""Length of the payload in bytes, CRC-32 of the payload."""
_PAYLOAD = struct.Struct("<BHH")
"""Entry or tombstone, bytes of the kind, bytes of the key; kind, key and body follow."""
_ENTRY, _TOMBSTONE = 1, 2
_REWRITE_BYTES = 1024 * 1024
"""Dead bytes above which the file is rewritten, when they outweigh the living."""
_sync = getattr(os, "fdatasync", os.fsync)


@dataclass
class _Change:
    """One record on its way to the disk."""

    key: str
    record: bytes
    entry: Entry | None
    done: bool = False
    error: OSError | None = None


class Journal:
    """Entries by key, kept on disk until discarded. Threads may share it; a forked process opens its own."""

    def __init__(self, folder: Path, role: str) -> None:
        """Open a new journal in ``folder`` and adopt what processes of this role left behind."""
        self._root, self._role, self._pid = folder, role, os.getpid()
        self._live: dict[str, Entry] = {}
        self._mutex = threading.Condition()
        self._pending, self._batch = list[_Change](), list[_Change]()
        self._writing = self._closed = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder / ".lock"):
            self._folder = folder / f"{role}.{self._pid}.{uuid.uuid4().hex[:8]}"
            self._folder.mkdir(mode=0o700)
            self._lock = _try_lock(self._folder / "lock")
            self.home = _named(folder / ".home")
        self._file, self._size, self._live_bytes = -1, 0, 0
        self._rewrite()
        self.adopt()

    def append(self, kind: str, key: str, body: bytes) -> None:
        """Keep an entry in place of an earlier one of the same key; it is on the disk when this returns.

        Raises:
            Unavailable: the disk did not take it; it is not kept.
        """
        self.extend([(kind, key, body)])

    def extend(self, entries: Iterable[Entry]) -> None:
        """Keep several entries with one sync; all of them are on the disk when this returns.

        Raises:
            Unavailable: the disk did not take one of them.
        """
        with self._mutex:
            self._settle(self._queued(list(entries)))

    def discard(self, keys: Iterable[str]) -> None:
        """Forget entries; those unknown are ignored. Not synced: what a crash brings back is discarded again."""
        with self._mutex:
            coming = {change.key for change in (*self._batch, *self._pending)}
            known = [key for key in keys if key in self._live or key in coming]
            self._pending += [_Change(key, _record(_TOMBSTONE, "", key, b""), None) for key in known]
            if known and not self._writing:
                self._write_pending()

    def entries(self) -> list[Entry]:
        """What is kept, oldest first, adopted entries included."""
        with self._mutex:
            return list(self._live.values())

    def entries_of_others(self) -> list[Entry]:
        """What living processes of this role keep in the same folder, as far as it is on the disk now; only they discard it."""
        with _locked(self._root / ".lock"):
            files = [folder / "journal.log" for folder in sorted(self._root.iterdir()) if self._is_foreign(folder)]
        return [entry for file in files for entry in (_read(file) or {}).values()]

    def adopt(self) -> int:
        """Take over the entries of processes of this role that are gone; the number of entries."""
        with _locked(self._root / ".lock"):
            return sum(self._adopt(folder) for folder in sorted(self._root.iterdir()) if self._is_foreign(folder))

    def close(self) -> None:
        """Write what is pending and let go of the folder, which the next process of this role adopts."""
        with self._mutex:
            while self._writing:
                self._mutex.wait()
            if self._closed:
                return
            self._write_pending()
            self._closed = True
        # The folder goes before its lock does: an adopter must not find half of it.
        if not self._live:
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._file)
        if self._lock is not None:
            os.close(self._lock)

    def _queued(self, entries: list[Entry]) -> list[_Change]:
        if self._closed or os.getpid() != self._pid:
            raise RuntimeError("this journal is closed, or belongs to the process that forked this one")
        changes = [_Change(entry[1], _record(_ENTRY, *entry), entry) for entry in entries]
        self._pending += changes
        return changes

    def _settle(self, changes: list[_Change]) -> None:
        """Wait for the disk: the first to come writes for all who came meanwhile."""
        while not all(change.done for change in changes):
            if self._writing:
                self._mutex.wait()
            else:
                self._write_pending()
        for change in changes:
            if change.error is not None:
                raise Unavailable(
                    "journal",
                    f"The journal cannot be written ({change.error.strerror}).",
                    remedy=f"Check the disk that holds STATE_DIR ({self._root}).",
                ) from change.error

    def _write_pending(self) -> None:
        """Write the batch with the mutex released, then count it as kept."""
        self._batch, self._pending, self._writing = self._pending, [], True
        self._mutex.release()
        error = None
        try:
            self._write(self._batch)
        except OSError as problem:
            error = problem
        finally:
            self._mutex.acquire()
            for change in self._batch:
                change.done, change.error = True, error
                self._apply(change)
            self._batch, self._writing = [], False
            self._mutex.notify_all()

    def _apply(self, change: _Change) -> None:
        if change.error is not None and change.entry is not None:
            return
        earlier = self._live.pop(change.key, None)
        self._live_bytes -= 0 if earlier is None else len(_record(_ENTRY, *earlier))
        if change.entry is not None:
            self._live[change.key] = change.entry
            self._live_bytes += len(change.record)

    def _write(self, batch: list[_Change]) -> None:
        dead_bytes = self._size - self._live_bytes
        if self._file < 0 or dead_bytes > max(_REWRITE_BYTES, self._live_bytes):
            self._rewrite()
        data = b"".join(change.record for change in batch)
        try:
            _write_all(self._file, data)
            if any(change.entry is not None for change in batch):
                _sync(self._file)
        except OSError:
            # What is on the disk now cannot be known (a failed fsync drops pages): the next write starts a new file.
            self._abandon_file()
            raise
        self._size += len(data)

    def _abandon_file(self) -> None:
        with suppress(OSError):
            os.close(self._file)
        self._file = -1

    def _rewrite(self) -> None:
        """Put a file with only the living entries in the place of the present one, in one rename."""
        new, path = self._folder / "journal.new", self._folder / "journal.log"
        data = _HEADER + b"".join(_record(_ENTRY, *entry) for entry in self._live.values())
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, data)
            _sync(file)
            new.replace(path)
            _sync_folder(self._folder)
            _sync_folder(self._root)
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size, self._live_bytes = file, len(data), len(data) - len(_HEADER)

    def _is_foreign(self, folder: Path) -> bool:
        return folder.name.split(".")[0] == self._role and folder != self._folder and folder.is_dir()

    def _adopt(self, folder: Path) -> int:
        lock = _try_lock(folder / "lock")
        if lock is None:
            return 0
        try:
            kept = _read(folder / "journal.log")
            if kept is None:
                log.warning("journal of another version left alone", action="journal_not_adopted", folder=folder.name)
                return 0
            with self._mutex:
                self._settle(self._queued([entry for entry in kept.values() if entry[1] not in self._live]))
            shutil.rmtree(folder, ignore_errors=True)
            log.info("journal of a process that is gone adopted", action="journal_adopted", folder=folder.name, entries=len(kept))
            return len(kept)
        finally:
            os.close(lock)


def _named(path: Path) -> str:
    """The name in a file that is made with one where there is none."""
    if not path.exists():
        new = path.with_suffix(".new")
        new.write_text(uuid.uuid4().hex)
        new.replace(path)
    return path.read_text()


def _record(what: int, kind: str, key: str, body: bytes) -> bytes:
    kind_bytes, key_bytes = kind.encode(), key.encode()
    payload = _PAYLOAD.pack(what, len(kind_bytes), len(key_bytes)) + kind_bytes + key_bytes + body
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _read(path: Path) -> dict[str, Entry] | None:
    """The living entries of a file, None when it is of another version."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # its process closes it just now
        data = b""
    if not data.startswith(_HEADER):
        return {} if _HEADER.startswith(data) else None
    kept: dict[str, Entry] = {}
    for what, kind, key, body in _parse(data):
        kept.pop(key, None)
        if what == _ENTRY:
            kept[key] = (kind, key, body)
    return kept


def _parse(data: bytes) -> Iterator[tuple[int, str, str, bytes]]:
    """The records up to the first that is torn.

    There is no looking for a next good one behind it: a body is a stranger's, and could hold what looks like a record.
    """
    position = len(_HEADER)
    while position + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, position)
        payload = data[position + _FRAME.size : position + _FRAME.size + length]
        if len(payload) != length or length < _PAYLOAD.size or zlib.crc32(payload) != checksum:
            return
        what, kind_end, key_bytes = _PAYLOAD.unpack_from(payload)
        kind_end += _PAYLOAD.size
        key_end = kind_end + key_bytes
        yield what, payload[_PAYLOAD.size : kind_end].decode(), payload[kind_end:key_end].decode(), payload[key_end:]
        position += _FRAME.size + length


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, None when another process does, or its folder went away just now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def size_bytes(folder: Path, role: str) -> int:
    """Size of all journals of a role below ``folder``, those of other processes included."""
    sizes = 0
    for file in folder.glob(f"{role}.*/journal.log"):
        with suppress(OSError):  # its process just closed it
            sizes += file.stat().st_size
    return sizes


def show_size(folder: Path, role: str) -> None:
    """Have this process show how large the journals of a role are."""
    metrics.add_source("journal", lambda: {metrics.JOURNAL_BYTES: {(role,): size_bytes(folder, role)}})


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock for a moment: folders come and go under it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
