"""wasmer: a second engine, which counts and limits nothing itself, so that modules are rewritten to do it.

Runs in Python 3.10 alone, often another interpreter than the application's: this file and all that it imports keep to
the standard library and wasmer. Its own WASI is never used.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wasmer
import wasmer_compiler_cranelift

from offchainvm.engine.binary import FunctionType, read_sections
from offchainvm.engine.confine import HOST_STACK_BYTES, one_heap
from offchainvm.engine.counting import TICK_TYPE, SliceCounter
from offchainvm.engine.hosted import MEMORY, START, bounded, hosted, memory_pages
from offchainvm.engine.limits import WASM_PAGE_BYTES, Limits, ModuleLimits
from offchainvm.engine.machine import TRAP_CODES, EngineFailed, HostFunction, StaleNativeCode, Trapped, Watch, invalid, too_complex
from offchainvm.engine.meter import LEFT, NATIVE_STACK_BYTES, REFUSED, RESERVED, TICK, meter
from offchainvm.engine.operators import has_operator
from offchainvm.engine.wasi import SIGNATURES, WASI_MODULE, BadPointer
from offchainvm.errors import ExecutionError, Status

_TYPES = {"i32": wasmer.Type.I32, "i64": wasmer.Type.I64}
_MASKS = {"i32": (1 << 32) - 1, "i64": (1 << 64) - 1}
# Its code for this operator destroys the operator's second value, which may be needed again.
_SWIZZLE = b"\xfd\x0e"
# Two empty functions: of more than one, its thread compiles them, and so has begun when they are compiled.
_TWO_FUNCTIONS = bytes.fromhex("0061736d01000000 01 04 01600000 03 03 020000 0a 07 02 02000b 02000b")
# The compiler always starts threads of its own; one is enough.
os.environ["RAYON_NUM_THREADS"] = "1"


@functools.cache
def _store() -> wasmer.Store:
    return wasmer.Store(wasmer.engine.Universal(wasmer_compiler_cranelift.Compiler))


def validate(untrusted_wasm: bytes) -> None:
    """The engine's own validation.

    Raises:
        ExecutionError: invalid_module or unsupported_feature.
    """
    if not wasmer.Module.validate(_store(), untrusted_wasm):
        raise invalid(_why_invalid(untrusted_wasm))


def _why_invalid(untrusted_wasm: bytes) -> str:
    """Validation gives no reasons; compilation does, and ends with its validation."""
    try:
        wasmer.Module(_store(), untrusted_wasm)
    except RuntimeError as error:
        return str(error)
    return "wasmer gives no reason"


def in_child(work: Callable[[], None]) -> None:
    """On the stack of a thread: of the first thread's, wasmer looks the bounds up in a file, which a guest's process may not open."""
    one_heap()
    threading.stack_size(NATIVE_STACK_BYTES + HOST_STACK_BYTES)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def prepare_compiler() -> None:
    """Start the compiler's thread, which a process without rights could not; the filter of system calls binds it too."""
    wasmer.Module(_store(), _TWO_FUNCTIONS)


def compile_module(untrusted_wasm: bytes, metering: str) -> bytes:
    """Native code of a checked module, which counts in itself; only ever in a child with limits.

    Raises:
        ExecutionError: unsupported_feature for what it compiles wrongly; module_too_complex, where it has a limit of its own.
    """
    if any(has_operator(untrusted_wasm, *body, _SWIZZLE) for body in read_sections(untrusted_wasm, ModuleLimits()).bodies):
        raise ExecutionError(Status.UNSUPPORTED_FEATURE, "The module uses i8x16.swizzle, which wasmer compiles wrongly.")
    if metering != "injected":
        raise ValueError("wasmer has no meter of its own")
    try:
        return bytes(wasmer.Module(_store(), hosted(meter(bounded(untrusted_wasm)))).serialize())
    except RuntimeError as error:
        raise too_complex(str(error)) from None


def load(path: str, _metering: str) -> wasmer.Module:
    """A module from a file of native code that this worker made itself.

    Raises:
        StaleNativeCode: it is not for this version or processor.
    """
    return _loaded(Path(path).read_bytes())


def load_ours(wasm: bytes, metering: str) -> wasmer.Module:
    """A program from a module of ours; compiled in a child, since the compiler leaves threads behind."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(compile_module(wasm, metering))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        native = pipe.read()
    os.waitpid(child, 0)
    return _loaded(native)


def machine(program: wasmer.Module, limits: Limits, watch: Watch, _metering: str) -> WasmerMachine:
    """An instance of its own for one guest."""
    return WasmerMachine(program, limits, watch)


def _loaded(native: bytes) -> wasmer.Module:
    try:
        return wasmer.Module.deserialize(_store(), native)
    except RuntimeError:
        raise StaleNativeCode from None


class InjectedCounter(SliceCounter):
    """What a metered module counts, in wasmer."""

    left_global: wasmer.Global | None = None
    refused_global: wasmer.Global | None = None

    def held(self) -> int:
        return 0 if self.left_global is None else int(self.left_global.value)

    def hold(self, count: int) -> None:
        if self.left_global is not None:
            self.left_global.value = count

    def refused_pages(self) -> int:
        return 0 if self.refused_global is None else int(self.refused_global.value)


class WasmerMachine:
    """See ``Machine``."""

    def __init__(self, module: wasmer.Module, limits: Limits, watch: Watch) -> None:
        self._module, self._watch = module, watch
        self.counter = InjectedCounter(limits.instructions, watch)
        self._memory: wasmer.Memory | None = None
        self._imports: dict[str, dict[str, Any]] = {
            RESERVED: {TICK: _function(TICK_TYPE, lambda arguments: self.counter.tick(arguments[0]))}
        }
        for item in module.imports:
            if item.module == RESERVED and item.name == MEMORY:
                first, most = memory_pages((item.type.minimum, item.type.maximum), limits.memory_bytes)
                self._memory = wasmer.Memory(_store(), wasmer.MemoryType(first, most, shared=False))
                self._imports[RESERVED][MEMORY] = self._memory
        self._exports: Any = None

    @property
    def memory_bytes(self) -> int:
        return int(self._memory.data_size) if self._memory else 0

    @property
    def refused_bytes(self) -> int:
        return self.counter.refused_pages() * WASM_PAGE_BYTES

    def read(self, pointer: int, size: int) -> bytes:
        return bytes(self._part(pointer, size))

    def write(self, pointer: int, data: bytes) -> None:
        self._part(pointer, len(data))[:] = data

    def grow(self, pages: int) -> None:
        if self._memory is not None:
            with _running():
                self._memory.grow(pages)

    def start(self, functions: Mapping[str, HostFunction]) -> None:
        imports = wasmer.ImportObject()
        offered = {name: _function(SIGNATURES[name], self._noting(SIGNATURES[name], function)) for name, function in functions.items()}
        for module, members in {**self._imports, WASI_MODULE: offered}.items():
            imports.register(module, members)
        with _running():
            self._exports = wasmer.Instance(self._module, imports).exports
        self.counter.left_global, self.counter.refused_global = getattr(self._exports, LEFT), getattr(self._exports, REFUSED)
        if START in [name for name, _ in self._exports]:
            self.call(START)

    def call(self, name: str, *arguments: int, results: int = 0) -> int | None:
        with _running():
            found = getattr(self._exports, name)(*arguments)
        return int(found) if results else None

    def _part(self, pointer: int, size: int) -> memoryview:
        if self._memory is None or pointer < 0 or size < 0 or pointer + size > self.memory_bytes:
            raise BadPointer
        return memoryview(self._memory.buffer)[pointer : pointer + size]

    def _noting(self, signature: FunctionType, function: HostFunction) -> HostFunction:
        masks = [_MASKS[kind] for kind in signature.params]

        def call(arguments: tuple[int, ...]) -> int | None:
            try:
                return function(tuple(value & mask for value, mask in zip(arguments, masks, strict=True)))
            except BaseException as ended:
                self._watch.ended(ended)
                raise

        return call


def _function(signature: FunctionType, function: HostFunction) -> wasmer.Function:
    kind = wasmer.FunctionType([_TYPES[item] for item in signature.params], [_TYPES[item] for item in signature.results])
    return wasmer.Function(_store(), lambda *arguments: function(arguments), kind)


@contextmanager
def _running() -> Iterator[None]:
    """The engine's errors as ours."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0].removeprefix("RuntimeError: ")
        if first in TRAP_CODES:
            raise Trapped(TRAP_CODES[first]) from None
        raise EngineFailed(str(error)) from None
