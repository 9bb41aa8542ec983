"""The parent's side: one warm zygote, one child a job, native code from the cache. Never loads an engine itself."""

from __future__ import annotations

import hashlib
import platform
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from offchainvm.cancellation import Cancellation
from offchainvm.engine.artifacts import Artifact
from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Executor
from offchainvm.engine.cache import NativeCache
from offchainvm.engine.child import STALE
from offchainvm.engine.compiled import Compiled, compiled
from offchainvm.engine.component import is_component
from offchainvm.engine.failures import Failures
from offchainvm.engine.identity import WASMTIME, find_engine
from offchainvm.engine.limits import MIB, CompileLimits, ModuleLimits
from offchainvm.engine.module import ModuleInfo
from offchainvm.engine.process import Ending, ZygoteLost, ZygoteProcess
from offchainvm.engine.reply import result_of
from offchainvm.errors import ExecutionError, Status
from offchainvm.logs import get_logger

log = get_logger()
KILL_GRACE_SECONDS = 0.5
"""Some slices of a guest that waits for memory, and less than a second that would be charged."""
_NATIVE_BYTES_MAX = 512 * MIB


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
        kill_grace_seconds: after the time limit, by which a guest ends by itself and with its exact count, until it is killed.

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
        kill_grace_seconds: float = KILL_GRACE_SECONDS,
    ) -> None:
        self._kill_grace_seconds = kill_grace_seconds
        self._components = components
        self._engine = find_engine(engine, metering=metering, wasmer_python=wasmer_python)
        self._compiled = Compiled(NativeCache(cache_folder.expanduser(), max_bytes=cache_max_bytes))
        self._compile_limits = compile_limits or CompileLimits()
        self._failures = Failures(self._compile_limits)
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
            self._compiled.close()

    def _execute(self, untrusted_wasm: bytes, sha256: str, request: ExecutionRequest, cancellation: Cancellation) -> ExecutionResult:
        if is_component(untrusted_wasm):
            self._check_components()
        key, compile_ms = self._key(sha256), 0.0
        artifact = self._compiled.get(key)
        cache_hit = artifact is not None
        if artifact is None:
            artifact, compile_ms = self._compile(key, untrusted_wasm, cancellation)
        ending = self._run(artifact, request, cancellation)
        if ending.head.get("status") == STALE and cache_hit:
            self._compiled.discard(key)
            artifact, compile_ms = self._compile(key, untrusted_wasm, cancellation)
            cache_hit, ending = False, self._run(artifact, request, cancellation)
        about = self._about(sha256, entry=_entry(artifact.module, request), compile_ms=compile_ms, cache_hit=cache_hit)
        if artifact.module.component:
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

    def _compile(self, key: str, untrusted_wasm: bytes, cancellation: Cancellation) -> tuple[Artifact, float]:
        if len(untrusted_wasm) > (most := ModuleLimits().module_bytes):
            raise ExecutionError(Status.MODULE_TOO_COMPLEX, f"The module has {len(untrusted_wasm)} bytes; the limit is {most}.")
        self._failures.check(key)
        job = {
            "kind": "compile",
            "component": is_component(untrusted_wasm),
            "kill_after_seconds": self._compile_limits.wall_seconds,
            "data_bytes": self._compile_limits.data_bytes,
            "module_bytes": len(untrusted_wasm),
        }
        started, zygote = time.monotonic(), self._running_zygote()
        ending = zygote.run(job, {}, untrusted_wasm, descriptors=(), max_bytes=_NATIVE_BYTES_MAX, cancellation=cancellation)
        try:
            module, native = compiled(ending, self._compile_limits)
        except ExecutionError as error:
            self._failures.put(key, error, ending)
            raise
        return self._compiled.put(key, module, native), (time.monotonic() - started) * 1000

    def _run(self, artifact: Artifact, request: ExecutionRequest, cancellation: Cancellation) -> Ending:
        limits, module = request.limits, artifact.module
        if (needed := module.memory_min_bytes) > limits.memory_bytes:
            raise ExecutionError(
                Status.MEMORY_LIMIT, f"The program needs {needed} bytes of memory at its start; the limit is {limits.memory_bytes}."
            )
        job = {
            "kind": "run",
            "component": module.component,
            "kill_after_seconds": limits.wall_seconds + self._kill_grace_seconds,
            "data_bytes": limits.memory_bytes + 3 * len(request.input) + 3 * (limits.output_bytes + limits.stderr_bytes),
            "input_bytes": len(request.input),
        }
        head = {
            "module": asdict(module),
            "entry": _entry(module, request),
            "environment": dict(request.environment),
            "limits": asdict(limits),
        }
        most, descriptors = limits.output_bytes + limits.stderr_bytes, (artifact.descriptor,)
        return self._running_zygote().run(job, head, request.input, descriptors=descriptors, max_bytes=most, cancellation=cancellation)


def _entry(module: ModuleInfo, request: ExecutionRequest) -> str:
    if request.entry == "auto":
        return module.entry
    if request.entry not in module.entries:
        raise ExecutionError(Status.LINK_ERROR, f"The module has no `{request.entry}` that can be called; it has `{module.entry}`.")
    return request.entry
