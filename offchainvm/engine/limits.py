"""What an execution and a module may use at most."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
WASM_PAGE_BYTES = 64 * KIB
WASM_MEMORY_BYTES_MAX = 4096 * MIB
INSTRUCTIONS_MAX = (1 << 63) - 1
"""Counters are of 64 bits, with a sign."""
TABLE_ELEMENTS_MAX = 1_000_000
"""Of all tables of a module together."""


def table_elements_each(tables: int, most: int = TABLE_ELEMENTS_MAX) -> int:
    """To how many elements each of so many tables may grow; more is refused, as the guest is told."""
    return most // max(1, tables)


@dataclass(frozen=True)
class Limits:
    """Limits of one execution.

    ``instructions`` are executed operators (see ``ExecutionResult.meter_version``), ``memory_bytes`` is linear
    memory, ``wall_seconds`` the time from the job's first to its last moment in the engine, compilation not counted.
    """

    instructions: int
    memory_bytes: int
    wall_seconds: float
    output_bytes: int = MIB
    stderr_bytes: int = 64 * KIB

    def __post_init__(self) -> None:
        if self.instructions > INSTRUCTIONS_MAX:
            raise ValueError(f"more than {INSTRUCTIONS_MAX} instructions cannot be counted")
        if self.instructions < 0 or self.memory_bytes < 0 or self.wall_seconds <= 0 or self.output_bytes < 0 or self.stderr_bytes < 0:
            raise ValueError("a limit is negative, or leaves no time")


@dataclass(frozen=True)
class ModuleLimits:
    """What a module may be before anything compiles it: the sizes that compile bombs are made of."""

    module_bytes: int = 16 * MIB
    types: int = 10_000
    values_per_type: int = 900
    functions: int = 50_000
    function_body_bytes: int = MIB
    locals_per_function: int = 5_000
    nesting: int = 1_000
    imports: int = 1_000
    exports: int = 10_000
    globals: int = 10_000
    tables: int = 16
    table_elements: int = TABLE_ELEMENTS_MAX
    element_segments: int = 10_000
    data_segments: int = 10_000
    memory_bytes: int = WASM_MEMORY_BYTES_MAX


@dataclass(frozen=True)
class CompileLimits:
    """What the compilation of one module may use."""

    wall_seconds: float = 30.0
    data_bytes: int = 1024 * MIB
