"""What compilations gave, by key: native code, found once for all processes of this host; and why one gave none."""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import Any

from offchainvm.engine.artifacts import Artifact, Artifacts
from offchainvm.engine.cache import NativeCache
from offchainvm.engine.limits import MIB, CompileLimits
from offchainvm.engine.module import ModuleInfo
from offchainvm.engine.process import Ending
from offchainvm.engine.reply import Nonsense, died, status_of
from offchainvm.errors import ExecutionError, Status

_CRASHES = (signal.SIGSYS, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP)


class Compiled:
    """Native code of this process and of the cache behind it."""

    def __init__(self, cache: NativeCache) -> None:
        self._cache, self._artifacts = cache, Artifacts()

    def get(self, key: str) -> Artifact | None:
        """None: nobody has compiled it yet."""
        artifact = self._artifacts.get(key)
        if artifact is None and (found := self._cache.get(key)) is not None:
            head, native = found
            return self._artifacts.put(key, ModuleInfo.parse(head["module"]), native)
        return artifact

    def put(self, key: str, module: ModuleInfo, native: bytes) -> Artifact:
        self._cache.put(key, {"module": asdict(module)}, native)
        return self._artifacts.put(key, module, native)

    def discard(self, key: str) -> None:
        self._artifacts.discard(key)
        self._cache.discard(key)

    def close(self) -> None:
        """Close what is open; the cache stays."""
        self._artifacts.close()


def compiled(ending: Ending, limits: CompileLimits) -> tuple[ModuleInfo, bytes]:
    """What a compilation made.

    Raises:
        ExecutionError: cancelled, engine_crash, compile_timeout, compile_resource_limit, or what the module's checks found.
    """
    if ending.cancelled:
        raise ExecutionError(Status.CANCELLED, "The execution was cancelled by this worker while its module was compiled.")
    if ending.killed:
        raise ExecutionError(Status.COMPILE_TIMEOUT, f"The module took longer than {limits.wall_seconds:g} s to compile, the limit.")
    if ending.nonsense or -ending.exit_code in _CRASHES:
        raise ExecutionError(Status.ENGINE_CRASH, f"The compiler's process {died(ending)}.")
    if ending.exit_code != 0 or not ending.head:
        most = limits.data_bytes // MIB
        raise ExecutionError(Status.COMPILE_RESOURCE_LIMIT, f"Compiling the module took more than {most} MiB, or ended the compiler.")
    try:
        return _from_frame(ending.head, ending.blobs)
    except (Nonsense, ValueError):
        raise ExecutionError(Status.ENGINE_CRASH, "The compiler's process answered with nonsense.") from None


def _from_frame(untrusted: dict[str, Any], blobs: list[bytes]) -> tuple[ModuleInfo, bytes]:
    status, message = status_of(untrusted)
    if status is not Status.OK:
        raise ExecutionError(status, message)
    if len(blobs) != 1 or not isinstance(untrusted.get("module"), dict):
        raise Nonsense
    return ModuleInfo.parse(untrusted["module"]), blobs[0]
