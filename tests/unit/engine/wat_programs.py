"""Programs for the parity of meters: by operator group, and made by chance from a seed; each exports ``r``."""

# ruff: noqa: E501 - a program reads best on one line
from __future__ import annotations

import random
import re

_HEAD = """(module (memory 2 60) (table $t 20 40 funcref)
  (type $unary (func (param i32) (result i32))) (type $none (func))
  (global $i (mut i32) (i32.const 3)) (global $l (mut i64) (i64.const 5)) (global $c f64 (f64.const 2.5))
  (elem (table $t) (i32.const 0) func $inc $fib) (data (i32.const 8) "active") (data $bytes "some passive bytes")
  (func $nothing) (func $inc (type $unary) (i32.add (local.get 0) (i32.const 1)))
  (func $fib (type $unary) (if (result i32) (i32.lt_s (local.get 0) (i32.const 2)) (then (local.get 0)) (else
    (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
  (func $pair (param i32) (result i32 i64) (local.get 0) (i64.extend_i32_s (local.get 0)))
"""
# What not every engine knows stands only in the programs that use it.
_EXTENSIONS = {
    "$count": """(func $count (param i32 i32) (result i32) (if (result i32) (local.get 0)
      (then (return_call $count (i32.sub (local.get 0) (i32.const 1)) (i32.add (local.get 1) (i32.const 2)))) (else (local.get 1))))""",
    "$passive": "(elem $passive funcref (ref.func $inc) (ref.null func) (ref.func $nothing)) (elem declare func $nothing)",
    "$x": "(table $x 4 9 externref)",
    "$shown": '(func $shown (export "shown") (type $unary) (i32.mul (local.get 0) (i32.const 5)))',
    "$r)": "(global $r funcref (ref.func $inc))",
}


def program(body: str, result: str = "(result i32)", locals: str = "(local i32 i32 i64 f32 f64)") -> str:
    extensions = "".join(text for name, text in _EXTENSIONS.items() if name in body)
    return f'{_HEAD} {extensions} (func (export "r") {result} {locals} {body}))'


def _unary(kind: str, names: str, value: str) -> list[str]:
    return [program(f"({kind}.{name} ({value}))", f"(result {kind})") for name in names.split()]


def _binary(kind: str, names: str, first: str, second: str, answer: str = "") -> list[str]:
    return [
        program(f"({kind}.{name} ({kind}.const {first}) ({kind}.const {second}))", f"(result {answer or kind})") for name in names.split()
    ]


_ARITHMETIC = "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr"
_FLOAT = "add sub mul div min max copysign"
_SUM = "(local.set 0 (i32.const 50)) (loop $l (local.set 1 (i32.add (local.get 1) (local.get 0)))"
_NEXT = " (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))"
# By kind: a number, what adds it, and what makes an i64 of a local.
_KINDS = {
    "i32": ("(i32.const {})", "i32.add", "i64.extend_i32_s"), "i64": ("(i64.const {})", "i64.add", ""),
    "f32": ("(f32.const {})", "f32.add", "i64.trunc_f32_s"), "f64": ("(f64.const {})", "f64.add", "i64.trunc_f64_s"),
    "v128": ("(v128.const i64x2 {} 5)", "i64x2.add", "i64x2.extract_lane 0"),
}  # fmt: skip


def _frames() -> str:
    """Functions with few and no parameters and locals of every kind, each of which is read, written, and written in a loop."""
    functions, calls, order = "", "(i64.const 0)", list(_KINDS)
    for parameters, locals in [(first, second) for first in range(4) for second in range(5)]:
        kinds = [order[(parameters + locals + index) % len(order)] for index in range(parameters + locals)]
        name, total = f"$p{parameters}_{locals}", "(i64.const 1)"
        adds = "".join(
            f"(local.set {index} ({_KINDS[kind][1]} (local.get {index}) {_KINDS[kind][0].format(index + 2)}))"
            for index, kind in enumerate(kinds)
        )
        for index, kind in enumerate(kinds):
            value = f"(local.get {index})" if kind == "i64" else f"({_KINDS[kind][2]} (local.get {index}))"
            total = f"(i64.add {value} (i64.mul (i64.const 31) {total}))"
        functions += f"""(func {name} (param {" ".join(kinds[:parameters])}) (result i64) (local {" ".join(kinds[parameters:])}) {adds}
          (global.set $n (i32.const 3)) (loop {adds} (br_if 0 (global.get $n) (global.set $n (i32.sub (global.get $n) (i32.const 1))))) {total})"""
        given = "".join(_KINDS[kind][0].format(40 + index) for index, kind in enumerate(kinds[:parameters]))
        calls = f"(i64.xor (i64.rotl {calls} (i64.const 7)) (call {name} {given}))"
    return f'(module (memory 2 60) (global $n (mut i32) (i32.const 0)) {functions} (func (export "r") (result i64) {calls}))'


CORPUS: dict[str, list[str]] = {
    "integers": [
        *_binary("i32", _ARITHMETIC, "-77", "5"), *_binary("i64", _ARITHMETIC, "-7700000000000", "13"),
        *_binary("i64", "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u", "-1", "4", "i32"),
        *_unary("i32", "clz ctz popcnt eqz extend8_s extend16_s", "i32.const 0x8180"),
        *_unary("i64", "clz ctz popcnt extend8_s extend16_s extend32_s", "i64.const 0x80818283"),
    ],
    "floats": [
        *_binary("f32", _FLOAT, "1.5", "-nan"), *_binary("f64", _FLOAT, "1e300", "-2.25"),
        *_binary("f32", "eq ne lt gt le ge", "1.5", "nan", "i32"), *_unary("f64", "abs neg ceil floor trunc nearest sqrt", "f64.const -2.5"),
    ],
    "conversions": [
        *_unary("i32", "trunc_f32_s trunc_f32_u trunc_sat_f32_s trunc_sat_f32_u reinterpret_f32", "f32.const 7.9"),
        *_unary("i64", "trunc_f64_s trunc_sat_f64_s trunc_sat_f64_u reinterpret_f64", "f64.const 1e18"),
        *_unary("i32", "trunc_sat_f64_s trunc_sat_f64_u", "f64.const nan"), *_unary("f64", "convert_i64_s convert_i64_u", "i64.const -3"),
        program("(f64.promote_f32 (f32.demote_f64 (global.get $c)))", "(result f64)"),
    ],
    "memory": [
        program("(i64.store offset=70 align=1 (i32.const 3) (i64.const -2)) (i32.load16_s (i32.const 75))"),
        program("(i32.store8 (i32.const 65535) (i32.const 200)) (i32.load8_s offset=65535 (i32.const 0))"),
        program("(f64.store (i32.const 8) (global.get $c)) (i32.wrap_i64 (i64.load32_u (i32.const 12)))"),
        program("(i32.add (memory.grow (i32.const 5)) (i32.mul (memory.grow (i32.const 900)) (memory.size)))"),
        program("(local.set 0 (i32.const 9)) (loop $l (drop (memory.grow (i32.const 1)))" + _NEXT + " (memory.size)"),
    ],
    "bulk": [
        program("(memory.fill (i32.const 9) (i32.const 7) (i32.const 3000)) (memory.copy (i32.const 5000) (i32.const 1) (i32.const 2000))"
                "(memory.init $bytes (i32.const 100) (i32.const 2) (i32.const 9)) (data.drop $bytes) (i32.load (i32.const 5010))"),
        program(_SUM + "(memory.fill (i32.const 0) (local.get 0) (local.get 0))" + _NEXT + "(i32.load8_u (i32.const 0))"),
        program("(drop (call_indirect (type $unary) (block (result i32) (memory.fill (i32.const 1) (i32.const 2) (i32.const 0)) (i32.const 6))"
                "(i32.const 1))) (memory.size)"),
    ],
    "tables": [
        program("(table.init $t $passive (i32.const 5) (i32.const 0) (i32.const 3)) (elem.drop $passive) (table.copy $t $t (i32.const 9)"
                "(i32.const 4) (i32.const 5)) (table.fill $t (i32.const 0) (ref.func $inc) (i32.const 4)) (table.size $t)"),
        program("(i32.add (table.grow $t (ref.null func) (i32.const 7)) (table.grow $t (ref.null func) (i32.const 7000)))"),
        program("(table.set $t (i32.const 3) (table.get $t (i32.const 0))) (ref.is_null (table.get $t (i32.const 3)))"),
        program("(drop (table.grow $x (ref.null extern) (i32.const 2))) (ref.is_null (global.get $r))"),
    ],
    "calls": [
        program("(call $fib (i32.const 15))"), program("(call_indirect (type $unary) (i32.const 12) (i32.const 1))"),
        program("(call $count (i32.const 500) (i32.const 1))"), program("(call $pair (i32.const 4)) (drop)"),
        program("(call $inc (i32.const 1)) (call $nothing) (return_call_indirect (type $unary) (i32.const 0))"),
        program("(call $nothing) (call $nothing) (unreachable)"), program("(call_indirect (type $none) (i32.const 0)) (i32.const 1)"),
        program("(call_indirect (type $unary) (i32.const 1) (i32.const 99))"),
        program("(ref.func $fib) (table.set $t (i32.const 2) (ref.func $inc)) (drop) (call_indirect (type $unary) (i32.const 4) (i32.const 2))"),
        program("(table.set $t (i32.const 2) (ref.func $shown)) (i32.add (call $shown (i32.const 2)) (call_indirect (type $unary) (i32.const 4) (i32.const 2)))"),
        program("(block $b (br_if $b (i32.const 1)) (i32.const 1) (i32.const 9) (return) (i32.const 3) (call $pair) (drop) (call_indirect (type $none))"
                "(unreachable) (i32.const 5) (i32.const 0) (call_indirect (type $unary)) (call $inc) (return)) (call $inc (i32.const 8))"),
    ],
    "frames": [_frames()],
    "control": [
        program(_SUM + _NEXT + "(local.get 1)"), program("(block (br 0)) (block (block (br 1) (nop) (drop (i32.const 1)))) (i32.const 1)"),
        program("(block (result i32) (br_if 0 (i32.const 4) (i32.const 0)) (drop) (br 1 (i32.const 5)) (i32.const 9) (call $inc))"),
        program(_SUM + "(block $a (block $b (block $c (br_table $a $b $c $a (i32.and (local.get 0) (i32.const 7))))"
                "(global.set $i (i32.add (global.get $i) (i32.const 2))))"
                "(global.set $i (i32.mul (global.get $i) (i32.const 3))))" + _NEXT + "(global.get $i)"),
        program("(if (i32.const 1) (then (return (i32.const 6))) (else (unreachable))) (i32.const 2)"),
        program("(if (result i32) (i32.const 0) (then (unreachable)) (else (br 1 (i32.const 3))))"),
        program("(if (i32.const 0) (then (br 0) (nop))) (if (i32.const 1) (then (br 0)) (else (nop))) (select (i32.const 1) (i32.const 2) (i32.const 0))"),
        program("(block (loop (br 1) (br 0) (loop (br 0) (if (i32.const 1) (then nop) (else nop))))) (select (result i32) (i32.const 1)"
                "(i32.const 2) (i32.const 1))"),
        program("(i32.const 3) (i32.const 20) (loop $l (param i32 i32) (result i32) (local.set 0) (i32.const 5) (i32.add)"
                "(i32.sub (local.get 0) (i32.const 1)) (local.tee 0) (local.get 0) (br_if $l) (drop))"),
        program("(br_table 0 0 (i32.const 7) (i32.const 1))"),
        program("(block (result i32 i64) (loop (result i32 i64) (i32.const 8) (i64.const 9) (br_if 2 (i32.and (local.get 0) (i32.const 8)))"
                "(drop) (local.tee 0 (i32.add (local.get 0))) (i64.const 3) (br_table 2 1 2 (i32.and (local.get 0) (i32.const 1)))"
                "(i32.const 0) (br 0) (br_table 1 2))) (i64.add (i64.const 1)) (return) (unreachable)", "(result i32 i64)"), program("(return (i32.const 5)) (loop (br 0))"),
        program("(unreachable) (i32.add) (br_table 0 0) (call $inc)"), program("(loop $a (loop $b)) (loop (result i32) (i32.const 3))"),
        program("(block (loop (br_if 1 (i32.const 1)) (br 0))) (global.set $l (i64.const 9)) (i32.wrap_i64 (global.get $l))"),
    ],
    "loops": [
        # What a loop holds survives the host: each kind of value, more integers than calls preserve, and references.
        program("(local.set 0 (i32.const 99)) (loop $l " + "".join(
            f"(local.set {index} (i32.add (i32.mul (local.get {index}) (i32.const 7)) (i32.const {index})))" for index in range(1, 8)) +
            "(local.set 8 (i64.add (i64.mul (local.get 8) (i64.const 9)) (i64.const 5))) (local.set 9 (f32.add (local.get 9) (f32.const 0.25)))"
            "(local.set 10 (f64.add (f64.mul (local.get 10) (f64.const 0.5)) (f64.const 3))) (local.set 11 (ref.func $inc))"
            "(local.set 12 (i64x2.add (i64x2.shl (local.get 12) (i32.const 1)) (v128.const i64x2 3 77)))" + _NEXT +
            "".join(f"(i32.add (local.get {index}))" if index > 1 else "(local.get 1)" for index in range(1, 8)) +
            "(i32.add (i32.wrap_i64 (local.get 8))) (i32.add (i32.trunc_f32_s (local.get 9))) (i32.add (i32.trunc_f64_s (local.get 10)))"
            "(i32.add (ref.is_null (local.get 11))) (i32.add (i32x4.extract_lane 0 (local.get 12))) (i32.add (i32x4.extract_lane 2 (local.get 12)))",
            locals="(local i32 i32 i32 i32 i32 i32 i32 i32 i64 f32 f64 funcref v128)"),
        program("(local.set 9 (f32.reinterpret_i32 (i32.const 0x7fa12345))) (local.set 10 (f64.reinterpret_i64 (i64.const 0x7ff4000000000123)))"
                "(local.set 0 (i32.const 99)) (loop $l (local.set 9 (local.get 9)) (local.set 10 (local.get 10))" + _NEXT +
                "(i32.xor (i32.reinterpret_f32 (local.get 9)) (i32.wrap_i64 (i64.reinterpret_f64 (local.get 10))))",
                locals="(local i32 i32 i32 i32 i32 i32 i32 i32 i64 f32 f64)"),
        # Branches that cross loops: out of three, to the middle one, by table, by choice, and where nothing is reached.
        program("(block $out (loop $a (local.set 0 (i32.add (local.get 0) (i32.const 1))) (loop $b (local.set 1 (i32.add (local.get 1) (i32.const 1)))"
                "(block $in (loop $c (br_if $out (i32.gt_u (local.get 0) (i32.const 30)))"
                "(br_if $b (i32.and (local.get 1) (i32.const 3))) (br_if $in (i32.and (local.get 0) (i32.const 1)))"
                "(br_table $a $in $out (i32.const 0)) (br $b) (loop (br $c) (br_table $a $b $c $out (i32.const 1)))))) (br $a))) (local.get 1)"),
        program("(loop $a (result i32) (loop $b (result i32) (br_if 2 (i32.const 5) (i32.gt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1)))"
                "(i32.const 40))) (drop) (br_table $a $b (i32.and (local.get 0) (i32.const 1)))))"),
        program("(loop $a (return (i32.const 3)) (br $a)) (unreachable)"),
        program("(i32.const 7) (f64.const 0.5) (loop $l (param i32 f64) (result f64 i32) (local.set 4) (local.set 0) (local.get 4) (local.get 0)"
                "(if (param f64 i32) (result f64 i32) (i32.lt_u (local.get 0) (i32.const 90)) (then (drop) (drop)"
                "(i32.add (local.get 0) (i32.const 1)) (f64.add (local.get 4) (f64.const 1)) (br $l)) (else))) (local.set 0) (i32.trunc_f64_s)"
                "(i32.add (local.get 0))"),
        program("(loop (loop (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 90)))))) (local.get 0)"),
        program("(loop (block (br_if 0 (i32.gt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 90))) (br 1))) (local.get 0)"),
        program("(if (i32.eqz (local.get 0)) (then (loop (br_if 1 (i32.gt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 90)))"
                "(drop (call $inc (i32.const 4))) (br 0)))) (local.get 0)"),
    ],
    "simd": [
        program("(i32x4.extract_lane 2 (i32x4.add (v128.const i32x4 1 2 3 4) (i32x4.splat (i32.const 9))))"),
        program("(v128.store (i32.const 16) (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (v128.const i64x2 5 6) (v128.load"
                "(i32.const 4)))) (v128.store32_lane 1 (i32.const 40) (i8x16.splat (i32.const 3))) (i32.load (i32.const 20))"),
        program("(i8x16.bitmask (i16x8.extmul_low_i8x16_s (i8x16.splat (i32.const -5)) (v128.load8_lane 15 (i32.const 1) (v128.const i64x2 0 0))))"),
        program("(f32x4.extract_lane 1 (f32x4.sqrt (f32x4.splat (f32.const 2))))", "(result f32)"),
    ],
}  # fmt: skip
TRAPS = [
    program("(i32.div_s (i32.const 1) (i32.const 0))"), program("(i32.div_s (i32.const 0x80000000) (i32.const -1))"),
    program("(i32.load (i32.const -5))"), program("(i32.trunc_f64_s (f64.const nan))"),
    program("(memory.fill (i32.const 0) (i32.const 0) (i32.const 900000)) (i32.const 1)"),
    program("(ref.is_null (table.get $t (i32.const 99)))"), program("(loop $l (drop (call $fib (i32.const 5))) (i32.store (i32.const 999999) (i32.const 1)) (br $l)) (i32.const 1)"),
]  # fmt: skip
START = [
    '(module (func $s nop) (func (export "r")) (start $s))',
    '(module (func $s (drop (i32.const 1))) (func (export "r") (call $s)) (start $s))',
]


def as_job(wat: str) -> str:
    """The program as a module that a worker runs: ``execute`` answers with the results of ``r``, eight bytes each, every NaN as 0."""
    kinds = re.search(r'\(export "r"\)(?: \(result ([^)]*)\))?', wat)[1].split()  # type: ignore[index]
    put = "".join(f"(local.set {len(kinds) + 1 - index})" for index in range(len(kinds)))
    for index, kind in enumerate(kinds):
        value = f"(local.get {index + 2})"
        number = f"(select {value} ({kind}.const 0) ({kind}.eq {value} {value}))" if kind[0] == "f" else value
        put += f"({kind}.store offset={65540 + 8 * index} (i32.const 0) {number})"
    answer = f"""(func (export "execute") (param i32 i32) (result i32) (local {" ".join(kinds)}) (call $r) {put}
      (i32.store (i32.const 65536) (i32.const {8 * len(kinds)})) (i32.const 65536))"""
    named = wat.replace("(memory 2 60)", '(memory (export "memory") 2 60)').replace('(func (export "r")', '(func $r (export "r")')
    return named[: named.rindex(")")] + answer + ")"


class Chance:
    """Makes valid programs that end: every loop counts its rounds, and functions call only those before them."""

    def __init__(self, seed: int) -> None:
        self._random, self._function, self._rounds = random.Random(seed), 0, 0

    def module(self) -> str:
        functions = []
        for self._function in range(4):
            self._rounds = 0
            body = "".join(self._statement(3, 0) for _ in range(self._random.randint(3, 8)))
            name = '(export "r")' if self._function == 3 else f"$f{self._function}"
            counters = "".join(f"(local $n{index} i32)" for index in range(self._rounds))
            parameters = "" if self._function == 3 else "(param i32)"
            own = "(local i32 i32 i64 f64)" if self._function == 3 else "(local i32 i64 f64)"
            functions.append(f"(func {name} {parameters} (result i32) {own} {counters} {body} {self._i32(2)})")
        return '(module (memory 1 9) (global $g (mut i32) (i32.const 1)) (table 3 funcref) (elem (i32.const 0) func $f0 $f1 $f2)' + "".join(functions) + ")"  # fmt: skip

    def _i32(self, depth: int) -> str:
        made = [lambda: f"(i32.const {self._random.randint(-9, 99)})", lambda: f"(local.get {self._random.randint(0, 1)})",
                lambda: "(global.get $g)", lambda: "(i32.wrap_i64 (local.get 2))", lambda: "(memory.size)"]  # fmt: skip
        if depth:
            made += [
                lambda: (
                    f"(i32.{self._random.choice(['add', 'mul', 'xor', 'lt_s', 'shr_u', 'eq'])} {self._i32(depth - 1)} {self._i32(depth - 1)})"
                ),
                lambda: f"(i32.load8_u (i32.and {self._i32(depth - 1)} (i32.const 65535)))",
                lambda: f"(select {self._i32(depth - 1)} {self._i32(depth - 1)} {self._i32(depth - 1)})",
                lambda: f"(if (result i32) {self._i32(depth - 1)} (then {self._i32(depth - 1)}) (else {self._i32(depth - 1)}))",
                lambda: f"(block (result i32) (br_if 0 {self._i32(depth - 1)} {self._i32(depth - 1)}) (drop) {self._i32(depth - 1)})",
                lambda: f"(memory.grow (i32.and {self._i32(depth - 1)} (i32.const 3)))",
                lambda: f"(local.tee 0 {self._i32(depth - 1)})",
            ]
            if self._function:
                made += [lambda: f"(call $f{self._random.randrange(self._function)} {self._i32(depth - 1)})",
                         lambda: f"(call_indirect (param i32) (result i32) {self._i32(depth - 1)} (i32.const {self._random.randrange(self._function)}))"]  # fmt: skip
        return self._random.choice(made)()

    def _body(self, depth: int, labels: int) -> str:
        return "".join(self._statement(depth - 1, labels) for _ in range(self._random.randint(0, 3)))

    def _statement(self, depth: int, labels: int) -> str:
        made = [
            lambda: f"(local.set {self._random.randint(0, 1)} {self._i32(2)})", lambda: f"(global.set $g {self._i32(1)})", lambda: "(nop)",
            lambda: f"(drop {self._i32(2)})", lambda: f"(i32.store8 (i32.and {self._i32(1)} (i32.const 65535)) {self._i32(1)})",
            lambda: f"(memory.fill (i32.const 7) (i32.const 1) (i32.and {self._i32(1)} (i32.const 63)))",
            lambda: "(local.set 3 (f64.sqrt (f64.add (local.get 3) (f64.const 2))))",
            lambda: f"(if {self._i32(1)} (then (return {self._i32(1)})))",
        ]  # fmt: skip
        if labels:
            made += [lambda: f"(br_if {self._random.randrange(labels)} {self._i32(1)})", lambda: f"(br {self._random.randrange(labels)})",
                     lambda: f"(br_table {self._random.randrange(labels)} {self._random.randrange(labels)} {self._i32(1)})"]  # fmt: skip
        if depth:
            made += [lambda: f"(block {self._body(depth, labels + 1)})", lambda: self._loop(depth), lambda: self._loop(depth),
                     lambda: f"(if {self._i32(1)} (then {self._body(depth, labels + 1)}) (else {self._body(depth, labels + 1)}))",
                     lambda: f"(if {self._i32(1)} (then {self._body(depth, labels + 1)}))"]  # fmt: skip
        return self._random.choice(made)()

    def _loop(self, depth: int) -> str:
        """Only its own last branch goes back to its head, so that it ends; the block in it may be left from anywhere within."""
        counter, self._rounds = self._rounds, self._rounds + 1
        count = f"(local.tee $n{counter} (i32.add (local.get $n{counter}) (i32.const 1)))"
        return f"(loop (block {self._body(depth, 1)}) (br_if 0 (i32.lt_u {count} (i32.const {self._random.randint(1, 6)}))))"
