"""The builder of a compile worker: a sandbox for each build, and what lies around it."""

from __future__ import annotations

import contextlib
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offchainvm import authorities
from offchainvm.cancellation import Cancellation
from offchainvm.compiler import crates, engine, image, reaper, sandbox
from offchainvm.compiler.base import Builder, BuildEvent, BuildRequest, BuiltModule, OnEvent, ignore_event
from offchainvm.compiler.crates import CrateCache, Registry
from offchainvm.compiler.network import Network
from offchainvm.compiler.records import FOLDER, Records
from offchainvm.compiler.run import BuildRun, Verify
from offchainvm.compiler.source import source_key
from offchainvm.errors import BuildError, Cancelled
from offchainvm.logs import get_logger
from offchainvm.settings import Settings

if TYPE_CHECKING:
    from docker.client import DockerClient

log = get_logger()


class SandboxBuilder(Builder):
    """Builds in containers of a Docker engine. Safe to share between threads.

    Args:
        image: the builder image; ``make builder-image`` makes it.
        base_image: what it should have been made on, e.g. DOCKER_IMAGE; empty = anything.
        state_dir: where its layers were recorded, and where the logs of builds are kept.
        owner: name in the labels of containers and volumes, e.g. WORKER_ID.
        runtime: container runtime, e.g. ``runsc``; empty = the engine's default.
        mirror_url: base that replaces GitHub, for the repository and its git dependencies.
        crates_mirror_url: sparse index that replaces that of the Rust package registry.
        crate_cache_mb: most MiB of crate files that are kept in ``state_dir`` for later builds.
        network: the engine's network that the networked phases join.
        ca_bundle: file of certificate authorities that the networked phases trust besides those of this host.
        verify: ``warn`` and ``require`` build everything twice; ``require`` refuses what comes out differently.
    """

    def __init__(
        self,
        *,
        image: str,
        state_dir: Path,
        owner: str,
        base_image: str = "",
        runtime: str = "",
        mirror_url: str = "",
        crates_mirror_url: str = "",
        crate_cache_mb: int = 1024,
        network: str = "bridge",
        ca_bundle: Path | None = None,
        verify: Verify = "off",
    ) -> None:
        self._image, self._base_image = image, base_image
        self._state_dir = state_dir
        self._owner = owner
        self._runtime = runtime
        self._network = Network(mirror_url.rstrip("/"), crates_mirror_url, authorities.pem(ca_bundle), network)
        cache = CrateCache(state_dir.expanduser() / crates.FOLDER, max_bytes=crate_cache_mb * 2**20)
        self._registry = Registry(crates_mirror_url, cache=cache, ca_bundle=ca_bundle)
        self._verify: Verify = verify
        self._client: DockerClient | None = None
        self._records = Records(state_dir.expanduser() / FOLDER)
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> SandboxBuilder:
        """The builder of a compile worker."""
        return cls(
            image=settings.builder_image,
            base_image=settings.docker_image,
            state_dir=settings.state_dir,
            owner=settings.node_name,
            runtime=settings.docker_runtime,
            mirror_url=settings.source_mirror_url,
            crates_mirror_url=settings.crates_mirror_url,
            crate_cache_mb=settings.crate_cache_max_mb,
            network=settings.build_network,
            ca_bundle=settings.ca_bundle,
            verify=settings.verify_builds,
        )

    def build(self, request: BuildRequest, *, on_event: OnEvent = ignore_event, cancellation: Cancellation | None = None) -> BuiltModule:
        client = self._connected()
        checked, machine = self._check_image(client), engine.find_machine(client, self._runtime)
        # The engine takes no container that wants more processors than there are.
        limits = replace(request.limits, cpus=min(request.limits.cpus, machine.cpus))
        request = replace(request, limits=limits)
        build_id = uuid.uuid4().hex[:16]
        place = sandbox.Sandbox(
            client,
            build_id=build_id,
            image=checked.id,
            owner=self._owner,
            runtime=self._runtime,
            own_kernel=machine.own_kernel,
            timeout_seconds=limits.timeout_seconds,
            volumes_mb=limits.volumes_mb,
            log_bytes=limits.log_bytes,
            cancellation=cancellation,
        )
        run = BuildRun(place, request, build_id, checked.record, self._network, self._registry, self._verify, on_event)
        try:
            with place:
                built = run.module()
        except BuildError as error:
            self._keep(run, outcome=error.code, last_words=f"{error.log_tail}\n{error.text}".strip())
            raise
        except Cancelled as error:
            self._keep(run, outcome=error.code, last_words=error.sentence)
            raise
        return replace(built, log_path=self._keep(run, outcome=built.sha256, provenance=built.provenance))

    def look(self) -> str:
        """Look at what every build needs; what it builds with, in words.

        Raises:
            Unavailable: the engine or the builder image is missing (service ``docker``).
            ImageMismatch: the image is not the one to build in.
        """
        with contextlib.closing(engine.connect()) as client:
            runtime = engine.find_machine(client, self._runtime).runtime
            network = engine.check_network(client, self._network.name)
            record = self._check_image(client).record
        return f"{self._image}, {record.summary}, in runtime {runtime}, through network {network}"

    def check(self) -> None:
        """As ``look``, and remove what builds of earlier days left behind."""
        log.info("Builds can run.", action="check_builds", builds_with=self.look())
        with contextlib.closing(engine.connect()) as client:
            reaper.reap(client)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _check_image(self, client: DockerClient) -> image.CheckedImage:
        return image.check_image(client, self._image, state_dir=self._state_dir, base_image=self._base_image)

    def _keep(self, run: BuildRun, *, outcome: str, last_words: str = "", provenance: dict[str, Any] | None = None) -> Path | None:
        """Store the log, and say where it is. What a failure said last is read again after the end: following may lose it."""
        source = run.request.source
        key = source_key(source.repo, run.request.commit_sha, source.target)
        text = run.log.text() + (f"--- how it ended ---\n{last_words}\n" if last_words else "")
        path = self._records.write(f"{key}.{run.build_id}", text=text, provenance=provenance)
        if path is not None:
            run.on_event(BuildEvent("record", f"The log is kept in {path}"))
            log.info("The log of a build is kept.", action="keep_build_log", source_key=key, outcome=outcome, path=str(path))
        return path

    def _connected(self) -> DockerClient:
        with self._lock:
            if self._client is None:
                self._client = engine.connect()
            return self._client
