"""What compilations gave, by key: native code, or why there is none. Either is found once for all processes of this host."""

from __future__ import annotations

import signal
import time
from dataclasses import asdict
from typing import Any

from offchainvm.engine.artifacts import Artifact, Artifacts
from offchainvm.engine.cache import NativeCache
from offchainvm.engine.limits import MIB, CompileLimits
from offchainvm.engine.module import ModuleInfo
from offchainvm.engine.process import Ending
from offchainvm.engine.reply import Nonsense, died, status_of
from offchainvm.errors import ExecutionError, Status

_AGAIN_SECONDS = 300.0
_FAILS_AGAIN = (Status.INVALID_MODULE, Status.UNSUPPORTED_FEATURE, Status.MODULE_TOO_COMPLEX, Status.LINK_ERROR)
_MAY_FAIL_AGAIN = (Status.COMPILE_TIMEOUT, Status.COMPILE_RESOURCE_LIMIT)
"""A host that is busy or small for a while compiles less."""
_CRASHES = (signal.SIGSYS, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP)


class Compiled:
    """Native code of this process and of the cache behind it; and the failures that would come again."""

    def __init__(self, cache: NativeCache) -> None:
        self._cache, self._artifacts = cache, Artifacts()

    def get(self, key: str) -> Artifact | None:
        """None: nobody has compiled it yet, or it is to be tried again.

        Raises:
            ExecutionError: it does not compile.
        """
        artifact = self._artifacts.get(key)
        if artifact is None and (found := self._cache.get(key)) is not None:
            head, native = found
            if "module" in head:
                return self._artifacts.put(key, ModuleInfo.parse(head["module"]), native)
            if head["until"] is None or time.time() < head["until"]:
                raise ExecutionError(Status(head["status"]), head["message"])
        return artifact

    def put(self, key: str, module: ModuleInfo, native: bytes) -> Artifact:
        self._cache.put(key, {"module": asdict(module)}, native)
        return self._artifacts.put(key, module, native)

    def put_failure(self, key: str, error: ExecutionError) -> None:
        """Remember it for good where the module alone decides, for some minutes where the host does too, else not."""
        if error.status in _FAILS_AGAIN + _MAY_FAIL_AGAIN:
            until = None if error.status in _FAILS_AGAIN else time.time() + _AGAIN_SECONDS
            self._cache.put(key, {"status": error.status.value, "message": error.sentence, "until": until}, b"")

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
