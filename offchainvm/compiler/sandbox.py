"""One build's containers: who may see what, with how much, and until when.

The files of a build live in memory-backed volumes with quotas of bytes and inodes. A small holder container keeps
them mounted from phase to phase, and the worker reads results from the holder, never from a container in which
strangers' code may still run. Nothing is ever attached to: an unread stream would make the engine hang.

Four independent deadlines: the worker's own, ``timeout`` inside the container, the processor-time limit of its
processes, and the reaper, which removes whatever is past the deadline in its label.
"""

from __future__ import annotations

import base64
import io
import json
import math
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib import resources
from typing import IO, TYPE_CHECKING, Any

import docker.errors
import requests
from docker.types import LogConfig, Mount, Ulimit

from offchainvm.cancellation import Cancellation
from offchainvm.compiler import archive, engine, logtext, reaper
from offchainvm.compiler.folders import FOLDERS
from offchainvm.compiler.follower import Follower, OnLine, wait
from offchainvm.errors import Cancelled, Unavailable
from offchainvm.logs import get_logger

if TYPE_CHECKING:
    from docker.client import DockerClient
    from docker.models.containers import Container

log = get_logger()
UID = 10001
_GRACE_SECONDS = 60
_TAIL_LINES, _TAIL_LINES_UNFOLLOWED = 400, 5000
# gVisor takes some 8 threads of the host for each process in it, and 70 for itself: its own kernel's limit must bite first.
_THREADS_OF_GVISOR = 16
_KILLED = 137
# Bits of Go's os.FileMode that say: not a regular file.
_NOT_REGULAR = (1 << 31) | (1 << 27) | (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19)


@dataclass(frozen=True)
class Phase:
    """One container run. What is not granted here is not there."""

    name: str
    script: str
    memory_mb: int
    cpus: float
    processes: int
    timeout_seconds: float
    idle_seconds: float = math.inf
    network: str = ""
    """The engine's network to join; empty = none at all."""
    cut_off: tuple[str, ...] = ()
    """Names of hosts that lead nowhere."""
    writable: tuple[str, ...] = ()
    """Volumes mounted for writing."""
    readable: tuple[str, ...] = ()
    """Volumes mounted read-only."""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mirror_folder: str = ""
    """Host folder mounted read-only at /mirror; empty = none."""
    tmp_mb: int = 256

    @property
    def inner_seconds(self) -> int:
        """Deadline of ``timeout`` in the container: a little later than the worker's, for when the worker is gone."""
        return math.ceil(self.timeout_seconds) + 10

    @property
    def processor_seconds(self) -> int:
        """Processor time of each process: what computes without end is ended by the kernel."""
        return math.ceil(self.timeout_seconds * max(self.cpus, 1)) + _GRACE_SECONDS


@dataclass(frozen=True)
class PhaseResult:
    """How a container ended."""

    exit_code: int
    out_of_memory: bool
    log_tail: str
    stopped: str = ""
    """``timeout`` or ``no_output`` when it had to be ended, by whichever of the deadlines."""
    unfollowed: tuple[str, ...] = ()
    """The last lines of the log where it was not followed to its end; some of them may have been shown."""


class Sandbox:
    """The volumes and containers of one build; leaving the context removes all of them."""

    def __init__(
        self,
        client: DockerClient,
        *,
        build_id: str,
        image: str,
        owner: str,
        runtime: str,
        timeout_seconds: float,
        volumes_mb: Mapping[str, int],
        log_bytes: int,
        cancellation: Cancellation | None = None,
        own_kernel: bool = False,
    ) -> None:
        self._client = client
        self._build_id = build_id
        self._image = image
        self._runtime, self._own_kernel = runtime, own_kernel
        self._volumes_mb = dict(volumes_mb)
        self._log_bytes = log_bytes
        self.cancellation = cancellation or Cancellation()
        self._lifetime_seconds = math.ceil(timeout_seconds) + _GRACE_SECONDS
        self.labels = reaper.labels(owner, build_id, lifetime_seconds=self._lifetime_seconds)
        self._holder: Container | None = None

    def __enter__(self) -> Sandbox:
        try:
            with engine.translated():
                for name, size_mb in self._volumes_mb.items():
                    self._client.volumes.create(self.volume(name), driver="local", driver_opts=volume_options(size_mb), labels=self.labels)
                self._holder = self._create(self._holding(), ["sleep", str(self._lifetime_seconds)])
                self._holder.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _holding(self) -> Phase:
        """The holder outlives no build: it ends by itself a little after the deadline. In gVisor its `sleep` needs some 80 threads."""
        volumes = tuple(self._volumes_mb)
        return Phase("holder", "", memory_mb=64, cpus=0.5, processes=128, timeout_seconds=self._lifetime_seconds, writable=volumes)

    def volume(self, name: str) -> str:
        """The engine's name of a volume of this build."""
        return f"offchainvm-{self._build_id}-{name}"

    def remove(self) -> None:
        """Remove all containers and volumes of this build; what resists is left to the reaper."""
        try:
            reaper.remove_labelled(self._client, f"{reaper.LABEL_BUILD}={self._build_id}")
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            log.warning("A build's containers could not be removed; the reaper will.", action="sandbox_left", build=self._build_id)

    def put_files(self, folder: str, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files into a volume's folder, readable for all and writable for none.

        Raises:
            Cancelled: between two of them, which may take their time to come.
            Unavailable: this host has no room for them.
        """
        with _temporary_file() as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                for name, content in files:
                    self._stop_if_unwanted("while its files were fetched")
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o444
                    tar.addfile(entry, io.BytesIO(content))
            packed.seek(0)
            with engine.translated():
                self._the_holder().put_archive(folder, packed)

    def read_file(self, path: str, *, limit_bytes: int) -> bytes | None:
        """The content of a regular file, None where there is nothing at ``path``.

        Raises:
            NotRegular: a folder, link, device or pipe. TooBig: more than ``limit_bytes``, whose content is not read.
        """
        with engine.translated():
            head = self._client.api.head(self._archive_url(), params={"path": path}, timeout=engine.API_TIMEOUT_SECONDS)
            if head.status_code == 404:
                return None
            head.raise_for_status()
            untrusted_stat = json.loads(base64.b64decode(head.headers["X-Docker-Container-Path-Stat"]))
            if untrusted_stat["mode"] & _NOT_REGULAR:
                raise archive.NotRegular(path)
            if untrusted_stat["size"] > limit_bytes:
                raise archive.TooBig(untrusted_stat["size"], limit_bytes)
            with self._archive(path) as untrusted_tar:
                return archive.only_file(untrusted_tar, limit_bytes)

    def read_folder(self, path: str, *, limit_bytes: int) -> dict[str, bytes]:
        """The content of every file in a folder, by their names: one look, since each starts a process of the engine.

        Raises:
            NotRegular: there is something else in it. TooBig: the files are more than ``limit_bytes`` together.
        """
        with engine.translated(), self._archive(path) as untrusted_tar:
            return archive.files(untrusted_tar, limit_bytes)

    @contextmanager
    def _archive(self, path: str) -> Iterator[tarfile.TarFile]:
        """What is at ``path``, as the engine packs it."""
        api, seconds, plain = self._client.api, engine.API_TIMEOUT_SECONDS, {"Accept-Encoding": "identity"}
        with api.get(self._archive_url(), params={"path": path}, headers=plain, stream=True, timeout=seconds) as response:
            response.raise_for_status()
            with archive.unpacked(response.raw) as untrusted_tar:
                yield untrusted_tar

    def _archive_url(self) -> str:
        api = self._client.api
        return f"{api.base_url}/v{api.api_version}/containers/{self._the_holder().id}/archive"

    def run(self, phase: Phase, on_line: OnLine) -> PhaseResult:
        """Run one phase to its end, whatever that is; its container is gone afterwards.

        Raises:
            Unavailable, BuildError (``sandbox_error``): the engine's failures only.
            Cancelled: the build is not wanted any more.
        """
        deadline = time.monotonic() + phase.timeout_seconds
        with engine.translated():
            container = self._create(phase, command(phase, read_script(phase.script)))
            try:
                result = self._watch(container, phase, on_line, deadline)
            except docker.errors.NotFound:
                # Too late, so that the reaper has removed it while this process was frozen.
                if time.monotonic() < deadline:
                    raise
                result = PhaseResult(_KILLED, out_of_memory=False, log_tail="", stopped="timeout")
            finally:
                # What resists is removed with the whole sandbox: it must not cost the result.
                reaper.gone(partial(container.remove, force=True, v=True))
        self._stop_if_unwanted(f"in its phase {phase.name}")
        return result

    def _watch(self, container: Container, phase: Phase, on_line: OnLine, deadline: float) -> PhaseResult:
        container.start()
        with self.cancellation.stopping(lambda: _kill(container)), Follower(container, on_line) as follower:
            stopped = wait(container, deadline, phase.idle_seconds, follower)
            if stopped:
                _kill(container)
        state = self._client.api.inspect_container(str(container.id))["State"]
        untrusted_tail: bytes = container.logs(tail=_TAIL_LINES)
        more: bytes = b"" if follower.saw(untrusted_tail) else container.logs(tail=_TAIL_LINES_UNFOLLOWED)
        if _ran_seconds(state) > phase.timeout_seconds + 1:
            stopped = "timeout"
        unfollowed = tuple(logtext.clean_lines(more))
        return PhaseResult(int(state["ExitCode"]), bool(state["OOMKilled"]), logtext.clean_text(untrusted_tail), stopped, unfollowed)

    def _stop_if_unwanted(self, where: str) -> None:
        if self.cancellation.cancelled:
            raise Cancelled(f"The build was ended {where}.")

    def _create(self, phase: Phase, command: list[str]) -> Container:
        mounts = [self._mount(name, read_only=False) for name in phase.writable] + [
            self._mount(name, read_only=True) for name in phase.readable
        ]
        if phase.mirror_folder:
            mounts.append(Mount("/mirror", phase.mirror_folder, type="bind", read_only=True))
        # The holder runs a `sleep` of ours alone: it needs no stronger runtime, and costs less without.
        runtime, own_kernel = (self._runtime, self._own_kernel) if phase.script else ("", False)
        options = container_options(phase, log_bytes=self._log_bytes, runtime=runtime, own_kernel=own_kernel)
        name = f"offchainvm-{self._build_id}-{phase.name}"
        with engine.translated(creating=True):
            return self._client.containers.create(self._image, command, name=name, labels=self.labels, mounts=mounts, **options)

    def _mount(self, name: str, *, read_only: bool) -> Mount:
        return Mount(FOLDERS[name], self.volume(name), type="volume", read_only=read_only, no_copy=True)

    def _the_holder(self) -> Container:
        assert self._holder is not None, "the sandbox is not entered"  # noqa: S101
        return self._holder


def volume_options(size_mb: int) -> dict[str, str]:
    """Options of a memory-backed volume with a quota; one inode for each 4 KiB, and never fewer than 4,096."""
    inodes = max(4096, size_mb * 256)
    return {"type": "tmpfs", "device": "tmpfs", "o": f"size={size_mb}m,nr_inodes={inodes},uid={UID},gid={UID},mode=0755,nosuid,nodev"}


def read_script(name: str) -> str:
    """A file of the folder ``scripts``."""
    return (resources.files("offchainvm.compiler") / "scripts" / name).read_text()


def command(phase: Phase, script: str) -> list[str]:
    """What runs in the container of a phase: its script, and the deadline that needs no worker."""
    return ["timeout", "-s", "KILL", str(phase.inner_seconds), "sh", "-c", script, phase.script, *phase.arguments]


def container_options(phase: Phase, *, log_bytes: int, runtime: str = "", own_kernel: bool = False) -> dict[str, Any]:
    """Every flag of a build container, each with its reason; ``own_kernel``: gVisor's, which counts processes for itself."""
    return {
        "user": f"{UID}:{UID}",  # no root, not even without capabilities
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],  # setuid programs of the image gain nothing
        "read_only": True,  # only the volumes granted below can be written
        "network_mode": phase.network or "none",
        "extra_hosts": dict.fromkeys(phase.cut_off, "127.0.0.1"),
        "ipc_mode": "none",  # no /dev/shm: it would be a second, executable scratch disk
        "hostname": "builder",  # the same everywhere: builds embed it
        "init": True,  # reaps what a build leaves behind
        "mem_limit": phase.memory_mb * 2**20,
        "memswap_limit": phase.memory_mb * 2**20,  # the same number: no swap
        "nano_cpus": int(phase.cpus * 1e9),
        "pids_limit": phase.processes * (_THREADS_OF_GVISOR if own_kernel else 1),  # a fork bomb fails inside
        "ulimits": [
            Ulimit(name="nofile", soft=1024, hard=1024),
            Ulimit(name="core", soft=0, hard=0),
            # The first is a signal by a name of its own, the second cannot be ignored.
            Ulimit(name="cpu", soft=phase.processor_seconds, hard=phase.processor_seconds + 1),
            Ulimit(name="fsize", soft=4 * 2**30, hard=4 * 2**30),
            # Per user and kernel: where builds share a kernel, they would share this limit too.
            *([Ulimit(name="nproc", soft=phase.processes, hard=phase.processes)] if own_kernel else []),
        ],
        "tmpfs": {"/tmp": f"size={phase.tmp_mb}m,nr_inodes=65536,mode=1777,nosuid,nodev,noexec"},  # noqa: S108
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": str(log_bytes), "max-file": "1"}),
        "environment": dict(phase.environment),
        "working_dir": "/",
        "entrypoint": [],
        "detach": True,
        "use_config_proxy": False,  # a proxy's address may hold a password: networked phases get it explicitly
        **({"runtime": runtime} if runtime else {}),
    }


def _ran_seconds(state: Mapping[str, Any]) -> float:
    """How long a container ran by the engine's clock, less than a second wrong: that clock goes on where this process is frozen."""
    started, finished = (datetime.fromisoformat(state[name][:19]) for name in ("StartedAt", "FinishedAt"))
    return (finished - started).total_seconds()


def _kill(container: Container) -> None:
    """Ask for the end; what a loaded engine refuses here, the forced removal does."""
    try:
        container.kill()
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        log.debug("The engine did not kill it.", action="kill_failed", error=str(error))


@contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    try:
        with tempfile.TemporaryFile(prefix="offchainvm-put-") as file:
            yield file
    except OSError as error:
        sentence = f"The files of a build cannot be laid down in {tempfile.gettempdir()}: {error.strerror}."
        raise Unavailable("disk", sentence, remedy="Make room there, or name another folder by TMPDIR.") from error
