"""The parent's side: one warm zygote, one child a job, native code from the cache. Never loads an engine itself."""

from __future__ import annotations

import hashlib
import platform
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offchainvm.cancellation import Cancellation
from offchainvm.engine.artifacts import Artifact, Artifacts
from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Executor
from offchainvm.engine.cache import NativeCache
from offchainvm.engine.child import STALE
from offchainvm.engine.component import ENTRY as COMPONENT
from offchainvm.engine.component import is_component
from offchainvm.engine.identity import WASMTIME, find_engine
from offchainvm.engine.limits import MIB, CompileLimits, ModuleLimits
from offchainvm.engine.process import Ending, ZygoteLost, ZygoteProcess
from offchainvm.engine.reply import result_of
from offchainvm.errors import ExecutionError, Status
from offchainvm.logs import get_logger

log = get_logger()
_NATIVE_BYTES_MAX = 512 * MIB
_CRASHES = (signal.SIGSYS, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP)


class Supervisor(Executor):
    """Runs each job in a child of its own.

    The zygote is started at the first job, and again whenever it is gone. Jobs of several threads run one after the other.

    Args:
        cache_folder: folder of native code, shared by all processes of this host and user.
        cache_max_bytes: what is kept there at most.
        metering: who counts instructions: ``injected``, the module itself, or ``native``, the engine's own fuel.
        engine: the engine's name, ``wasmtime`` or ``wasmer``; see ``find_engine``.
        wasmer_python: a Python 3.10 that has wasmer; by default this interpreter.
        components: whether components are run; wasmer runs none.

    Raises:
        SettingsError: an engine or a metering that cannot be used here.
    """

    def __init__(
        self,
        *,
        cache_folder: Path,
        cache_max_bytes: int,
        compile_limits: CompileLimits | None = None,
        metering: str = "injected",
        engine: str = WASMTIME,
        wasmer_python: Path | None = None,
        components: bool = True,
    ) -> None:
        self._components = components
        self._engine = find_engine(engine, metering=metering, wasmer_python=wasmer_python)
        self._cache = NativeCache(cache_folder.expanduser(), max_bytes=cache_max_bytes)
        self._compile_limits = compile_limits or CompileLimits()
        self._artifacts = Artifacts()
        self._zygote: ZygoteProcess | None = None
        self._lock = threading.Lock()

    def execute(self, module: Path, request: ExecutionRequest, *, cancellation: Cancellation | None = None) -> ExecutionResult:
        """Run the module in the file ``module``; see ``Executor.execute``.

        Raises:
            OSError: the file cannot be read.
        """
        untrusted_wasm = module.read_bytes()
        sha256 = hashlib.sha256(untrusted_wasm).hexdigest()
        with self._lock:
            try:
                return self._execute(untrusted_wasm, sha256, request, cancellation or Cancellation())
            except ExecutionError as error:
                return self._failed(error, sha256, request)
            except ZygoteLost as error:
                self._drop_zygote()
                return self._failed(ExecutionError(Status.ENGINE_CRASH, f"The engine's process was lost: {error}."), sha256, request)

    def close(self) -> None:
        with self._lock:
            self._drop_zygote()
            self._artifacts.close()

    def _execute(self, untrusted_wasm: bytes, sha256: str, request: ExecutionRequest, cancellation: Cancellation) -> ExecutionResult:
        component = is_component(untrusted_wasm)
        if component:
            self._check_components()
        zygote = self._running_zygote()
        key = self._key(sha256)
        artifact = self._artifact(key)
        compile_ms, cache_hit = 0.0, artifact is not None
        if artifact is None:
            artifact, compile_ms = self._compile(zygote, key, untrusted_wasm, cancellation)
        ending, entry = self._run(zygote, artifact, request, cancellation), _entry(artifact.head, request)
        if ending.head.get("status") == STALE and cache_hit:
            self._artifacts.discard(key)
            self._cache.discard(key)
            artifact, compile_ms = self._compile(zygote, key, untrusted_wasm, cancellation)
            cache_hit, ending = False, self._run(zygote, artifact, request, cancellation)
        about = self._about(sha256, entry=entry, compile_ms=compile_ms, cache_hit=cache_hit)
        if component:
            about["meter_version"] = self._engine.native_meter
        return result_of(ending, request.limits, **about)

    def _check_components(self) -> None:
        if self._engine.name != WASMTIME:
            raise ExecutionError(Status.UNSUPPORTED_FEATURE, f"This is a component, which {self._engine.name} cannot run.")
        if not self._components:
            raise ExecutionError(Status.UNSUPPORTED_FEATURE, "This is a component, and this worker runs none (WASM_COMPONENTS=false).")

    def _failed(self, error: ExecutionError, sha256: str, request: ExecutionRequest) -> ExecutionResult:
        about = self._about(sha256)
        return ExecutionResult(status=error.status, message=error.sentence, limits=request.limits, **about)

    def _about(self, sha256: str, **more: Any) -> dict[str, Any]:
        return {
            "engine": self._engine.name,
            "engine_version": self._engine.version,
            "meter_version": self._engine.meter_version,
            "module_sha256": sha256,
            **more,
        }

    def _running_zygote(self) -> ZygoteProcess:
        if self._zygote is not None and not self._zygote.ours:
            self._drop_zygote()
        if self._zygote is not None and not self._zygote.alive:
            log.warning("The engine's zygote is gone; starting another.", action="restart_zygote")
            self._drop_zygote()
        if self._zygote is None:
            self._zygote = ZygoteProcess(self._engine)
        return self._zygote

    def _drop_zygote(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _key(self, sha256: str) -> str:
        parts = [sha256, platform.machine(), *self._engine.identity]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _artifact(self, key: str) -> Artifact | None:
        artifact = self._artifacts.get(key)
        if artifact is None and (found := self._cache.get(key)) is not None:
            artifact = self._artifacts.put(key, *found)
        return artifact

    def _compile(self, zygote: ZygoteProcess, key: str, untrusted_wasm: bytes, cancellation: Cancellation) -> tuple[Artifact, float]:
        limits = self._compile_limits
        if len(untrusted_wasm) > (most := ModuleLimits().module_bytes):
            raise ExecutionError(Status.MODULE_TOO_COMPLEX, f"The module has {len(untrusted_wasm)} bytes; the limit is {most}.")
        job = {
            "kind": "compile",
            "component": is_component(untrusted_wasm),
            "wall_seconds": limits.wall_seconds,
            "data_bytes": limits.data_bytes,
            "module_bytes": len(untrusted_wasm),
        }
        started = time.monotonic()
        ending = zygote.run(job, {}, untrusted_wasm, descriptors=(), max_bytes=_NATIVE_BYTES_MAX, cancellation=cancellation)
        native = _compiled(ending, limits)
        self._cache.put(key, ending.head, native)
        return self._artifacts.put(key, ending.head, native), (time.monotonic() - started) * 1000

    def _run(self, zygote: ZygoteProcess, artifact: Artifact, request: ExecutionRequest, cancellation: Cancellation) -> Ending:
        limits = request.limits
        if artifact.head["memory_min_bytes"] > limits.memory_bytes:
            needed = artifact.head["memory_min_bytes"]
            raise ExecutionError(
                Status.MEMORY_LIMIT, f"The program needs {needed} bytes of memory at its start; the limit is {limits.memory_bytes}."
            )
        job = {
            "kind": "run",
            "component": artifact.head["entries"][0] == COMPONENT,
            "wall_seconds": limits.wall_seconds,
            "data_bytes": limits.memory_bytes + 3 * len(request.input) + 3 * (limits.output_bytes + limits.stderr_bytes),
            "input_bytes": len(request.input),
        }
        head = {
            **_about_module(artifact.head),
            "entry": _entry(artifact.head, request),
            "environment": dict(request.environment),
            "limits": vars(limits),
        }
        most = limits.output_bytes + limits.stderr_bytes
        return zygote.run(job, head, request.input, descriptors=(artifact.descriptor,), max_bytes=most, cancellation=cancellation)


def _about_module(head: Mapping[str, Any]) -> dict[str, Any]:
    return {name: head[name] for name in ("initialize", "wasi_imports", "memory_min_bytes")}


def _entry(head: Mapping[str, Any], request: ExecutionRequest) -> str:
    entries: list[str] = list(head["entries"])
    if request.entry == "auto":
        return entries[0]
    if request.entry not in entries:
        raise ExecutionError(Status.LINK_ERROR, f"The module has no `{request.entry}` that can be called; it has `{entries[0]}`.")
    return request.entry


def _compiled(ending: Ending, limits: CompileLimits) -> bytes:
    """The native code that a compilation made.

    Raises:
        ExecutionError: cancelled, engine_crash, compile_timeout, compile_resource_limit, or what the module's checks found.
    """
    if ending.cancelled:
        raise ExecutionError(Status.CANCELLED, "The execution was cancelled by this worker while its module was compiled.")
    if ending.killed:
        raise ExecutionError(Status.COMPILE_TIMEOUT, f"The module took longer than {limits.wall_seconds:g} s to compile, the limit.")
    if -ending.exit_code in _CRASHES:
        raise ExecutionError(Status.ENGINE_CRASH, f"The compiler's process crashed (signal {-ending.exit_code}).")
    if ending.exit_code != 0 or not ending.head:
        most = limits.data_bytes // MIB
        raise ExecutionError(Status.COMPILE_RESOURCE_LIMIT, f"Compiling the module took more than {most} MiB, or ended the compiler.")
    status = Status(ending.head["status"])
    if status is not Status.OK:
        raise ExecutionError(status, str(ending.head.get("message", ""))[:500])
    return ending.blobs[0]
