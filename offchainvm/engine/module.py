"""Decides whether a stranger's module may be compiled at all, and how it is entered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from offchainvm.engine.binary import FunctionType, Import, Sections, at_most, read_sections
from offchainvm.engine.component import ENTRY as COMPONENT
from offchainvm.engine.component import check_component, is_component
from offchainvm.engine.limits import WASM_PAGE_BYTES, ModuleLimits
from offchainvm.engine.meter import check_reserved
from offchainvm.engine.operators import check_nesting
from offchainvm.engine.wasi import SIGNATURES, WASI_MODULE
from offchainvm.errors import ExecutionError, Status

_I32 = "i32"
EXECUTE_TYPE = FunctionType((_I32, _I32), (_I32,))
NO_ARGUMENTS = FunctionType((), ())
DEFAULT_LIMITS = ModuleLimits()


@dataclass(frozen=True)
class ModuleInfo:
    """What is known of a module that passed every check before compilation."""

    sha256: str
    size: int
    entries: tuple[str, ...]
    """Its ways in, of ``execute`` and ``_start``, at least one; of a component its one, ``wasi:cli/run``."""
    imports: tuple[Import, ...]
    functions: int
    memory_min_bytes: int
    initialize: bool
    """Whether ``_initialize`` has to be called before the entry."""

    @property
    def entry(self) -> str:
        """The way in that is taken where none is asked for."""
        return self.entries[0]


def check_module(
    untrusted_wasm: bytes, *, limits: ModuleLimits = DEFAULT_LIMITS, validate: Callable[[bytes], None] | None = None
) -> ModuleInfo:
    """Check sizes, the structure, the engine's own validation, nesting, imports and the entry.

    Of a component, its sizes and core modules are checked; whether it is valid, and a command, is found where it is compiled.
    ``validate`` is an engine's (see ``Backend.validate``), by default wasmtime's.

    Raises:
        ExecutionError: invalid_module, unsupported_feature, module_too_complex or link_error.
    """
    at_most("bytes", len(untrusted_wasm), limits.module_bytes)
    sha256 = hashlib.sha256(untrusted_wasm).hexdigest()
    if is_component(untrusted_wasm):
        functions = check_component(untrusted_wasm, limits)
        return ModuleInfo(sha256, len(untrusted_wasm), (COMPONENT,), (), functions, memory_min_bytes=0, initialize=False)
    sections = read_sections(untrusted_wasm, limits)
    (validate or _validate)(untrusted_wasm)
    for start, end in sections.bodies:
        check_nesting(untrusted_wasm, start, end, limit=limits.nesting)
    check_reserved(sections)
    _check_imports(sections)
    return ModuleInfo(
        sha256=sha256,
        size=len(untrusted_wasm),
        entries=find_entries(sections),
        imports=tuple(sections.imports),
        functions=len(sections.functions),
        memory_min_bytes=sections.memories[0][0] * WASM_PAGE_BYTES if sections.memories else 0,
        initialize=_exports_function(sections, "_initialize", NO_ARGUMENTS),
    )


def find_entries(sections: Sections) -> tuple[str, ...]:
    """``execute`` with a memory, and ``_start``, as far as they are there.

    Raises:
        ExecutionError: link_error, which says what is there instead.
    """
    execute = _exports_function(sections, "execute", EXECUTE_TYPE) and sections.exports.get("memory", ("", 0))[0] == "memory"
    found = [*(["execute"] if execute else []), *(["_start"] if _exports_function(sections, "_start", NO_ARGUMENTS) else [])]
    if not found:
        raise ExecutionError(Status.LINK_ERROR, _why_no_entry(sections))
    return tuple(found)


def _why_no_entry(sections: Sections) -> str:
    kind, index = sections.exports.get("execute", ("", 0))
    if not kind:
        return "The module exports neither `execute` nor `_start`."
    if kind != "func":
        return f"The module's export `execute` is a {kind}, not a function."
    found = sections.function_type(index)
    if found != EXECUTE_TYPE:
        return f"The module's `execute` is {found}; it must be {EXECUTE_TYPE}."
    return "The module exports `execute`, but no `memory`."


def _exports_function(sections: Sections, name: str, wanted: FunctionType) -> bool:
    kind, index = sections.exports.get(name, ("", 0))
    return kind == "func" and sections.function_type(index) == wanted


def _check_imports(sections: Sections) -> None:
    for item in sections.imports:
        if item.module != WASI_MODULE or item.kind != "func" or item.name not in SIGNATURES:
            raise ExecutionError(
                Status.LINK_ERROR, f"The module imports the {item.kind} {item.module[:64]}.{item.name[:64]}, which does not exist here."
            )
        if item.type != SIGNATURES[item.name]:
            raise ExecutionError(Status.LINK_ERROR, f"The module imports {item.name} as {item.type}; it is {SIGNATURES[item.name]}.")


def _validate(untrusted_wasm: bytes) -> None:
    from offchainvm.engine import wasmtime_engine  # noqa: PLC0415 - loads the engine's library, which not every importer needs

    wasmtime_engine.validate(untrusted_wasm)
