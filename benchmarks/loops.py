"""Programs that do one kind of work each, and nothing else: their function ``run`` takes how often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import wasmtime

_CALLS = """(func (export "run") (param i32) (result i32) (call $fib (local.get 0)))
(func $fib (param i32) (result i32)
  (if (result i32) (i32.lt_s (local.get 0) (i32.const 2)) (then (local.get 0)) (else
    (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))"""
_TABLE = """(table 4 funcref) (elem (i32.const 0) $add $flip $triple $turn)
(func (export "run") (param i32) (result i32) (local $x i32)
  (loop $more
    (local.set $x (call_indirect (param i32) (result i32) (local.get $x) (i32.and (local.get 0) (i32.const 3))))
    (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (local.get $x))
(func $add (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
(func $flip (param i32) (result i32) (i32.xor (local.get 0) (i32.const 77)))
(func $triple (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
(func $turn (param i32) (result i32) (i32.rotl (local.get 0) (i32.const 5)))"""
_TINY = """(func (export "run") (param i32) (result i32) (local $x i32)
  (loop $more
    (local.set $x (call $mix (call $add (local.get $x)) (local.get 0)))
    (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (local.get $x))
(func $add (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
(func $mix (param i32 i32) (result i32) (i32.xor (call $add (local.get 0)) (local.get 1)))"""
_INTEGERS = """(func (export "run") (param i32) (result i32) (local $x i64) (local.set $x (i64.const 88172645463325252))
  (loop $more
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
    (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
    (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (i32.wrap_i64 (local.get $x)))"""
_MEMORY = """(memory 32) (func (export "run") (param i32) (result i32) (local $i i32) (local $j i32) (local $found i32)
  (loop $again
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 2000000)) (local.set $i (i32.const 2))
    (loop $numbers
      (if (i32.eqz (i32.load8_u (local.get $i))) (then
        (local.set $found (i32.add (local.get $found) (i32.const 1)))
        (local.set $j (i32.add (local.get $i) (local.get $i)))
        (block $done (loop $multiples
          (br_if $done (i32.ge_u (local.get $j) (i32.const 2000000)))
          (i32.store8 (local.get $j) (i32.const 1))
          (local.set $j (i32.add (local.get $j) (local.get $i)))
          (br $multiples)))))
      (br_if $numbers (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2000000))))
    (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (local.get $found))"""
_FLOATS = """(memory 4) (func (export "run") (param i32) (result i32) (local $sum f64) (local $at i32)
  (loop $again
    (local.set $at (i32.const 0))
    (loop $products
      (local.set $sum (f64.add (local.get $sum) (f64.mul (f64.load (local.get $at)) (f64.load offset=100000 (local.get $at)))))
      (br_if $products (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 80000))))
    (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (i32.trunc_sat_f64_s (local.get $sum)))"""
_ROUNDS = """(func (export "run") (param i32) (result i32)
  (local $a i32) (local $b i32) (local $c i32) (local $d i32) (local $e i32) (local $f i32) (local $g i32) (local $h i32) (local $t i32)
  (loop $more
    (local.set $t (i32.add (local.get $h) (i32.add
      (i32.xor (i32.rotl (local.get $e) (i32.const 6)) (i32.rotl (local.get $e) (i32.const 11)))
      (i32.xor (i32.and (local.get $e) (local.get $f)) (i32.and (local.get $g) (local.get 0))))))
    (local.set $h (local.get $g)) (local.set $g (local.get $f)) (local.set $f (local.get $e))
    (local.set $e (i32.add (local.get $d) (local.get $t)))
    (local.set $d (local.get $c)) (local.set $c (local.get $b)) (local.set $b (local.get $a))
    (local.set $a (i32.add (local.get $t) (i32.rotl (local.get $a) (i32.const 2))))
    (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (i32.add (local.get $a) (local.get $e)))"""
PLACEMENTS = 4


@dataclass(frozen=True)
class Loop:
    """One program and the argument that makes it run for some 0.1 s."""

    name: str
    wat: str
    argument: int

    def placed(self) -> Iterator[bytes]:
        """The same program at several places in memory: where a hot loop crosses a line of the cache is worth up to a tenth."""
        for place in range(PLACEMENTS):
            yield bytes(wasmtime.wat2wasm(f"(module (global $before (mut i32) (i32.const 0)) {_before(place)} {self.wat})"))

    def functions(self, number: int) -> str:
        """Its functions alone, by names of their own."""
        return self.wat[self.wat.index("(func") :].replace(' (export "run")', "").replace("$fib", f"$fib{number}")


def _before(count: int) -> str:
    return "(func " + "(global.set $before (i32.const 1))" * count + ")"


LOOPS = (
    # One of each kind, which can also be put many times over into one module.
    Loop("calls (fib)", _CALLS, 31),
    Loop("memory (sieve)", _MEMORY, 8),
    Loop("integers, few (xorshift)", _INTEGERS, 40_000_000),
    Loop("integers, many (a hash's rounds)", _ROUNDS, 40_000_000),
    Loop("floats (dot product)", _FLOATS, 6_000),
)
CALLS = (
    Loop("calls through a table", _TABLE, 4_000_000),
    Loop("calls of tiny functions", _TINY, 4_000_000),
)
