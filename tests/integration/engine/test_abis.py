"""What a well-behaved module gets, by either ABI."""

from __future__ import annotations

import struct

import pytest

from offchainvm.errors import Status

ECHO = """(module (memory (export "memory") 1)
  (func (export "execute") (param i32 i32) (result i32) (local $to i32)
    (local.set $to (i32.const 60000))
    (if (i32.gt_u (local.get 1) (i32.const 60000)) (then
      (local.set $to (i32.mul (memory.grow (i32.const 40)) (i32.const 65536)))))
    (i32.store (local.get $to) (local.get 1))
    (memory.copy (i32.add (local.get $to) (i32.const 4)) (local.get 0) (local.get 1))
    (local.get $to)))"""
CAT = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (block $done (loop $more
      (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 7))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $done (i32.eqz (i32.load (i32.const 8))))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more)))
    (call $exit (i32.load8_u (i32.const 100)))))"""


def test_execute_gets_its_input_and_gives_its_output(run):
    result = run(ECHO, b"hello")
    assert (result.status, result.stdout, result.peak_memory_bytes) == (Status.OK, b"hello", 65536)
    assert result.instructions_exact
    assert result.engine_version
    assert result.meter_version


def test_an_empty_input_gives_an_empty_output(run):
    assert run(ECHO, b"").stdout == b""


def test_an_input_larger_than_the_memory_grows_it(run):
    data = bytes(range(256)) * 1000
    result = run(ECHO, data)
    assert result.stdout == data
    assert result.peak_memory_bytes == 44 * 65536


def test_an_input_larger_than_the_memory_limit_is_memory_limit(run):
    assert run(ECHO, b"x" * 200_000, memory_bytes=2 * 65536).status is Status.MEMORY_LIMIT


def test_the_count_is_the_same_every_time_and_independent_of_the_limit(run):
    counts = {run(ECHO, b"hello", instructions=limit).instructions_used for limit in (1000, 10_000_000, 10_000_000_000)}
    assert len(counts) == 1


def test_a_limit_of_exactly_the_count_is_enough_and_one_less_is_not(run):
    loop = """(module (func (export "_start") (local i32)
      (loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 5000000))))))"""
    needed = run(loop).instructions_used
    assert needed > 30_000_000
    assert run(loop, instructions=needed).status is Status.OK
    short = run(loop, instructions=needed - 100)
    assert (short.status, short.instructions_used, short.instructions_exact) == (Status.OUT_OF_FUEL, needed - 100, True)


def test_output_at_the_very_end_of_memory(run):
    wat = """(module (memory (export "memory") 1) (data (i32.const 65530) "\\02\\00\\00\\00ok")
      (func (export "execute") (param i32 i32) (result i32) (i32.const 65530)))"""
    assert run(wat).stdout == b"ok"


def test_a_negative_result_is_the_guests_own_error_code(run):
    result = run('(module (memory (export "memory") 1) (func (export "execute") (param i32 i32) (result i32) (i32.const -7)))')
    assert (result.status, result.exit_code) == (Status.GUEST_EXIT, -7)


def test_the_start_function_and_initialize_run_before_execute(run):
    wat = """(module (memory (export "memory") 1) (global $g (mut i32) (i32.const 0))
      (func $start (global.set $g (i32.const 65)))
      (func (export "_initialize") (global.set $g (i32.add (global.get $g) (i32.const 1))))
      (start $start)
      (func (export "execute") (param i32 i32) (result i32)
        (i32.store (i32.const 100) (i32.const 1)) (i32.store8 (i32.const 104) (global.get $g)) (i32.const 100)))"""
    assert run(wat).stdout == b"B"


def test_a_command_reads_stdin_and_writes_both_streams(run):
    result = run(CAT, b"\0some input of several reads")
    assert (result.status, result.stdout) == (Status.GUEST_EXIT, b"\0some input of several reads")
    assert result.stderr == result.stdout


def test_a_command_that_exits_with_zero_is_ok(run):
    result = run(CAT.replace("(i32.load8_u (i32.const 100))", "(i32.const 0)"), b"hi")
    assert (result.status, result.stdout, result.exit_code) == (Status.OK, b"hi", 0)


def test_a_module_with_both_ways_in_is_entered_as_asked(run):
    both = ECHO[: ECHO.rindex(")")] + '(func (export "_start") (unreachable)))'
    assert run(both, b"hi").stdout == b"hi"
    assert run(both, b"hi", entry="_start").status is Status.TRAP
    missing = run(ECHO, b"hi", entry="_start")
    assert (missing.status, missing.message) == (Status.LINK_ERROR, "The module has no `_start` that can be called; it has `execute`.")


def test_an_input_of_exactly_the_memory_does_not_grow_it(run):
    wat = """(module (memory (export "memory") 1) (func (export "execute") (param i32 i32) (result i32)
      (i32.store (i32.const 65528) (i32.const 4)) (i32.store (i32.const 65532) (local.get 1)) (i32.const 65528)))"""
    result = run(wat, b"x" * 65536)
    assert (result.stdout, result.peak_memory_bytes) == (struct.pack("<I", 65536), 65536)


def test_an_input_for_a_memory_that_may_not_grow_is_memory_limit(run):
    wat = '(module (memory (export "memory") 1 1) (func (export "execute") (param i32 i32) (result i32) (i32.const 0)))'
    assert run(wat, b"x" * 65537).status is Status.MEMORY_LIMIT


def test_a_start_function_may_call_the_host_and_is_counted(run):
    wat = """(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "\\08\\00\\00\\00\\02\\00\\00\\00hi")
      (func $s (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 20)))) (start $s)
      (func (export "_start")))"""
    result = run(wat)
    # 2 and 1 to start and to enter, 4 constants, a call, 2 bytes, and 1 to enter `_start`.
    assert (result.status, result.stderr, result.instructions_used) == (Status.OK, b"hi", 11)


def test_an_execute_module_may_use_wasi_and_its_stdout_is_not_its_answer(run):
    wat = """(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 500) "debug")
      (func (export "execute") (param i32 i32) (result i32)
        (i32.store (i32.const 600) (i32.const 500)) (i32.store (i32.const 604) (i32.const 5))
        (drop (call $write (i32.const 1) (i32.const 600) (i32.const 1) (i32.const 608)))
        (i32.store (i32.const 700) (i32.const 0)) (i32.const 700)))"""
    result = run(wat)
    assert (result.status, result.stdout, result.stderr) == (Status.OK, b"", b"debug")


def test_the_environment_is_what_the_request_says_and_nothing_else(run):
    wat = """(module (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "execute") (param i32 i32) (result i32)
        (drop (call $sizes (i32.const 1000) (i32.const 2000)))
        (drop (call $get (i32.const 1004) (i32.const 2004)))
        (i32.const 2000)))"""
    result = run(wat, environment={"NEAR_REQUEST_ID": "7", "ÄB": "ß"})
    assert result.stdout == "NEAR_REQUEST_ID=7\0ÄB=ß\0".encode()


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        ("(call $open (i32.const 3)" + "(i32.const 0)" * 4 + "(i64.const 0)" * 2 + "(i32.const 0)" * 2 + ")", 8),
        ("(call $prestat (i32.const 3) (i32.const 0))", 8),
        ("(call $random (i32.const 65530) (i32.const 7))", 21),
        ("(call $seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))", 70),
    ],
)  # fmt: skip
def test_files_do_not_exist_and_bad_pointers_are_told(run, call, errno):
    wat = f"""(module
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "execute") (param i32 i32) (result i32)
        (i32.store (i32.const 100) (i32.const 4)) (i32.store (i32.const 104) {call}) (i32.const 100)))"""
    assert run(wat).stdout == struct.pack("<I", errno)


def test_floats_are_deterministic_where_the_engine_can_make_them_so(run):
    wat = """(module (memory (export "memory") 1) (func (export "execute") (param i32 i32) (result i32)
      (i32.store (i32.const 100) (i32.const 4))
      (f32.store (i32.const 104) (f32.div (f32.const -0) (f32.const 0))) (i32.const 100)))"""
    result = run(wat)
    # wasmer leaves the sign of a NaN to the processor.
    assert result.stdout in {struct.pack("<I", 0x7FC00000), *([struct.pack("<I", 0xFFC00000)] if result.engine == "wasmer" else [])}
