"""Crates of the registry as files: fetched by the worker as mere bytes, accepted by their checksum alone, kept for later builds.

Cargo is not asked to download: it would query the registry's index for each crate, however many of the files are known,
and its folders would have to be shared between tenants. Here every build gets copies of its own, and each file is
hashed whenever it is read, so a file that was tampered with is not used by anybody.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

import requests
from urllib3.exceptions import HTTPError

from offchainvm import disk
from offchainvm.authorities import TlsAdapter, tls_context
from offchainvm.cancellation import Cancellation
from offchainvm.compiler.dependencies import CRATES_IO
from offchainvm.compiler.git import not_trusted
from offchainvm.compiler.lockfile import Crate
from offchainvm.errors import BuildCode, BuildError, Cancelled
from offchainvm.logs import get_logger

log = get_logger()
FOLDER = "crates"
# The registry's sparse index stands at the name that its identifier in every Cargo.lock bears.
INDEX = f"https://index.{CRATES_IO.rpartition('/')[2].removesuffix('-index')}/"
_AT_ONCE = 8
_SILENCE_SECONDS = 30.0
_PAUSES_SECONDS = (0.2, 1.0)
"""Between one try and the next."""
_LOOK_SECONDS = 0.2
_CONFIG_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
# Storage behind a registry says "forbidden" of what it does not have.
_ABSENT = {403, 404, 410, 451}
_PASSING = {429, 500, 502, 503, 504}
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Allowance:
    """What one build may fetch."""

    bytes: int
    deadline: float
    """Of ``time.monotonic``."""
    cancellation: Cancellation = field(default_factory=Cancellation)

    @property
    def left_seconds(self) -> float:
        return self.deadline - time.monotonic()

    def check(self) -> None:
        """Nothing, as long as the build may go on.

        Raises:
            BuildError: ``timeout``.
            Cancelled: the build is not wanted any more.
        """
        if self.cancellation.cancelled:
            raise Cancelled("The build was ended while its crates were fetched.")
        if self.left_seconds <= 0:
            raise BuildError(BuildCode.TIMEOUT, "The build did not end in its time; it was fetching crates.")


class CrateCache:
    """Crate files by their SHA-256, at most ``max_bytes`` of them. Several processes may share the folder.

    A disk that takes nothing costs time, never a build.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def get(self, sha256: str) -> bytes | None:
        """The bytes with this SHA-256; other bytes under its name are removed, not returned."""
        path = self._folder / sha256
        try:
            untrusted_data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(untrusted_data).hexdigest() == sha256:
            disk.mark_used(path)
            return untrusted_data
        log.error("A crate on this disk did not have its own bytes any more.", action="drop_cached_crate", sha256=sha256)
        path.unlink(missing_ok=True)
        return None

    def put(self, crate: Crate, data: bytes) -> None:
        """Keep the bytes of a crate, whose checksum was compared."""
        if len(data) > self._max_bytes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk.write_atomically(self._folder / crate.sha256, data)
            # With what killed writers left half written.
            disk.make_room(self._folder.iterdir(), max_bytes=self._max_bytes)
        except OSError as error:
            log.warning("A crate could not be kept.", action="keep_crate", path=str(self._folder), error=str(error))


class Registry:
    """The Rust package registry, or a mirror of it. Safe to share between threads.

    Args:
        index_url: its sparse index; a login may stand in it.
        ca_bundle: file of certificate authorities to trust besides those of this host. Proxies come from the environment.
    """

    def __init__(self, index_url: str, *, cache: CrateCache, ca_bundle: Path | None = None) -> None:
        self._index_url = f"{(index_url or INDEX).removeprefix('sparse+').rstrip('/')}/"
        self._cache = cache
        self._tls = tls_context(ca_bundle)

    def fetch(self, crates: Sequence[Crate], allowance: Allowance) -> Iterator[tuple[Crate, bytes]]:
        """The files of ``crates`` in their order, a few downloaded at once.

        Raises:
            BuildError: ``dependency_not_found`` (absent, or other bytes than the lock file says), ``fetch_network``,
                ``disk_full`` (over the allowance), ``timeout``.
            Cancelled: at the wish of the allowance's ``cancellation``.
        """
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="crates")
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, TlsAdapter(self._tls, pool_maxsize=_AT_ONCE))
            download = _Download(session, self._index_url, self._cache, allowance)
            try:
                # In handfuls: a lock file may name hundreds, and their bytes are held until they are taken.
                for start in range(0, len(crates), _AT_ONCE):
                    yield from download.handful(crates[start : start + _AT_ONCE], pool)
            finally:
                # Nobody waits for a registry that hangs: its threads end by themselves when they next look up.
                download.ended.set()
                pool.shutdown(wait=False, cancel_futures=True)


class _Again(Exception):
    """A fault that may pass."""


class _Download:
    """The downloads of one build, within one allowance."""

    def __init__(self, session: requests.Session, index_url: str, cache: CrateCache, allowance: Allowance) -> None:
        self._session, self._index_url, self._cache, self._allowance = session, index_url, cache, allowance
        self._left_bytes = allowance.bytes
        self._bytes_lock = Lock()
        self._template = ""
        self.ended = Event()

    def handful(self, crates: Sequence[Crate], pool: ThreadPoolExecutor) -> Iterator[tuple[Crate, bytes]]:
        """Some crates in their order, those that are not known downloaded at once."""
        known = {crate: data for crate in crates if (data := self._cache.get(crate.sha256)) is not None}
        if len(known) < len(crates) and not self._template:
            self._template = self._awaited(pool.submit(self._read_template))
        under_way = {crate: pool.submit(self._crate, crate) for crate in crates if crate not in known}
        for crate in crates:
            if crate in known:
                self._take(len(known[crate]))
            yield crate, known[crate] if crate in known else self._awaited(under_way[crate])

    def _awaited(self, future: Future[_Result]) -> _Result:
        while not wait([future], timeout=_LOOK_SECONDS).done:
            self._allowance.check()
        return future.result()

    def _crate(self, crate: Crate) -> bytes:
        untrusted_data = self._get(self._address(crate), f"the crate {crate}", may_be_absent=True)
        if hashlib.sha256(untrusted_data).hexdigest() != crate.sha256:
            remedy = "Make Cargo.lock anew from the Rust package registry; if that changes nothing, the registry's file was replaced."
            raise _not_found(f"The registry's file of {crate} is not the one that Cargo.lock names by its checksum.", remedy)
        self._cache.put(crate, untrusted_data)
        return untrusted_data

    def _address(self, crate: Crate) -> str:
        """By the registry's own template, as Cargo's book describes the ``dl`` field of an index."""
        if "{" not in self._template:
            return f"{self._template.rstrip('/')}/{crate.name}/{crate.version}/download"
        prefix = index_folder(crate.name)
        markers = {"crate": crate.name, "version": crate.version, "prefix": prefix, "lowerprefix": prefix.lower()}
        address = self._template.replace("{sha256-checksum}", crate.sha256)
        for marker, value in markers.items():
            address = address.replace(f"{{{marker}}}", value)
        return address

    def _read_template(self) -> str:
        untrusted_config = self._get(f"{self._index_url}config.json", "config.json", limit_bytes=_CONFIG_BYTES)
        try:
            template = json.loads(untrusted_config)["dl"]
        except (ValueError, TypeError, KeyError):
            template = None
        if not isinstance(template, str) or not template.startswith(("http://", "https://")):
            raise _network("its config.json names no address of downloads")
        return template

    def _get(self, url: str, what: str, *, limit_bytes: int | None = None, may_be_absent: bool = False) -> bytes:
        pauses = [*_PAUSES_SECONDS]
        while True:
            self._check()
            try:
                return self._read(url, what, limit_bytes=limit_bytes, may_be_absent=may_be_absent)
            except _Again as error:
                if not pauses:
                    raise _network(str(error)) from error
                self.ended.wait(pauses.pop(0))

    def _read(self, url: str, what: str, *, limit_bytes: int | None, may_be_absent: bool) -> bytes:
        headers = {"Accept-Encoding": "identity", "User-Agent": "offchainvm"}
        body = bytearray()
        try:
            timeout = max(0.1, min(_SILENCE_SECONDS, self._allowance.left_seconds))
            with self._session.get(url, headers=headers, stream=True, timeout=timeout) as response:
                _check_status(response.status_code, what, may_be_absent=may_be_absent)
                # One read returns what is there: a registry that drips cannot outlast the deadline.
                while chunk := response.raw.read1(_CHUNK_BYTES):
                    self._check()
                    self._take(len(chunk))
                    body += chunk
                    if limit_bytes is not None and len(body) > limit_bytes:
                        raise _network(f"{what} is over {limit_bytes} bytes")
        except requests.exceptions.SSLError as error:
            # The whole text would hold the address.
            reason = getattr(error.args[0], "reason", "") if error.args else ""
            raise not_trusted("the registry of crates", log_tail=str(reason)) from error
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _Again(f"{what} could not be read ({type(error).__name__})") from error
        return bytes(body)

    def _take(self, size: int) -> None:
        with self._bytes_lock:
            self._left_bytes -= size
            if self._left_bytes < 0:
                raise BuildError(BuildCode.DISK_FULL, f"The crates that Cargo.lock names have more than {self._allowance.bytes >> 20} MiB.")

    def _check(self) -> None:
        self._allowance.check()
        if self.ended.is_set():
            raise Cancelled("Nobody waits for this crate any more.")


def _check_status(status: int, what: str, *, may_be_absent: bool) -> None:
    if may_be_absent and status in _ABSENT:
        raise _not_found(f"The registry does not have {what} ({status}).")
    if status in _PASSING:
        raise _Again(f"it answered {status} for {what}")
    if status != 200:
        raise _network(f"it answered {status} for {what}")


def index_folder(name: str) -> str:
    """The folder of a crate in an index, by the length of its name (Cargo's book, "Index files")."""
    return {1: "1", 2: "2", 3: f"3/{name[0]}"}.get(len(name), f"{name[:2]}/{name[2:4]}")


def _not_found(sentence: str, remedy: str = "") -> BuildError:
    return BuildError(BuildCode.DEPENDENCY_NOT_FOUND, sentence, remedy=remedy)


def _network(reason: str) -> BuildError:
    # Without the address: a login may stand in it.
    return BuildError(BuildCode.FETCH_NETWORK, f"The registry of crates gives no answer that can be used: {reason}.")
