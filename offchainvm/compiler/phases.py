"""What each phase of a build is granted: its script, its folders, its memory, and whether there is a way out.

Their deadline is what is left of the whole build's when they begin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from offchainvm.compiler.base import BuildRequest
from offchainvm.compiler.folders import FOLDERS
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.network import Network
from offchainvm.compiler.sandbox import Phase

CARGO_HOME = FOLDERS["cargo"]
_TOOLS_MEMORY_MB = 512
"""What git and cargo take besides the files that they handle."""
_SCRATCH = "/tmp"  # noqa: S108 - a folder in the container
_HOMELESS = {"HOME": _SCRATCH, "CARGO_HOME": f"{_SCRATCH}/cargo"}
# The same in every build of every worker: what is embedded in a module must not depend on where it was built.
COMPILE_ENVIRONMENT = {
    "HOME": "/build/home",
    "CARGO_HOME": CARGO_HOME,
    "CARGO_TARGET_DIR": "/build/target",
    "CARGO_INCREMENTAL": "0",
    "CARGO_TERM_COLOR": "never",
    "CARGO_TERM_PROGRESS_WHEN": "never",
    "LC_ALL": "C.UTF-8",
    "SOURCE_DATE_EPOCH": "1",
    "TZ": "UTC",
}


@dataclass(frozen=True)
class Phases:
    """The phases of one build."""

    request: BuildRequest
    network: Network

    def source(self) -> Phase:
        environment = {"URL": self.network.clone_url(self.request.source), "SHA": self.request.commit_sha, **_HOMELESS}
        memory_mb = _TOOLS_MEMORY_MB + 2 * self._limits.source_mb
        files = {"writable": ("src", "out"), "readable": ("conf",), "tmp_mb": self._limits.source_mb}
        phase = self._phase("source", "source.sh", memory_mb, environment, **files)
        # A folder of this host needs no network.
        return self._with_sources(phase, network="" if self.network.mirror_folder else self.network.name)

    def inspect(self, root: str) -> Phase:
        environment = {"LC_ALL": "C.UTF-8", "ROOT": root, **_HOMELESS}
        return self._phase("inspect", "inspect.sh", _TOOLS_MEMORY_MB, environment, writable=("out",), readable=("conf", "src"))

    def lock(self, root: str) -> Phase:
        phase = self._on_dependencies("lock", "lock.sh", root, writable=("cargo", "src"), readable=("conf",))
        return self._with_sources(phase, network=self.network.name)

    def fetch(self, root: str, *, with_git: bool) -> Phase:
        """``with_git``: some of what the lock file names comes from git repositories, for which cargo goes out itself."""
        phase = self._on_dependencies("fetch", "fetch.sh", root, writable=("cargo",), readable=("conf", "src"))
        if with_git:
            return self._with_sources(phase, network=self.network.name)
        return replace(phase, environment={**phase.environment, "CARGO_NET_OFFLINE": "true"})

    def compile(self, name: str, arguments: tuple[str, ...]) -> Phase:
        """The only phase in which strangers' code runs."""
        files = {"writable": ("build",), "readable": ("conf", "src", "cargo")}
        phase = self._phase(name, "compile.sh", self._limits.compile_memory_mb, COMPILE_ENVIRONMENT, **files)
        return replace(phase, arguments=arguments, idle_seconds=self._limits.idle_seconds)

    @property
    def _limits(self) -> BuildLimits:
        return self.request.limits

    def _on_dependencies(self, name: str, script_name: str, root: str, **files: Any) -> Phase:
        environment = {"HOME": _SCRATCH, "CARGO_HOME": CARGO_HOME, "ROOT": root}
        return self._phase(name, script_name, _TOOLS_MEMORY_MB + self._limits.dependencies_mb, environment, **files)

    def _phase(self, name: str, script_name: str, memory_mb: int, environment: dict[str, str], **files: Any) -> Phase:
        limits = self._limits
        return Phase(name, script_name, memory_mb, limits.cpus, limits.processes, limits.timeout_seconds, environment=environment, **files)

    def _with_sources(self, phase: Phase, *, network: str) -> Phase:
        """With the way to repositories and the registry, of which strangers' code must see nothing."""
        return replace(
            phase,
            network=network,
            cut_off=self.network.cut_off if network else (),
            readable=(*phase.readable, "net"),
            environment={**self.network.environment(), **phase.environment},
            mirror_folder=self.network.mirror_folder,
        )
