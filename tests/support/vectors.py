"""Vector instructions with their operands, and vectors to try them on.

Written out here rather than read from `pywasmvm.isa`, so that a wrong row there is noticed. Values are bit
patterns; `operand` and `bits` of `tests.support.numeric` turn scalars into the VM's representation and back.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import strategies as st

from tests.support.numeric import EDGES

# shape -> (bits of a lane, number of lanes, type of a lane outside of the vector)
SHAPES: dict[str, tuple[int, int, str]] = {
    "i8x16": (8, 16, "i32"),
    "i16x8": (16, 8, "i32"),
    "i32x4": (32, 4, "i32"),
    "i64x2": (64, 2, "i64"),
    "f32x4": (32, 4, "f32"),
    "f64x2": (64, 2, "f64"),
}
INTEGERS = ("i8x16", "i16x8", "i32x4", "i64x2")
#: Shapes and those of half as wide lanes.
NARROWER = {"i16x8": "i8x16", "i32x4": "i16x8", "i64x2": "i32x4"}

ONE, TWO, THREE = ("v128",), ("v128", "v128"), ("v128", "v128", "v128")

FLOAT_UNARY = ["sqrt", "ceil", "floor", "trunc", "nearest"]
FLOAT_BINARY = ["add", "sub", "mul", "div", "min", "max"]
FLOAT_COMPARE = ["eq", "ne", "lt", "gt", "le", "ge"]
INTEGER_COMPARE = ["eq", "ne", "lt_s", "gt_s", "le_s", "ge_s"]
UNSIGNED_COMPARE = ["lt_u", "gt_u", "le_u", "ge_u"]

# instruction -> (operand types, result type); lane immediates apart, in LANES
INSTRUCTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "v128.not": (ONE, "v128"),
    "v128.and": (TWO, "v128"),
    "v128.andnot": (TWO, "v128"),
    "v128.or": (TWO, "v128"),
    "v128.xor": (TWO, "v128"),
    "v128.bitselect": (THREE, "v128"),
    "v128.any_true": (ONE, "i32"),
    "i8x16.shuffle": (TWO, "v128"),
    "i8x16.swizzle": (TWO, "v128"),
    "i8x16.popcnt": (ONE, "v128"),
    "i16x8.q15mulr_sat_s": (TWO, "v128"),
    "i32x4.dot_i16x8_s": (TWO, "v128"),
    "i8x16.relaxed_swizzle": (TWO, "v128"),
    "i16x8.relaxed_q15mulr_s": (TWO, "v128"),
    "i16x8.relaxed_dot_i8x16_i7x16_s": (TWO, "v128"),
    "i32x4.relaxed_dot_i8x16_i7x16_add_s": (THREE, "v128"),
}
#: Instructions that name a lane, and how many lanes there are to name.
LANES: dict[str, int] = {}


def _add(shape: str, operands: tuple[str, ...], names: Iterable[str], result: str = "v128") -> None:
    INSTRUCTIONS.update({f"{shape}.{name}": (operands, result) for name in names})


for _shape, (_bits, _count, _lane) in SHAPES.items():
    _add(_shape, (_lane,), ["splat"])
    _ways = ["extract_lane_s", "extract_lane_u"] if _bits < 32 else ["extract_lane"]
    _add(_shape, ONE, _ways, _lane)
    _add(_shape, ("v128", _lane), ["replace_lane"])
    LANES.update({f"{_shape}.{name}": _count for name in (*_ways, "replace_lane")})
    _add(_shape, ONE, ["abs", "neg"])
    _add(_shape, TWO, ["add", "sub"])
for _shape in INTEGERS:
    _add(_shape, ("v128", "i32"), ["shl", "shr_s", "shr_u"])
    _add(_shape, TWO, INTEGER_COMPARE)
    _add(_shape, ONE, ["all_true", "bitmask"], "i32")
    _add(_shape, THREE, ["relaxed_laneselect"])
for _shape in ("i8x16", "i16x8", "i32x4"):
    _add(_shape, TWO, UNSIGNED_COMPARE)
    _add(_shape, TWO, ["min_s", "min_u", "max_s", "max_u"])
for _shape in ("i8x16", "i16x8"):
    _add(_shape, TWO, ["add_sat_s", "add_sat_u", "sub_sat_s", "sub_sat_u", "avgr_u"])
for _shape in ("i16x8", "i32x4", "i64x2"):
    _half = NARROWER[_shape]
    _add(_shape, TWO, ["mul"])
    _add(_shape, ONE, [f"extend_{part}_{_half}_{sign}" for part in ("low", "high") for sign in "su"])
    _add(_shape, TWO, [f"extmul_{part}_{_half}_{sign}" for part in ("low", "high") for sign in "su"])
for _shape in ("i16x8", "i32x4"):
    _half = NARROWER[_shape]
    _add(_shape, ONE, [f"extadd_pairwise_{_half}_{sign}" for sign in "su"])
    _add(_half, TWO, [f"narrow_{_shape}_{sign}" for sign in "su"])
for _shape in ("f32x4", "f64x2"):
    _add(_shape, ONE, FLOAT_UNARY)
    _add(_shape, TWO, [*FLOAT_BINARY, *FLOAT_COMPARE, "pmin", "pmax", "relaxed_min", "relaxed_max"])
    _add(_shape, THREE, ["relaxed_madd", "relaxed_nmadd"])
for _sign in "su":
    _add("f32x4", ONE, [f"convert_i32x4_{_sign}"])
    _add("f64x2", ONE, [f"convert_low_i32x4_{_sign}"])
    _add("i32x4", ONE, [f"trunc_sat_f32x4_{_sign}", f"trunc_sat_f64x2_{_sign}_zero"])
    _add("i32x4", ONE, [f"relaxed_trunc_f32x4_{_sign}", f"relaxed_trunc_f64x2_{_sign}_zero"])
_add("f32x4", ONE, ["demote_f64x2_zero"])
_add("f64x2", ONE, ["promote_low_f32x4"])

# load -> bytes it reads
LOADS: dict[str, int] = {"v128.load": 16, "v128.load32_zero": 4, "v128.load64_zero": 8}
LOADS |= {f"v128.load{_bits}_splat": _bits // 8 for _bits in (8, 16, 32, 64)}
LOADS |= {f"v128.load{_half}_{_sign}": 8 for _half in ("8x8", "16x4", "32x2") for _sign in "su"}
LANE_LOADS: dict[str, int] = {f"v128.load{_bits}_lane": _bits // 8 for _bits in (8, 16, 32, 64)}
LANE_STORES: dict[str, int] = {f"v128.store{_bits}_lane": _bits // 8 for _bits in (8, 16, 32, 64)}


def join(bits: int, lanes: Iterable[int]) -> int:
    """The vector with these lanes, whose bits beyond the width are dropped."""
    vector = 0
    for place, lane in enumerate(lanes):
        vector |= lane % 2**bits << place * bits
    return vector


def split(bits: int, vector: int, signed: bool = False) -> list[int]:
    """The lanes of a vector, lane 0 first."""
    lanes = [vector >> place & (2**bits - 1) for place in range(0, 128, bits)]
    return [lane - 2**bits if signed and lane >> bits - 1 else lane for lane in lanes]


def _edges(bits: int) -> list[int]:
    near = {centre + step for centre in (0, 2 ** (bits // 2), 2 ** (bits - 1)) for step in (-2, -1, 0, 1, 2)}
    return sorted(lane % 2**bits for lane in near)


#: Lanes worth trying, by shape.
LANE_EDGES: dict[str, list[int]] = {
    **{shape: _edges(SHAPES[shape][0]) for shape in INTEGERS},
    "f32x4": EDGES["f32"],
    "f64x2": EDGES["f64"],
}


def random_vector(source: random.Random) -> int:
    """A vector of edge values of some shape, of one lane over and over, or of any bits."""
    shape = source.choice([*SHAPES])
    bits, count, _ = SHAPES[shape]
    way = source.randrange(4)
    if way == 0:
        return source.getrandbits(128)
    if way == 1:
        return join(bits, [source.choice(LANE_EDGES[shape])] * count)
    return join(bits, source.choices(LANE_EDGES[shape], k=count))


def _vectors_of(shape: str) -> st.SearchStrategy[int]:
    bits, count, _ = SHAPES[shape]
    lane = st.sampled_from(LANE_EDGES[shape]) | st.integers(0, 2**bits - 1)
    return st.lists(lane, min_size=count, max_size=count).map(lambda lanes: join(bits, lanes))


def vectors(*shapes: str) -> st.SearchStrategy[int]:
    """Vectors with edge values in lanes of these shapes (all shapes, if none is given)."""
    return st.one_of(*map(_vectors_of, shapes or SHAPES))
