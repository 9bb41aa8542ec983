"""Ties the phases of a sandboxed build together: source, inspect, fetch, compile, check."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from offchainvm.compiler import artifact, engine, failures, git, image, project, provenance, sandbox
from offchainvm.compiler.base import Builder, BuildEvent, BuildRequest, BuiltModule, OnEvent, ignore_event
from offchainvm.compiler.source import clone_url
from offchainvm.errors import BuildCode, BuildError, SettingsError
from offchainvm.logs import get_logger
from offchainvm.settings import Settings

if TYPE_CHECKING:
    from docker.client import DockerClient

log = get_logger()
REAP_SECONDS = 600.0
_METADATA_BYTES = 32 * 1024 * 1024
_LOCKFILE_BYTES = 4 * 1024 * 1024
_SMALL_BYTES = 64 * 1024
_NETWORK_MEMORY_MB = 512
_SCRATCH = "/tmp"  # noqa: S108 - a folder in the container
# The same in every build of every worker: what is embedded in a module must not depend on where it was built.
COMPILE_ENVIRONMENT = {
    "HOME": "/build/home",
    "CARGO_HOME": "/cargo",
    "CARGO_TARGET_DIR": "/build/target",
    "CARGO_INCREMENTAL": "0",
    "CARGO_TERM_COLOR": "never",
    "CARGO_TERM_PROGRESS_WHEN": "never",
    "LC_ALL": "C.UTF-8",
    "SOURCE_DATE_EPOCH": "1",
    "TZ": "UTC",
}


class SandboxBuilder(Builder):
    """Builds in containers of a Docker engine. Safe to share between threads.

    Args:
        image: the builder image; ``make builder-image`` makes it.
        state_dir: where its layers were recorded.
        owner: name in the labels of containers and volumes, e.g. WORKER_ID.
        runtime: container runtime, e.g. ``runsc``; empty = the engine's default.
        mirror_url: base that replaces GitHub, for the repository and its git dependencies.
        ca_bundle: certificate authorities for the networked phases; None = those that this host trusts.
    """

    def __init__(
        self, *, image: str, state_dir: Path, owner: str, runtime: str = "", mirror_url: str = "", ca_bundle: Path | None = None
    ) -> None:
        self._image = image
        self._state_dir = state_dir
        self._owner = owner
        self._runtime = runtime
        self._mirror_url = mirror_url.rstrip("/")
        self._ca_bundle = ca_bundle
        self._client: DockerClient | None = None
        self._lock = threading.Lock()
        self._reaped_at = -REAP_SECONDS

    @classmethod
    def from_settings(cls, settings: Settings) -> SandboxBuilder:
        """The builder of a compile worker.

        Raises:
            SettingsError: what this version cannot do.
        """
        if settings.verify_builds != "off":
            raise SettingsError(["VERIFY_BUILDS: building twice is not built into this version. Set VERIFY_BUILDS=off."])
        return cls(
            image=settings.builder_image,
            state_dir=settings.state_dir,
            owner=settings.node_name,
            runtime=settings.docker_runtime,
            mirror_url=settings.source_mirror_url,
            ca_bundle=settings.ca_bundle,
        )

    def build(self, request: BuildRequest, *, on_event: OnEvent = ignore_event) -> BuiltModule:
        client = self._connected()
        self._reap_now_and_then(client)
        record = image.check_image(client, self._image, state_dir=self._state_dir)
        limits = request.limits
        place = sandbox.Sandbox(
            client,
            build_id=uuid.uuid4().hex[:16],
            image=self._image,
            owner=self._owner,
            runtime=self._runtime,
            timeout_seconds=limits.timeout_seconds,
            volumes_mb={"conf": 8, "src": limits.source_mb, "cargo": limits.dependencies_mb, "out": 64, "build": limits.disk_mb},
            log_bytes=limits.log_bytes,
        )
        with place:
            return _Run(place, request, record, self._mirror_url, self._ca_bundle, on_event).module()

    def check(self) -> None:
        """Look at what every build needs, and remove what builds of earlier days left behind.

        Raises:
            Unavailable: the engine or the builder image is missing (service ``docker``).
            BuildError: ``image_mismatch``.
        """
        with contextlib.closing(engine.connect()) as client:
            image.check_image(client, self._image, state_dir=self._state_dir)
            sandbox.reap(client)

    def reap(self, *, everything_of_owner: bool = False) -> int:
        """Remove what earlier builds left behind; see ``sandbox.reap``."""
        return sandbox.reap(self._connected(), owner=self._owner if everything_of_owner else "")

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _reap_now_and_then(self, client: DockerClient) -> None:
        with self._lock:
            due = time.monotonic() - self._reaped_at > REAP_SECONDS
            self._reaped_at = time.monotonic() if due else self._reaped_at
        if due:
            sandbox.reap(client)

    def _connected(self) -> DockerClient:
        with self._lock:
            if self._client is None:
                self._client = engine.connect()
            return self._client


@dataclass
class _Run:
    """One build on its way through the phases."""

    place: sandbox.Sandbox
    request: BuildRequest
    image: image.ImageRecord
    mirror_url: str
    ca_bundle: Path | None
    on_event: OnEvent

    def __post_init__(self) -> None:
        self.started_at = datetime.now(timezone.utc)
        self.started = time.monotonic()
        self.limits = self.request.limits
        self.lines: list[str] = []

    def module(self) -> BuiltModule:
        self.place.put_files(sandbox.FOLDERS["conf"], self._configuration())
        tree = self._source()
        chosen = self._inspect(tree)
        lockfile = self._fetch(tree)
        target = self._image_target()
        arguments = ("--target", target, *chosen.cargo_arguments)
        log_tail = self._compile(arguments)
        wasm = self._check(f"{COMPILE_ENVIRONMENT['CARGO_TARGET_DIR']}/{target}/release/{chosen.file_name}", log_tail)
        sha256 = hashlib.sha256(wasm).hexdigest()
        self._say("check", f"{chosen.file_name}: {len(wasm)} bytes, sha256 {sha256}")
        return BuiltModule(
            wasm=wasm,
            sha256=sha256,
            size=len(wasm),
            seconds=time.monotonic() - self.started,
            log_tail=log_tail,
            provenance=provenance.statement(
                request=self.request,
                project=chosen,
                module_sha256=sha256,
                module_size=len(wasm),
                git_tree=self._result("git-tree").strip(),
                lockfile=lockfile,
                lockfile_sha256=hashlib.sha256(lockfile.encode()).hexdigest(),
                lockfile_made=not tree.has_lockfile,
                image=self.image.image,
                image_layers=self.image.layers,
                toolchain=self._result("rustc").strip(),
                arguments=("cargo", "build", "--offline", "--locked", "--release", *arguments),
                environment=COMPILE_ENVIRONMENT,
                log_sha256=hashlib.sha256("\n".join(self.lines).encode()).hexdigest(),
                started_at=self.started_at,
                finished_at=datetime.now(timezone.utc),
            ),
        )

    def _source(self) -> project.Tree:
        self._say("source", f"{self.request.source.owner}/{self.request.source.name} at {self.request.commit_sha}")
        url, folder = self._clone_url()
        result = self._run(
            "source",
            "source.sh",
            network=not folder,
            mirror_folder=folder,
            writable=("src", "out"),
            readable=("conf",),
            memory_mb=_NETWORK_MEMORY_MB + 2 * self.limits.source_mb,
            environment={
                **self._network_environment(),
                "URL": url,
                "SHA": self.request.commit_sha,
                "HOME": _SCRATCH,
                "CARGO_HOME": f"{_SCRATCH}/cargo",
            },
            tmp_mb=self.limits.source_mb,
        )
        if result.exit_code in {0, 33, 34}:
            # What git's list tells comes first: a tree that is too large, a manifest that is a link.
            tree = project.read_tree(self._bytes("tree"), self.limits)
        if result.exit_code:
            raise failures.of_source(result, self.request)
        if tree.submodules:
            self._say("inspect", "The repository has submodules: they are not fetched.")
        return tree

    def _inspect(self, tree: project.Tree) -> project.Project:
        if not tree.has_lockfile:
            if self.request.require_lockfile:
                raise BuildError(
                    BuildCode.LOCKFILE_MISSING,
                    "The repository has no Cargo.lock.",
                    remedy="Commit the one that `cargo generate-lockfile` makes.",
                )
            self._say("inspect", "There is no Cargo.lock: one is made, and kept in the provenance.")
        else:
            project.check_sources(project.lock_sources(self._lockfile()))
        return project.read_project(self._bytes("metadata.json"), target=self.request.source.rust_target)

    def _fetch(self, tree: project.Tree) -> str:
        self._say("fetch", "The crates that Cargo.lock names")
        mirrored = self.mirror_url.startswith("file://")
        result = self._run(
            "fetch",
            "fetch.sh",
            network=True,
            mirror_folder=urlsplit(self.mirror_url).path if mirrored else "",
            writable=("cargo",) if tree.has_lockfile else ("cargo", "src"),
            readable=("conf", "src") if tree.has_lockfile else ("conf",),
            memory_mb=_NETWORK_MEMORY_MB + self.limits.dependencies_mb,
            environment={**self._network_environment(), "HOME": _SCRATCH, "CARGO_HOME": "/cargo", "TARGET": self._image_target()},
        )
        if result.exit_code:
            raise failures.of_fetch(result)
        lockfile = self._lockfile()
        project.check_sources(project.lock_sources(lockfile))
        return lockfile

    def _compile(self, arguments: tuple[str, ...]) -> str:
        self._say("compile", f"cargo build --release {' '.join(arguments)}")
        result = self._run(
            "compile",
            "compile.sh",
            writable=("build",),
            readable=("conf", "src", "cargo"),
            # Files in memory count too: so that a full disk and no memory stay two different errors.
            memory_mb=self.limits.memory_mb + self.limits.disk_mb,
            arguments=arguments,
            environment=COMPILE_ENVIRONMENT,
            idle_seconds=self.limits.idle_seconds,
        )
        if result.exit_code or result.stopped or result.out_of_memory:
            raise failures.of_compile(result, self.limits)
        return result.log_tail

    def _check(self, path: str, log_tail: str) -> bytes:
        try:
            untrusted_wasm = self.place.read_file(path, limit_bytes=self.limits.module_bytes)
        except sandbox.NotRegular:
            raise BuildError(BuildCode.ARTIFACT_INVALID, "The module that the build left is no regular file.", log_tail=log_tail) from None
        except sandbox.TooBig as error:
            raise artifact.too_large(error.args[0], error.args[1]) from None
        if untrusted_wasm is None:
            raise BuildError(BuildCode.NO_ARTIFACT, f"The build ended well but left no {Path(path).name}.", log_tail=log_tail)
        artifact.check_artifact(untrusted_wasm, limit_bytes=self.limits.module_bytes)
        return untrusted_wasm

    def _run(
        self,
        name: str,
        script: str,
        *,
        memory_mb: int,
        environment: dict[str, str],
        network: bool = False,
        writable: tuple[str, ...] = (),
        readable: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
        mirror_folder: str = "",
        idle_seconds: float = float("inf"),
        tmp_mb: int = 256,
    ) -> sandbox.PhaseResult:
        remaining = self.limits.timeout_seconds - (time.monotonic() - self.started)
        phase = sandbox.Phase(
            name=name,
            script=script,
            memory_mb=memory_mb,
            cpus=self.limits.cpus,
            processes=self.limits.processes,
            timeout_seconds=max(0.1, remaining),
            idle_seconds=idle_seconds,
            network=network,
            writable=writable,
            readable=readable,
            arguments=arguments,
            environment=environment,
            mirror_folder=mirror_folder,
            tmp_mb=tmp_mb,
        )
        return self.place.run(phase, lambda line: self._say(name, line))

    def _clone_url(self) -> tuple[str, str]:
        """Where the clone phase finds the repository, and the host folder that it needs for that."""
        source = self.request.source
        if not self.mirror_url:
            return source.clone_url, ""
        if self.mirror_url.startswith("file://"):
            return clone_url(source.owner, source.name, mirror_url="file:///mirror"), urlsplit(self.mirror_url).path
        return clone_url(source.owner, source.name, mirror_url=self.mirror_url), ""

    def _configuration(self) -> dict[str, bytes]:
        ca_file = git.host_ca_file(self.ca_bundle)
        base = "file:///mirror" if self.mirror_url.startswith("file://") else self.mirror_url or git.GITHUB
        toolchain = Path(__file__).with_name("scripts") / "toolchain.sh"
        files = {"gitconfig": git.git_config(base).encode(), "toolchain.sh": toolchain.read_bytes()}
        return {**files, "ca.crt": ca_file.read_bytes()} if ca_file else files

    def _network_environment(self) -> dict[str, str]:
        """What the phases with a network get, and the build does not: certificates, proxy, rules for git."""
        trust = (
            dict.fromkeys(("CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO", "SSL_CERT_FILE"), "/conf/ca.crt")
            if git.host_ca_file(self.ca_bundle)
            else {}
        )
        return {
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/conf/gitconfig",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
            "CARGO_HTTP_TIMEOUT": "30",
            "CARGO_TERM_COLOR": "never",
            "CARGO_TERM_PROGRESS_WHEN": "never",
            **trust,
            **git.proxy_environment(),
        }

    def _image_target(self) -> str:
        """The target by the name that the image's own toolchain knows."""
        known = self._result("targets").split()
        target = self.request.source.rust_target
        # Toolchains before 1.78 know WASI preview 1 by its old name only.
        return "wasm32-wasi" if target == "wasm32-wasip1" and target not in known else target

    def _lockfile(self) -> str:
        try:
            untrusted_lockfile = self.place.read_file(f"{project.SOURCE_FOLDER}/Cargo.lock", limit_bytes=_LOCKFILE_BYTES)
        except (sandbox.NotRegular, sandbox.TooBig):
            raise BuildError(BuildCode.MANIFEST_INVALID, "Cargo.lock is no regular file, or over 4 MiB.") from None
        return (untrusted_lockfile or b"").decode("utf-8", "replace")

    def _result(self, name: str) -> str:
        return self._bytes(name, limit_bytes=_SMALL_BYTES).decode("utf-8", "replace")

    def _bytes(self, name: str, *, limit_bytes: int = _METADATA_BYTES) -> bytes:
        try:
            return self.place.read_file(f"{sandbox.FOLDERS['out']}/{name}", limit_bytes=limit_bytes) or b""
        except (sandbox.NotRegular, sandbox.TooBig):
            raise BuildError(BuildCode.REPO_TOO_LARGE, "The repository's list of files or packages is too long.") from None

    def _say(self, phase: str, text: str) -> None:
        self.lines.append(text)
        self.on_event(BuildEvent(phase, text))
