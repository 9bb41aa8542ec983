"""What the host makes, bounds and calls for engines without limits; and that it sees every memory."""

from __future__ import annotations

import pytest
import wasmtime

from offchainvm.engine.hosted import MEMORY, START, bounded, hosted, memory_pages
from offchainvm.engine.limits import TABLE_ELEMENTS_MAX
from offchainvm.engine.meter import LEFT, REFUSED, RESERVED, TICK, meter
from offchainvm.engine.wasmtime_engine import engine


def module(fields: str) -> wasmtime.Module:
    return wasmtime.Module(engine("injected"), hosted(meter(bounded(bytes(wasmtime.wat2wasm(f"(module {fields})"))))))


def test_the_memory_is_the_hosts_and_still_exported() -> None:
    made = module('(memory (export "memory") 2 9) (data (i32.const 0) "x") (func (export "_start"))')
    assert [(item.module, item.name) for item in made.imports] == [(RESERVED, TICK), (RESERVED, MEMORY)]
    memory = made.imports[1].type
    assert isinstance(memory, wasmtime.MemoryType)
    assert (memory.limits.min, memory.limits.max) == (2, 9)
    assert [item.name for item in made.exports] == ["memory", "_start", LEFT, REFUSED]


def test_the_start_function_is_called_by_the_host() -> None:
    made = module('(global $g (export "g") (mut i32) (i32.const 0)) (func $s (global.set $g (i32.const 7))) (start $s)')
    store = wasmtime.Store(engine("injected"))
    tick = wasmtime.Func(store, wasmtime.FuncType([wasmtime.ValType.i64()], [wasmtime.ValType.i64()]), lambda _: 1000)
    exports = wasmtime.Instance(store, made, [tick]).exports(store)
    seen, start = exports["g"], exports[START]
    assert isinstance(seen, wasmtime.Global)
    assert isinstance(start, wasmtime.Func)
    assert seen.value(store) == 0
    start(store)
    assert seen.value(store) == 7


@pytest.mark.parametrize(
    ("declared", "most"),
    [
        ("(table 3 funcref)", TABLE_ELEMENTS_MAX),
        ("(table 3 9 funcref)", 9),
        ("(table 3 2000000 externref)", TABLE_ELEMENTS_MAX),
        ("(table 3 funcref) (table 1 9 funcref)", TABLE_ELEMENTS_MAX // 2),
    ],
)
def test_a_table_may_grow_to_its_share_of_the_limit_at_most(declared: str, most: int) -> None:
    made = module(f'{declared} (export "t" (table 0)) (func (export "_start"))')
    [table] = [item.type for item in made.exports if item.name == "t"]
    assert isinstance(table, wasmtime.TableType)
    assert (table.limits.min, table.limits.max) == (3, most)


@pytest.mark.parametrize("fields", ['(func (export "_start"))', '(memory 0) (func (export "_start"))'])
def test_a_module_without_a_memory_or_with_an_empty_one_is_valid(fields: str) -> None:
    assert module(fields).exports


@pytest.mark.parametrize(
    ("declared", "limit", "pages"),
    [((1, None), 1 << 20, (1, 16)), ((1, 4), 1 << 20, (1, 4)), ((1, 65536), 65536, (1, 1)), ((0, None), 100, (0, 0))],
)
def test_the_memory_that_the_host_makes_is_within_the_limit(declared: tuple[int, int | None], limit: int, pages: tuple[int, int]) -> None:
    assert memory_pages(declared, limit) == pages


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ("(memory 1)", ["memory"]),
        ('(memory 1) (func (export "memory")) (global (export "memory_") i32 (i32.const 0)) (data "x")', ["memory", "memory_", "memory__"]),
        ('(memory (export "mine") 1)', ["mine"]),
        ('(memory (export "memory") 1)', ["memory"]),
        ('(func (export "_start"))', ["_start"]),
        ("", []),
    ],
)
def test_every_memory_is_shown_once(fields: str, names: list[str]) -> None:
    made = wasmtime.Module(engine("injected"), bounded(bytes(wasmtime.wat2wasm(f"(module {fields})"))))
    assert [item.name for item in made.exports] == names
