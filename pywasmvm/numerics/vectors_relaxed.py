"""Relaxed vector instructions: the specification allows several results, and here it is always the same one.

The choices are those of the specification's deterministic profile, so results agree with other engines that
follow it:

| instructions | choice |
| --- | --- |
| `relaxed_swizzle` | zero for numbers beyond 15 |
| `relaxed_trunc_*` | saturation, zero for NaN |
| `relaxed_laneselect` | bit by bit |
| `relaxed_min`, `relaxed_max` | NaN if either is, -0.0 below 0.0 |
| `relaxed_q15mulr_s` | saturation |
| `relaxed_madd`, `relaxed_nmadd` | one rounding |
| `relaxed_dot_*` | all bytes signed, sums of two products modulo 2^16 |
"""

from __future__ import annotations

import math
import operator

from pywasmvm.numerics.bits import as_f32, f64_to_bits
from pywasmvm.numerics.lanes import F32X4, F64X2, I8X16, I16X8, I32X4, FloatShape, instruction
from pywasmvm.numerics.vectors_convert import pair_products

#: Relaxed instructions that do what a strict one does.
STRICT: dict[str, str] = {
    "i8x16.relaxed_swizzle": "i8x16.swizzle",
    "i32x4.relaxed_trunc_f32x4_s": "i32x4.trunc_sat_f32x4_s",
    "i32x4.relaxed_trunc_f32x4_u": "i32x4.trunc_sat_f32x4_u",
    "i32x4.relaxed_trunc_f64x2_s_zero": "i32x4.trunc_sat_f64x2_s_zero",
    "i32x4.relaxed_trunc_f64x2_u_zero": "i32x4.trunc_sat_f64x2_u_zero",
    "i8x16.relaxed_laneselect": "v128.bitselect",
    "i16x8.relaxed_laneselect": "v128.bitselect",
    "i32x4.relaxed_laneselect": "v128.bitselect",
    "i64x2.relaxed_laneselect": "v128.bitselect",
    "f32x4.relaxed_min": "f32x4.min",
    "f32x4.relaxed_max": "f32x4.max",
    "f64x2.relaxed_min": "f64x2.min",
    "f64x2.relaxed_max": "f64x2.max",
    "i16x8.relaxed_q15mulr_s": "i16x8.q15mulr_sat_s",
}

# -- multiplication and addition in one rounding -----------------------------------------------------------


def fused_f64(x: float, y: float, z: float) -> float:
    """`x * y + z` rounded once."""
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        # Infinities and NaNs need no precision; but a finite product must not overflow on the way.
        return x * y + z if not (math.isfinite(x) and math.isfinite(y)) else z
    (a, b), (c, d), (e, f) = x.as_integer_ratio(), y.as_integer_ratio(), z.as_integer_ratio()
    numerator, denominator = a * c * f + e * b * d, b * d * f
    if not numerator:
        return x * y + z  # exact, since `x * y` is `-z`; and it has the right zero
    try:
        return numerator / denominator  # rounded once, whatever the size of the integers
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def fused_f32(x: float, y: float, z: float) -> float:
    """`x * y + z` of f32s rounded once to f32."""
    product = x * y  # exact in double
    total = product + z
    if not math.isfinite(total):
        return total  # no product or sum of finite f32s comes near the limit of doubles
    # What `total` lost by rounding, exactly.
    part = total - product
    lost = (product - (total - part)) + (z - part)
    # To round again is right only if the first time was to odd: of the two doubles around the exact sum the
    # one whose last bit is set. Its bits then tell on which side of a midpoint between f32s the sum lies.
    if lost and not f64_to_bits(total) & 1:
        total = math.nextafter(total, math.copysign(math.inf, lost))
    as_f32[0] = total
    return as_f32[0]  # type: ignore[no-any-return]


def _fused(shape: FloatShape) -> None:
    split, join = shape.floats, shape.join_floats
    fused = fused_f32 if shape is F32X4 else fused_f64

    @instruction(shape, "relaxed_madd")
    def madd(a: int, b: int, c: int) -> int:
        """`a * b + c`, rounded once."""
        return join(map(fused, split(a), split(b), split(c)))

    @instruction(shape, "relaxed_nmadd")
    def nmadd(a: int, b: int, c: int) -> int:
        """`c - a * b`, rounded once."""
        return join(map(fused, split(a ^ shape.tops), split(b), split(c)))


_fused(F32X4)
_fused(F64X2)


# -- dot products ------------------------------------------------------------------------------------------


def i16x8_relaxed_dot_i8x16_i7x16_s(a: int, b: int) -> int:
    """Of each two neighbouring signed bytes the sum of their products, modulo 2^16."""
    return I16X8.join([x & 0xFFFF for x in pair_products(I8X16.signed(a), I8X16.signed(b))])


def i32x4_relaxed_dot_i8x16_i7x16_add_s(a: int, b: int, c: int) -> int:
    """Of each four neighbouring signed bytes the sum of their products, and the lane of `c`."""
    pairs = I16X8.signed(i16x8_relaxed_dot_i8x16_i7x16_s(a, b))
    sums = map(operator.add, map(operator.add, pairs[::2], pairs[1::2]), I32X4.unsigned(c))
    return I32X4.join([x & 0xFFFF_FFFF for x in sums])
