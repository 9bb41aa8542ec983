"""Looks into a component, and holds every core module in it to the static limits; what it is beyond that, its engine validates.

https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
"""

from __future__ import annotations

from collections.abc import Iterator

from offchainvm.engine.binary import COMPONENT_VERSION, MAGIC, Reader, at_most, read_sections
from offchainvm.engine.limits import ModuleLimits, table_elements_each
from offchainvm.engine.operators import check_nesting

ENTRY = "wasi:cli/run"
"""The way in of a command component; found by its interface, without the version."""
_CORE_MODULE, _COMPONENT = 1, 4
_DEPTH_MAX, _MODULES_MAX = 8, 32
MEMORIES_MAX, TABLES_MAX = 4, 32
"""Of all core modules as often as they are instantiated, which only the engine can count."""
TABLE_ELEMENTS_EACH = table_elements_each(ModuleLimits().tables)


def is_component(untrusted_wasm: bytes) -> bool:
    return untrusted_wasm[:8] == MAGIC + COMPONENT_VERSION


def check_component(untrusted_wasm: bytes, limits: ModuleLimits) -> None:
    """Hold its core modules to the limits.

    Raises:
        ExecutionError: invalid_module, unsupported_feature or module_too_complex.
    """
    functions = 0
    for count, (start, end) in enumerate(_core_modules(untrusted_wasm, 8, len(untrusted_wasm), depth=1), 1):
        at_most("core modules", count, _MODULES_MAX)
        core = untrusted_wasm[start:end]
        sections = read_sections(core, limits)
        functions = at_most("functions", functions + len(sections.functions), limits.functions)
        at_most("elements in one table", max(sections.tables, default=0), TABLE_ELEMENTS_EACH)
        for body in sections.bodies:
            check_nesting(core, *body, limit=limits.nesting)


def _core_modules(wasm: bytes, start: int, end: int, *, depth: int) -> Iterator[tuple[int, int]]:
    at_most("components within each other", depth, _DEPTH_MAX)
    reader = Reader(wasm, start, end)
    while not reader.done:
        identity, size = reader.byte(), reader.leb()
        inside = reader.position
        reader.skip(size)
        if identity == _CORE_MODULE:
            yield inside, reader.position
        elif identity == _COMPONENT:
            yield from _core_modules(wasm, inside + 8, reader.position, depth=depth + 1)
