"""A program for each family of operators, in which every one of them is executed, and its result becomes part of the program's own."""

from __future__ import annotations

from collections.abc import Iterator

from offchainvm.engine import meter_code
from offchainvm.engine.binary import Reader, read_sections
from offchainvm.engine.limits import ModuleLimits

_VALUES = {
    "i32": ("(i32.const 0x71a2b3c4)", "(i32.const 0x5d)"),
    "i64": ("(i64.const 0x7162534435261708)", "(i64.const 0x1f2e3)"),
    "f32": ("(f32.const 12.625)", "(f32.const -3.5)"),
    "f64": ("(f64.const 1234.0625)", "(f64.const -7.25)"),
    "v128": (
        "(v128.const i32x4 0x418a2c11 0x7f0180fe 0x42f18003 0x00ff7f81)",
        "(v128.const i32x4 0x3fa00001 0x01020304 0xc2f0a0b0 0x11223344)",
    ),
}  # fmt: skip
_TO_I64 = {
    "i32": "(i64.extend_i32_u {})", "i64": "{}", "f32": "(i64.extend_i32_u (i32.reinterpret_f32 {}))", "f64": "(i64.reinterpret_f64 {})",
    "v128": "(i64.xor (i64x2.extract_lane 0 (local.tee $v {})) (i64.rotl (i64x2.extract_lane 1 (local.get $v)) (i64.const 9)))",
}  # fmt: skip
_INTEGERS, _FLOATS = ("i32", "i64"), ("f32", "f64")
_LANES = {"i8x16": "i32", "i16x8": "i32", "i32x4": "i32", "i64x2": "i64", "f32x4": "f32", "f64x2": "f64"}
_HALF = {"i16x8": "i8x16", "i32x4": "i16x8", "i64x2": "i32x4"}
_WHOLE_ORDER = "lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"


def _applied(result: str, kinds: str, *names: str) -> list[tuple[str, str]]:
    """(result's kind, expression) of these operators, with values of these kinds."""
    every = kinds.split()
    values = " ".join(_VALUES[kind][every[:place].count(kind) % 2] for place, kind in enumerate(every))
    return [(result, f"({name} {values})") for name in names]


def _stored(result: str, kind: str, name: str) -> tuple[str, str]:
    """A store, and what is there then, a byte before it too."""
    return result, f"(block (result {result}) ({name} (i32.const 1) {_VALUES[kind][0]}) ({result}.load offset=64 (i32.const 0)))"


def _each(prefix: str, names: str) -> list[str]:
    return [f"{prefix}.{name}" for name in names.split()]


def _numbers() -> Iterator[tuple[str, str]]:
    for kind in _INTEGERS:
        yield from _applied("i32", kind, f"{kind}.eqz")
        yield from _applied("i32", f"{kind} {kind}", *_each(kind, f"eq ne {_WHOLE_ORDER}"))
        yield from _applied(kind, kind, *_each(kind, "clz ctz popcnt extend8_s extend16_s"))
        yield from _applied(
            kind, f"{kind} {kind}", *_each(kind, "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr")
        )
        for other in _FLOATS:
            yield from _applied(kind, other, *_each(kind, f"trunc_{other}_s trunc_{other}_u trunc_sat_{other}_s trunc_sat_{other}_u"))
    for kind in _FLOATS:
        yield from _applied("i32", f"{kind} {kind}", *_each(kind, "eq ne lt gt le ge"))
        yield from _applied(kind, kind, *_each(kind, "abs neg ceil floor trunc nearest sqrt"))
        yield from _applied(kind, f"{kind} {kind}", *_each(kind, "add sub mul div min max copysign"))
        for other in _INTEGERS:
            yield from _applied(kind, other, *_each(kind, f"convert_{other}_s convert_{other}_u"))
    yield from _applied("i32", "i64", "i32.wrap_i64")
    yield from _applied("i64", "i32", "i64.extend_i32_s", "i64.extend_i32_u")
    yield from _applied("i64", "i64", "i64.extend32_s")
    yield from _applied("f32", "f64", "f32.demote_f64")
    yield from _applied("f64", "f32", "f64.promote_f32")
    for one, other in (("i32", "f32"), ("i64", "f64")):
        yield from _applied(one, other, f"{one}.reinterpret_{other}")
        yield from _applied(other, one, f"{other}.reinterpret_{one}")


def _memory() -> Iterator[tuple[str, str]]:
    for kind in (*_INTEGERS, *_FLOATS):
        narrow = {"i32": ("8", "16"), "i64": ("8", "16", "32")}.get(kind, ())
        for name in (f"{kind}.load", *(f"{kind}.load{bits}_{sign}" for bits in narrow for sign in "su")):
            yield kind, f"({name} offset=3 (i32.const 1))"
        for name in (f"{kind}.store", *(f"{kind}.store{bits}" for bits in narrow)):
            yield _stored(kind, kind, f"{name} offset=64")


def _vectors() -> Iterator[tuple[str, str]]:
    two = "v128 v128"
    yield "v128", "(v128.const i64x2 3 4)"
    yield "v128", f"(i8x16.shuffle 0 17 2 19 4 21 6 23 8 25 10 27 12 29 14 31 {' '.join(_VALUES['v128'])})"
    for name in _each("v128", "load load8_splat load16_splat load32_splat load64_splat"):
        yield "v128", f"({name} offset=3 (i32.const 1))"
    for bits, count in ((8, 8), (16, 4), (32, 2)):
        yield from (("v128", f"(v128.load{bits}x{count}_{sign} offset=3 (i32.const 1))") for sign in "su")
    yield _stored("v128", "v128", "v128.store offset=64")
    yield from _applied("v128", "v128", "v128.not")
    yield from _applied("v128", two, *_each("v128", "and andnot or xor"), "i8x16.swizzle")
    yield from _applied("v128", f"{two} v128", "v128.bitselect")
    yield from _applied("i32", "v128", "v128.any_true")
    for shape, lane in _LANES.items():
        yield from _applied("v128", lane, f"{shape}.splat")
        yield from _applied("v128", f"v128 {lane}", f"{shape}.replace_lane 1")
        signs = ("_s", "_u") if shape in ("i8x16", "i16x8") else ("",)
        yield from _applied(lane, "v128", *(f"{shape}.extract_lane{sign} 1" for sign in signs))
        if shape[0] == "f":
            yield from _applied("v128", two, *_each(shape, "eq ne lt gt le ge add sub mul div min max"))
            yield from _applied("v128", "v128", *_each(shape, "abs neg"))
            continue
        yield from _applied("v128", two, *_each(shape, "add sub"))
        yield from _applied("v128", "v128", f"{shape}.neg")
        yield from _applied("v128", "v128 i32", *_each(shape, "shl shr_s shr_u"))
        if shape != "i64x2":
            yield from _applied("v128", two, *_each(shape, f"eq ne {_WHOLE_ORDER} min_s min_u max_s max_u"))
            yield from _applied("i32", "v128", *_each(shape, "all_true bitmask"))
        if shape != "i8x16":
            yield from _applied("v128", two, f"{shape}.mul")
    for shape in ("i8x16", "i16x8"):
        yield from _applied("v128", two, *_each(shape, "add_sat_s add_sat_u sub_sat_s sub_sat_u avgr_u"))
    for shape, wide in (("i8x16", "i16x8"), ("i16x8", "i32x4")):
        yield from _applied("v128", two, *_each(shape, f"narrow_{wide}_s narrow_{wide}_u"))
        extended = [f"{wide}.extend_{part}_{shape}_{sign}" for part in ("low", "high") for sign in "su"]
        yield from _applied("v128", "v128", *extended)
    yield from _applied("v128", "v128", *_each("i32x4", "trunc_sat_f32x4_s trunc_sat_f32x4_u"))
    yield from _applied("v128", "v128", *_each("f32x4", "convert_i32x4_s convert_i32x4_u"))


def _more_vectors() -> Iterator[tuple[str, str]]:
    two = "v128 v128"
    for bits, lane in ((8, 5), (16, 3), (32, 2), (64, 1)):
        yield "v128", f"(v128.load{bits}_lane offset=3 {lane} (i32.const 1) {_VALUES['v128'][0]})"
        yield _stored("i64", "v128", f"v128.store{bits}_lane offset=64 {lane}")
    yield from (("v128", f"(v128.load{bits}_zero offset=3 (i32.const 1))") for bits in (32, 64))
    yield from _applied("v128", "v128", "i8x16.popcnt", *(f"{shape}.abs" for shape in ("i8x16", "i16x8", "i32x4", "i64x2")))
    yield from _applied("v128", two, *_each("i64x2", "eq ne lt_s gt_s le_s ge_s"), "i16x8.q15mulr_sat_s", "i32x4.dot_i16x8_s")
    yield from _applied("i32", "v128", *_each("i64x2", "all_true bitmask"))
    for shape, half in _HALF.items():
        parts = [f"{part}_{half}_{sign}" for part in ("low", "high") for sign in "su"]
        yield from _applied("v128", two, *(f"{shape}.extmul_{part}" for part in parts))
        if shape == "i64x2":
            yield from _applied("v128", "v128", *(f"{shape}.extend_{part}" for part in parts))
        else:
            yield from _applied("v128", "v128", *(f"{shape}.extadd_pairwise_{half}_{sign}" for sign in "su"))
    for shape in ("f32x4", "f64x2"):
        yield from _applied("v128", two, *_each(shape, "pmin pmax"))
        yield from _applied("v128", "v128", *_each(shape, "ceil floor trunc nearest sqrt"))
    yield from _applied("v128", "v128", *_each("i32x4", "trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero"))
    yield from _applied(
        "v128", "v128", *_each("f64x2", "convert_low_i32x4_s convert_low_i32x4_u promote_low_f32x4"), "f32x4.demote_f64x2_zero"
    )


_LATER = (
    "i8x16.popcnt", "q15mulr", "extmul", "extadd", "i64x2.extend", "f64x2_s_zero", "f64x2_u_zero", "f64x2_zero", "promote_low",
    "convert_low_i32x4_u",
)  # fmt: skip
"""What came into the standard last; wasmer has not heard of it."""


def _families() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    vectors = [*_vectors(), *_more_vectors()]
    yield "numbers", list(_numbers())
    yield "memory", list(_memory())
    yield "swizzle", [item for item in vectors if "swizzle" in item[1]]
    yield "vectors", [item for item in vectors if not any(name in item[1] for name in (*_LATER, "swizzle"))]
    yield "later vectors", [item for item in vectors if any(name in item[1] for name in _LATER)]


FAMILIES = dict(_families())


def program(family: list[tuple[str, str]]) -> str:
    """``r`` gives what all of them gave, mixed."""
    mixed = "".join(
        f"(local.set $h (i64.rotl (i64.xor (local.get $h) {_TO_I64[kind].format(value)}) (i64.const 7)))" for kind, value in family
    )
    data = "".join(f"\\{37 * place % 251:02x}" for place in range(32))
    return f"""(module (memory 2 60) (data (i32.const 0) "{data}")
      (func (export "r") (result i64) (local $h i64) (local $v v128) {mixed} (local.get $h)))"""


def operators(wasm: bytes) -> Iterator[tuple[int, ...]]:
    """The operators of a module without tables of branches: a byte each, or two numbers behind a prefix."""
    for start, end in read_sections(wasm, ModuleLimits()).bodies:
        reader = Reader(wasm, start, end)
        for _ in range(reader.leb()):
            reader.leb()
            reader.skip(1)
        while not reader.done:
            match = meter_code._OPERATOR.match(wasm, reader.position, end)
            assert match is not None
            opcode = wasm[reader.position]
            yield (opcode, Reader(wasm, reader.position + 1, end).leb()) if opcode in (0xFC, 0xFD) else (opcode,)
            reader.position = match.end()
