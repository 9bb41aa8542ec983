"""Decides whether a stranger's module may be compiled at all, and how it is entered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from offchainvm.engine.binary import FunctionType, Sections, at_most, read_sections
from offchainvm.engine.component import ENTRY as COMPONENT
from offchainvm.engine.component import check_component, is_component
from offchainvm.engine.limits import WASM_MEMORY_BYTES_MAX, WASM_PAGE_BYTES, ModuleLimits
from offchainvm.engine.meter import check_reserved
from offchainvm.engine.operators import check_nesting
from offchainvm.engine.wasi import SIGNATURES, WASI_MODULE
from offchainvm.errors import ExecutionError, Status

_I32 = "i32"
EXECUTE_TYPE = FunctionType((_I32, _I32), (_I32,))
NO_ARGUMENTS = FunctionType((), ())
DEFAULT_LIMITS = ModuleLimits()
_ENTRIES = ("execute", "_start", COMPONENT)


@dataclass(frozen=True)
class ModuleInfo:
    """What is known of a module that passed every check: told by the process that compiles it, and kept beside its native code.

    ``entries`` are its ways in, of ``execute`` and ``_start``, at least one; of a component its one, ``wasi:cli/run``.
    ``wasi_imports`` are the names of the host functions that it imports; ``initialize``: ``_initialize`` has to be called before
    the entry.
    """

    entries: tuple[str, ...]
    wasi_imports: tuple[str, ...] = ()
    memory_min_bytes: int = 0
    initialize: bool = False

    @property
    def entry(self) -> str:
        """The way in that is taken where none is asked for."""
        return self.entries[0]

    @property
    def component(self) -> bool:
        return self.entry == COMPONENT

    @classmethod
    def parse(cls, untrusted: Mapping[str, Any]) -> ModuleInfo:
        """What ``dataclasses.asdict`` made of one, sent by another process.

        Raises:
            ValueError: it is none.
        """
        entries, imports = _names(untrusted.get("entries")), _names(untrusted.get("wasi_imports"))
        initialize = untrusted.get("initialize")
        if not entries or not {*entries} <= {*_ENTRIES} or not {*imports} <= {*SIGNATURES} or not isinstance(initialize, bool):
            raise ValueError("no description of a module")
        memory_min_bytes = _count(untrusted.get("memory_min_bytes"), WASM_MEMORY_BYTES_MAX)
        return cls(entries, imports, memory_min_bytes=memory_min_bytes, initialize=initialize)


def _names(untrusted: object) -> tuple[str, ...]:
    if not isinstance(untrusted, list) or not all(isinstance(item, str) for item in untrusted):
        raise ValueError("no names")
    return tuple(untrusted)


def _count(untrusted: object, most: int) -> int:
    if not isinstance(untrusted, int) or isinstance(untrusted, bool) or not 0 <= untrusted <= most:
        raise ValueError("no count")
    return untrusted


def check_module(
    untrusted_wasm: bytes, *, limits: ModuleLimits = DEFAULT_LIMITS, validate: Callable[[bytes], None] | None = None
) -> ModuleInfo:
    """Check sizes, the structure, nesting, imports and the entry; with ``validate``, an engine's (see ``Backend.validate``), all of it.

    Without it no engine touches the bytes, so that any process may ask. Of a component, its sizes and core modules are checked;
    whether it is valid, and a command, is found where it is compiled.

    Raises:
        ExecutionError: invalid_module, unsupported_feature, module_too_complex or link_error.
    """
    at_most("bytes", len(untrusted_wasm), limits.module_bytes)
    if is_component(untrusted_wasm):
        check_component(untrusted_wasm, limits)
        return ModuleInfo((COMPONENT,))
    sections = read_sections(untrusted_wasm, limits)
    if validate is not None:
        validate(untrusted_wasm)
    for start, end in sections.bodies:
        check_nesting(untrusted_wasm, start, end, limit=limits.nesting)
    check_reserved(sections)
    _check_imports(sections)
    return ModuleInfo(
        entries=find_entries(sections),
        wasi_imports=tuple(sorted({item.name for item in sections.imports})),
        memory_min_bytes=sum(minimum for minimum, _ in sections.memories) * WASM_PAGE_BYTES,
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
