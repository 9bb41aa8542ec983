"""One guest in wasmtime: its store, its memory, and either way to count."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import wasmtime
from wasmtime import _ffi as ffi

from offchainvm.engine import hostcalls
from offchainvm.engine.counting import TICK_TYPE, SliceCounter
from offchainvm.engine.fuel import Slices
from offchainvm.engine.limits import TABLE_ELEMENTS_MAX, WASM_PAGE_BYTES, Limits
from offchainvm.engine.machine import Counter, EngineFailed, HostFunction, Trapped, Watch
from offchainvm.engine.meter import LEFT, REFUSED, RESERVED, TICK
from offchainvm.engine.wasi import SIGNATURES, WASI_MODULE, BadPointer, OutOfInstructions

_SIGN, _RANGE = 1 << 63, 1 << 64
# Bound once more: the package's own binding makes a pointer object of each answer, which costs more than the question.
_memory_data = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(("wasmtime_memory_data", ffi.dll))
_memory_size = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)(("wasmtime_memory_data_size", ffi.dll))
_global_get = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(("wasmtime_global_get", ffi.dll))
_global_set = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(("wasmtime_global_set", ffi.dll))


class LinearMemory:
    """A guest's memory, every access checked against its present size."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._context, self._memory = store._context(), ctypes.byref(memory._memory)
        # ``byref`` keeps no reference of its own to the structure.
        self._keep = (store, memory)

    @property
    def size(self) -> int:
        return int(_memory_size(self._context, self._memory))

    def read(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(self._at(pointer, size), size) if size else self._nothing(pointer)

    def write(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(self._at(pointer, len(data)), data, len(data))

    def grow(self, pages: int) -> None:
        store, memory = self._keep
        memory.grow(store, pages)

    def _nothing(self, pointer: int) -> bytes:
        self._at(pointer, 0)
        return b""

    def _at(self, pointer: int, size: int) -> int:
        if pointer < 0 or size < 0 or pointer + size > self.size:
            raise BadPointer
        # wasmtime keeps a memory where it is only while nobody grows it, so its place is asked for each time.
        return (_memory_data(self._context, self._memory) or 0) + pointer


class I64Global:
    """A mutable global of a metered module."""

    def __init__(self, store: wasmtime.Store, found: wasmtime.Global) -> None:
        self._context, self._global = store._context(), ctypes.byref(found._global)
        self._value = ffi.wasmtime_val_t(kind=ffi.WASMTIME_I64)
        self._place = ctypes.byref(self._value)
        self._keep = (store, found)

    @property
    def value(self) -> int:
        _global_get(self._context, self._global, self._place)
        return int(self._value.of.i64)

    @value.setter
    def value(self, value: int) -> None:
        self._value.of.i64 = value
        _global_set(self._context, self._global, self._place)


class EngineCounter(Counter, Protocol):
    """A counter that also runs the guest, since the engine's own has to."""

    def refused_pages(self) -> int | None: ...

    def see(self, caller: Any, /) -> None: ...

    def instantiate(self, linker: wasmtime.Linker, module: wasmtime.Module) -> wasmtime.Instance: ...

    def call(self, function: wasmtime.Func, *arguments: int, results: int = 0) -> int | None: ...


class FuelCounter(Slices):
    """The engine's own fuel."""

    overdrawn = False

    def __init__(self, store: wasmtime.Store, instructions: int, on_slice: Callable[[], None]) -> None:
        super().__init__(store, on_slice)
        store.set_fuel(instructions)

    @property
    def left(self) -> int:
        return int(self._store.get_fuel())

    def charge(self, count: int) -> None:
        """As ``Counter.charge``."""
        left = self._store.get_fuel()
        self._store.set_fuel(max(0, left - count))
        if count > left:
            raise OutOfInstructions

    def refused_pages(self) -> None:
        return None

    def see(self, _: Any) -> None:
        return


class InjectedCounter(SliceCounter):
    """What a metered module counts, in wasmtime."""

    def __init__(self, store: wasmtime.Store, instructions: int, watch: Watch) -> None:
        super().__init__(instructions, watch)
        self._store, self._keep = store, list[object]()
        self._left: I64Global | None = None
        self._refused: I64Global | None = None

    def held(self) -> int:
        return self._left.value if self._left else 0

    def hold(self, count: int) -> None:
        if self._left:
            self._left.value = count

    def refused_pages(self) -> int:
        return self._refused.value if self._refused else 0

    def see(self, caller: Any) -> None:
        """The globals are found at the first call, since a start function runs before anybody can be asked for them."""
        if self._left is None:
            self._find(hostcalls.exported(caller, LEFT), hostcalls.exported(caller, REFUSED))

    def instantiate(self, linker: wasmtime.Linker, module: wasmtime.Module) -> wasmtime.Instance:
        self._keep.append(hostcalls.define(linker, RESERVED, TICK, TICK_TYPE, self._asked))
        instance = linker.instantiate(self._store, module)
        exports = instance.exports(self._store)
        self._find(exports[LEFT], exports[REFUSED])
        return instance

    def call(self, function: wasmtime.Func, *arguments: int, results: int = 0) -> int | None:
        found = function(self._store, *arguments)
        return int(found) if results else None

    def _asked(self, caller: Any, arguments: tuple[int, ...]) -> int:
        self.see(caller)
        (held,) = arguments
        return self.tick(held - _RANGE if held & _SIGN else held)

    def _find(self, left: object, refused: object) -> None:
        if isinstance(left, wasmtime.Global) and isinstance(refused, wasmtime.Global):
            self._left, self._refused = I64Global(self._store, left), I64Global(self._store, refused)


class WasmtimeMachine:
    """See ``Machine``."""

    counter: EngineCounter

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module, limits: Limits, watch: Watch, *, metering: str) -> None:
        self._engine, self._module, self._watch = engine, module, watch
        self._store = wasmtime.Store(engine)
        self._store.set_limits(memory_size=limits.memory_bytes, table_elements=TABLE_ELEMENTS_MAX, instances=1, memories=1)
        if metering == "injected":
            self.counter = InjectedCounter(self._store, limits.instructions, watch)
        else:
            self.counter = FuelCounter(self._store, limits.instructions, watch.on_slice)
        self._memory: LinearMemory | None = None
        self._exports: Mapping[str, Any] = {}
        self._ended: BaseException | None = None
        self._host_functions: list[object] = []

    @property
    def memory_bytes(self) -> int:
        return self._memory.size if self._memory else 0

    @property
    def refused_bytes(self) -> int | None:
        pages = self.counter.refused_pages()
        return None if pages is None else pages * WASM_PAGE_BYTES

    def read(self, pointer: int, size: int) -> bytes:
        if self._memory is None:
            raise BadPointer
        return self._memory.read(pointer, size)

    def write(self, pointer: int, data: bytes) -> None:
        if self._memory is None:
            raise BadPointer
        self._memory.write(pointer, data)

    def grow(self, pages: int) -> None:
        if self._memory is not None:
            with self._running():
                self._memory.grow(pages)

    def start(self, functions: Mapping[str, HostFunction]) -> None:
        linker = wasmtime.Linker(self._engine)
        for name, function in functions.items():
            self._host_functions.append(hostcalls.define(linker, WASI_MODULE, name, SIGNATURES[name], self._seeing(function)))
        with self._running():
            instance = self.counter.instantiate(linker, self._module)
        self._exports = instance.exports(self._store)
        self._find_memory(self._exports.get("memory"))
        if self._memory is None:
            for found in self._exports.values():
                self._find_memory(found)

    def call(self, name: str, *arguments: int, results: int = 0) -> int | None:
        with self._running():
            return self.counter.call(self._exports[name], *arguments, results=results)

    def _seeing(self, function: HostFunction) -> hostcalls.HostFunction:
        def call(caller: Any, arguments: tuple[int, ...]) -> int | None:
            self.counter.see(caller)
            # A start function runs before the memory can be asked for.
            if self._memory is None:
                self._find_memory(hostcalls.exported(caller, "memory"))
            try:
                return function(arguments)
            except BaseException as ended:
                self._watch.ended(ended)
                raise

        return call

    def _find_memory(self, found: object) -> None:
        if self._memory is None and isinstance(found, wasmtime.Memory):
            self._memory = LinearMemory(self._store, found)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """The engine's errors as ours."""
        try:
            yield
        except wasmtime.Trap as trap:
            raise Trapped(trap.trap_code.name.lower() if trap.trap_code else "unknown") from None
        except wasmtime.WasmtimeError as error:
            raise EngineFailed(str(error)) from None
