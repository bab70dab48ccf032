"""Relaxed vector instructions: the specification allows several results, and here it is always the same one.

The choices are those of the specification's deterministic profile, so that results agree with other engines
that follow it: a strict instruction where there is one, fused multiplication and addition, and signed bytes
in dot products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pywasmvm.numerics import vectors, vectors_float
from pywasmvm.numerics.bits import (
    f32_from_bits,
    f32_from_python,
    f32_to_bits,
    f64_from_bits,
    f64_to_bits,
)
from pywasmvm.numerics.shapes import F32X4, F64X2, I8X16, I16X8, I32X4, Shape, named

if TYPE_CHECKING:
    from fractions import Fraction

#: Relaxed instructions that do what a strict one does.
STRICT: dict[str, str] = {
    "i8x16_relaxed_swizzle": "i8x16_swizzle",
    "i32x4_relaxed_trunc_f32x4_s": "i32x4_trunc_sat_f32x4_s",
    "i32x4_relaxed_trunc_f32x4_u": "i32x4_trunc_sat_f32x4_u",
    "i32x4_relaxed_trunc_f64x2_s_zero": "i32x4_trunc_sat_f64x2_s_zero",
    "i32x4_relaxed_trunc_f64x2_u_zero": "i32x4_trunc_sat_f64x2_u_zero",
    "i8x16_relaxed_laneselect": "v128_bitselect",
    "i16x8_relaxed_laneselect": "v128_bitselect",
    "i32x4_relaxed_laneselect": "v128_bitselect",
    "i64x2_relaxed_laneselect": "v128_bitselect",
    "f32x4_relaxed_min": "f32x4_min",
    "f32x4_relaxed_max": "f32x4_max",
    "f64x2_relaxed_min": "f64x2_min",
    "f64x2_relaxed_max": "f64x2_max",
    "i16x8_relaxed_q15mulr_s": "i16x8_q15mulr_sat_s",
}

for _relaxed, _strict in STRICT.items():
    globals()[_relaxed] = getattr(vectors, _strict, None) or getattr(vectors_float, _strict)


# -- multiplication and addition in one rounding -----------------------------------------------------------


def _fused(x: float, y: float, z: float, narrow: bool) -> float:
    """`x * y + z` rounded once, to f32 when `narrow`."""
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        # Infinities and NaNs need no precision; a finite product must not overflow on the way, though.
        product = x * y if not (math.isfinite(x) and math.isfinite(y)) else 0.0
        result = product + z
        return result if result == result else math.nan
    from fractions import Fraction  # slow to import, and few modules come here

    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        return x * y + z  # only the sign of zero is open, and rounding does not change that
    try:
        nearest = float(exact)
    except OverflowError:
        nearest = math.inf if exact > 0 else -math.inf
    return _to_f32(exact, nearest) if narrow else nearest


def _to_f32(exact: Fraction, nearest: float) -> float:
    """The f32 next to `exact`, whose nearest f64 is known.

    Rounding twice could be wrong; rounding first to the neighbour with an odd last bit never is.
    """
    if math.isfinite(nearest) and nearest != exact:  # Python compares floats and fractions exactly
        if abs(nearest) > abs(exact):
            nearest = math.nextafter(nearest, 0.0)
        nearest = f64_from_bits(f64_to_bits(nearest) | 1)
    return f32_from_python(nearest)


def _madd(
    shape: Shape, decode: Callable[[int], Any], encode: Callable[[Any], int], negate: bool
) -> Callable[[int, int, int], int]:
    narrow = shape is F32X4
    sign = -1.0 if negate else 1.0

    def compute(a: int, b: int, c: int) -> int:
        triples = zip(shape.unsigned(a), shape.unsigned(b), shape.unsigned(c), strict=True)
        return shape.join(
            [encode(_fused(sign * decode(x), decode(y), decode(z), narrow)) for x, y, z in triples]
        )

    name = "relaxed_nmadd" if negate else "relaxed_madd"
    return named(compute, shape, name, "a * b + c, or c - a * b, rounded once.")


f32x4_relaxed_madd = _madd(F32X4, f32_from_bits, f32_to_bits, negate=False)
f32x4_relaxed_nmadd = _madd(F32X4, f32_from_bits, f32_to_bits, negate=True)
f64x2_relaxed_madd = _madd(F64X2, f64_from_bits, f64_to_bits, negate=False)
f64x2_relaxed_nmadd = _madd(F64X2, f64_from_bits, f64_to_bits, negate=True)


# -- dot products ------------------------------------------------------------------------------------------


def i16x8_relaxed_dot_i8x16_i7x16_s(a: int, b: int) -> int:
    """Sums of the products of neighbouring bytes, both signed."""
    return I16X8.join(vectors.pair_products(I8X16.signed(a), I8X16.signed(b)))


def i32x4_relaxed_dot_i8x16_i7x16_add_s(a: int, b: int, c: int) -> int:
    """Sums of the products of each four bytes, both signed, and the lane of `c`."""
    pairs = I16X8.signed(i16x8_relaxed_dot_i8x16_i7x16_s(a, b))
    sums = zip(pairs[::2], pairs[1::2], I32X4.unsigned(c), strict=True)
    return I32X4.join([x + y + z for x, y, z in sums])
