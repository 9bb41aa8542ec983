"""Modules are read, refused and entered by their own parser; the engine's validation agrees."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import wasmtime

from offchainvm.engine.binary import read_sections
from offchainvm.engine.limits import Limits, ModuleLimits
from offchainvm.engine.module import ModuleInfo, check_module
from offchainvm.engine.operators import check_nesting, has_operator
from offchainvm.engine.wasi import SIGNATURES
from offchainvm.engine.wasmtime_engine import compile_module, validate
from offchainvm.errors import ExecutionError, Status

EXECUTE = '(memory (export "memory") 2) (func (export "execute") (param i32 i32) (result i32) (i32.const 0))'
START = '(func (export "_start"))'
SMALL = ModuleLimits(
    module_bytes=4000, types=2, values_per_type=6, functions=3, function_body_bytes=600, locals_per_function=5, nesting=8, imports=2,
    exports=3, globals=2, tables=1, table_elements=10, element_segments=2, data_segments=2, memory_bytes=131072,
)  # fmt: skip


def wasm(wat: str) -> bytes:
    return bytes(wasmtime.wat2wasm(wat))


def test_what_is_known_of_a_good_module():
    code = wasm(f'(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) {EXECUTE} (func (export "_initialize")))')
    info = check_module(code, validate=validate)
    assert info == ModuleInfo(("execute",), ("sched_yield",), memory_min_bytes=131072, initialize=True)
    assert ModuleInfo.parse(json.loads(json.dumps(asdict(info)))) == info


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        (START, "_start"),
        (EXECUTE, "execute"),
        (EXECUTE + START, "execute"),
        ('(func (export "execute"))' + START, "_start"),
    ],
)
def test_the_entry_is_execute_where_it_can_be(fields, entry):
    assert check_module(wasm(f"(module {fields})")).entry == entry


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("", "neither `execute` nor `_start`"),
        ('(memory (export "execute") 1)', "is a memory"),
        ('(func (export "execute") (param i64) (result i32) (i32.const 0))', r"\(i64\) -> \(i32\)"),
        ('(func (export "execute") (param i32 i32) (result i32) (i32.const 0))', "no `memory`"),
        (
            '(func (export "execute") (param i32 i32) (result i32) (i32.const 0)) (global (export "memory") i32 (i32.const 0))',
            "no `memory`",
        ),
    ],
)
def test_no_entry_says_what_is_there_instead(fields, words):
    with pytest.raises(ExecutionError, match=words) as caught:
        check_module(wasm(f"(module {fields})"))
    assert caught.value.status is Status.LINK_ERROR


def test_a_section_of_no_memories_is_none():
    code = wasm(f"(module {START})")
    place = code.index(b"\x07")  # its section of exports
    code = code[:place] + b"\x05\x01\x00" + code[place:]
    assert check_module(code, validate=validate) == ModuleInfo(("_start",))
    compile_module(code, "injected")


def test_no_engine_is_loaded_to_check_a_module():
    """Whoever asks may hold secrets."""
    program = f"""import sys
from offchainvm.engine.module import check_module
check_module({wasm(f"(module {EXECUTE} (func (block (nop))))")!r})
sys.exit("wasmtime" in sys.modules)"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ('(data "a") (data "b") (data "c") (memory 1)', "data segments"),
        ("(func) (func) (func) (func)", "5 functions"),
        ("(func " + "(nop)" * 700 + ")", "bytes in one function"),
        ("(func (local i32 i32 i32 i64 i64 i64))", "locals"),
        ("(func " + "(block " * 8 + ")" * 8 + ")", None),
        ("(func " + "(block " * 9 + ")" * 9 + ")", "nested blocks"),
        ("(func " + "(block)" * 9 + ")", None),
        ("(type (func (param i32))) (type (func (param i64))) (type (func (param f32)))", "4 types"),
        ("(type (func (param" + " i32" * 7 + ")))", "7 parameters or results of one function"),
        ("(type (func (result" + " i32" * 7 + ")))", "7 parameters or results of one function"),
        ("(global i32 (i32.const 0)) " * 3, "3 globals"),
        ("(table 11 funcref)", "11 elements in one table"),
        ("(table 1 funcref) (table 1 funcref)", "2 tables"),
        ("(memory 3)", "bytes of memory"),
        ('(func $f (export "a") (export "b") (export "c"))', "exports"),
    ],
)  # fmt: skip
def test_each_static_limit_holds(fields, words):
    code = wasm(f'(module {fields} (func (export "_start")))')
    if words is None:
        assert check_module(code, limits=SMALL).entry == "_start"
        return
    with pytest.raises(ExecutionError, match=words) as caught:
        check_module(code, limits=SMALL)
    assert caught.value.status is Status.MODULE_TOO_COMPLEX


def test_every_prefix_of_a_module_is_refused_without_a_surprise():
    code = wasm(f'(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) {EXECUTE} (data (i32.const 0) "abc"))')
    for cut in range(len(code)):
        try:
            check_module(code[:cut], validate=validate)
        except ExecutionError:
            continue
        # What ends between two sections is a module of its own.
        wasmtime.Module.validate(wasmtime.Engine(), code[:cut])


def test_every_flipped_byte_is_refused_or_still_a_module():
    code = wasm(f"(module {EXECUTE} (table 1 funcref) (func (param i32) (block (loop (br_if 1 (local.get 0))))))")
    for place in range(len(code)):
        broken = bytearray(code)
        broken[place] ^= 0xFF
        try:
            check_module(bytes(broken), validate=validate)
        except ExecutionError:
            continue


OPERATORS = """
(module (memory 1) (table 1 funcref) (type $t (func (param i32) (result i32))) (global $g (mut i64) (i64.const 0))
 (data $d "abc") (elem $e func 0)
 (func (param i32) (result i32) (local v128 f64 externref)
  (block (block (block (br_table 0 1 2 (local.get 0)))))
  (drop (select (result i32) (i32.const 128) (i32.const -5) (i32.const 0x7fffffff)))
  (drop (i64.const -0x8000000000000000)) (drop (f32.const 11)) (drop (f64.const 11.5))
  (i64.store offset=70000 align=1 (i32.const 1) (i64.const 2)) (drop (i32.load8_u (i32.const 0)))
  (drop (v128.const i32x4 0x0b0b0b0b 0x02020202 3 4)) (drop (i8x16.shuffle 11 11 2 2 3 3 4 4 5 5 6 6 7 7 8 8 (local.get 1) (local.get 1)))
  (drop (i8x16.extract_lane_s 11 (local.get 1))) (local.set 1 (v128.load8_lane offset=11 11 (i32.const 0) (local.get 1)))
  (local.set 1 (v128.load32_zero (i32.const 4))) (drop (i32x4.add (local.get 1) (local.get 1)))
  (drop (f64x2.mul (local.get 1) (local.get 1)))
  (memory.copy (i32.const 0) (i32.const 1) (i32.const 2)) (memory.fill (i32.const 0) (i32.const 1) (i32.const 2))
  (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0)) (data.drop $d)
  (table.init $e (i32.const 0) (i32.const 0) (i32.const 0)) (elem.drop $e)
  (drop (table.grow 0 (ref.null func) (i32.const 0))) (drop (table.size 0)) (table.set 0 (i32.const 0) (ref.func 0))
  (drop (ref.is_null (table.get 0 (i32.const 0)))) (drop (i32.trunc_sat_f64_s (local.get 2))) (drop (i32.extend8_s (i32.const 1)))
  (drop (memory.grow (memory.size))) (global.set $g (i64.const 3))
  (if (local.get 0) (then (loop (block (nop)))) (else (drop (call 0 (i32.const 1)))))
  (drop (call_indirect (type $t) (i32.const 0) (i32.const 0)))
  (return_call 0 (i32.const 1))))"""


@pytest.mark.parametrize(("limit", "fits"), [(3, True), (2, False)])
def test_nesting_is_counted_through_every_shape_of_operator(limit, fits):
    code = wasm(OPERATORS)
    wasmtime.Module.validate(wasmtime.Engine(), code)
    ((start, end),) = read_sections(code, ModuleLimits()).bodies
    if fits:
        check_nesting(code, start, end, limit=limit)
    else:
        with pytest.raises(ExecutionError, match="nested blocks"):
            check_nesting(code, start, end, limit=limit)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("(drop (i8x16.swizzle (v128.const i64x2 1 2) (v128.const i64x2 3 4)))", True),
        ("(block (loop (drop (i8x16.swizzle (v128.const i64x2 1 2) (v128.const i64x2 3 4)))))", True),
        ("(drop (i32.const 0x0efd)) (drop (v128.const i64x2 0x0efd0efd 0x0efd)) (drop (f64.const 0x1.efd0efd0efdp3))", False),
        ("(drop (i32.const 0x77d))", False),
    ],
)
def test_an_operator_is_told_from_its_bytes(body, found):
    code = wasm(f"(module (func {body}))")
    ((start, end),) = read_sections(code, ModuleLimits()).bodies
    assert has_operator(code, start, end, b"\xfd\x0e") is found


def test_a_megabyte_of_operators_is_read_quickly_enough_to_be_linear():
    code = wasm("(module (func " + "(drop (i32.const 2))" * 150_000 + "))")
    ((start, end),) = read_sections(code, ModuleLimits()).bodies
    check_nesting(code, start, end, limit=10)


def test_the_host_functions_have_the_types_that_the_engine_has():
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    store = wasmtime.Store(engine)
    for name, signature in SIGNATURES.items():
        kind = linker.get(store, "wasi_snapshot_preview1", name).type(store)
        assert (tuple(map(str, kind.params)), tuple(map(str, kind.results))) == (signature.params, signature.results), name


def test_limits_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="limit"):
        Limits(instructions=1, memory_bytes=1, wall_seconds=0)
    with pytest.raises(ValueError, match="cannot be counted"):
        Limits(instructions=1 << 63, memory_bytes=1, wall_seconds=1)
