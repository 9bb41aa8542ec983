"""Every limit of one build, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

from offchainvm.settings import Settings


@dataclass(frozen=True)
class BuildLimits:
    """What one build may use; a breach ends it with the code named here."""

    timeout_seconds: int = 300
    """All phases together (``timeout``)."""
    idle_seconds: int = 240
    """Longest silence of the compile phase (``no_output``)."""
    memory_mb: int = 2048
    """Memory of the processes of one phase (``out_of_memory``)."""
    cpus: float = 2.0
    """Processors: more work is slowed down, not ended."""
    disk_mb: int = 2048
    """The target folder, kept in memory (``disk_full``)."""
    source_mb: int = 256
    """The checked-out repository, and its packed history (``repo_too_large``)."""
    source_files: int = 20_000
    """Files of the repository (``repo_too_large``)."""
    dependencies_mb: int = 1024
    """Downloaded and unpacked crates (``disk_full``)."""
    processes: int = 256
    """Processes and threads at once (``too_many_processes``)."""
    log_bytes: int = 1024 * 1024
    """Log kept by the container engine; what is older is dropped, nothing fails."""
    module_bytes: int = 16 * 1024 * 1024
    """The finished module (``artifact_too_large``)."""

    @property
    def compile_memory_mb(self) -> int:
        """What a compile phase may take. Files in memory count too: so that a full disk and no memory stay two errors."""
        return self.memory_mb + self.disk_mb

    @property
    def volumes_mb(self) -> dict[str, int]:
        """The volumes of one build, by their names. Their files lie in memory."""
        return {"conf": 8, "net": 8, "src": self.source_mb, "cargo": self.dependencies_mb, "out": 64, "build": self.disk_mb}

    @property
    def machine_memory_mb(self) -> int:
        """What one build may take of the engine's machine, with all its files."""
        return self.memory_mb + sum(self.volumes_mb.values())

    @classmethod
    def from_settings(cls, settings: Settings) -> BuildLimits:
        """The limits that an operator has set (COMPILE_TIMEOUT_SECONDS, COMPILE_MEMORY_LIMIT_MB, …)."""
        return cls(
            timeout_seconds=settings.compile_timeout_seconds,
            # Who allows more time allows a link that takes it in silence.
            idle_seconds=max(cls.idle_seconds, settings.compile_timeout_seconds * 4 // 5),
            memory_mb=settings.compile_memory_limit_mb,
            cpus=settings.compile_cpu_limit,
            disk_mb=settings.build_disk_mb,
        )
