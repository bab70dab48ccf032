"""Floating-point instructions of f32 and f64, one pure function each, named after the instruction.

Spec: Execution, Numerics, Floating-Point Operations. f64 is a Python float; f32 is one that is exactly
an f32. f32 arithmetic is done in double and rounded once more, which is provably the f32 result for
add, sub, mul, div and sqrt (53 >= 2 * 24 + 2). Computed NaNs are the positive canonical one; abs, neg
and copysign only move the sign bit, of NaNs too.
"""

from __future__ import annotations

from math import ceil, copysign, fabs, floor, inf, nan, sqrt, trunc

from pywasmvm.numerics.bits import as_f32, f32_from_bits, f32_to_bits

# `math` rounds to integers and refuses infinities and NaN; `try` costs nothing until then.

# -- f64 -------------------------------------------------------------------------------------------------


def f64_abs(a: float) -> float:
    return fabs(a)


def f64_neg(a: float) -> float:
    return -a


def f64_copysign(a: float, b: float) -> float:
    return copysign(a, b)


def f64_ceil(a: float) -> float:
    try:
        return copysign(ceil(a), a)  # the sign of zero comes from the operand
    except (OverflowError, ValueError):
        return a if a == a else nan


def f64_floor(a: float) -> float:
    try:
        return copysign(floor(a), a)
    except (OverflowError, ValueError):
        return a if a == a else nan


def f64_trunc(a: float) -> float:
    try:
        return copysign(trunc(a), a)
    except (OverflowError, ValueError):
        return a if a == a else nan


def f64_nearest(a: float) -> float:
    try:
        return copysign(round(a), a)  # Python rounds half to even
    except (OverflowError, ValueError):
        return a if a == a else nan


def f64_sqrt(a: float) -> float:
    return sqrt(a) if a >= 0.0 else nan


def f64_add(a: float, b: float) -> float:
    result = a + b
    return result if result == result else nan


def f64_sub(a: float, b: float) -> float:
    result = a - b
    return result if result == result else nan


def f64_mul(a: float, b: float) -> float:
    result = a * b
    return result if result == result else nan


def f64_div(a: float, b: float) -> float:
    if b:
        result = a / b
        return result if result == result else nan
    return copysign(inf, a) * copysign(inf, b) if a and a == a else nan


def f64_min(a: float, b: float) -> float:
    if a < b:
        return a
    if b < a:
        return b
    if a == b:
        return a if a else -(-a - b)  # of two zeros -0.0 if either is
    return nan


def f64_max(a: float, b: float) -> float:
    if a > b:
        return a
    if b > a:
        return b
    if a == b:
        return a if a else a + b  # of two zeros -0.0 only if both are
    return nan


def f64_eq(a: float, b: float) -> int:
    return 1 if a == b else 0


def f64_ne(a: float, b: float) -> int:
    return 1 if a != b else 0


def f64_lt(a: float, b: float) -> int:
    return 1 if a < b else 0


def f64_gt(a: float, b: float) -> int:
    return 1 if a > b else 0


def f64_le(a: float, b: float) -> int:
    return 1 if a <= b else 0


def f64_ge(a: float, b: float) -> int:
    return 1 if a >= b else 0


# -- f32 -------------------------------------------------------------------------------------------------
# Whatever `as_f32[0]` gives for a NaN is a plain float, and so stands for the canonical NaN.


def f32_abs(a: float) -> float:
    return fabs(a) if a == a else f32_from_bits(f32_to_bits(a) & 0x7FFFFFFF)


def f32_neg(a: float) -> float:
    return -a if a == a else f32_from_bits(f32_to_bits(a) ^ 0x80000000)


def f32_copysign(a: float, b: float) -> float:
    if a == a and b == b:
        return copysign(a, b)
    return f32_from_bits(f32_to_bits(a) & 0x7FFFFFFF | f32_to_bits(b) & 0x80000000)


def f32_sqrt(a: float) -> float:
    if a >= 0.0:
        as_f32[0] = sqrt(a)
        return as_f32[0]  # type: ignore[no-any-return]
    return nan


def f32_add(a: float, b: float) -> float:
    as_f32[0] = a + b
    return as_f32[0]  # type: ignore[no-any-return]


def f32_sub(a: float, b: float) -> float:
    as_f32[0] = a - b
    return as_f32[0]  # type: ignore[no-any-return]


def f32_mul(a: float, b: float) -> float:
    as_f32[0] = a * b
    return as_f32[0]  # type: ignore[no-any-return]


def f32_div(a: float, b: float) -> float:
    if b:
        as_f32[0] = a / b
        return as_f32[0]  # type: ignore[no-any-return]
    return copysign(inf, a) * copysign(inf, b) if a and a == a else nan


# Rounding an f32 to an integer, picking one of two and comparing them give the same in both widths.
f32_ceil = f64_ceil
f32_floor = f64_floor
f32_trunc = f64_trunc
f32_nearest = f64_nearest
f32_min = f64_min
f32_max = f64_max
f32_eq = f64_eq
f32_ne = f64_ne
f32_lt = f64_lt
f32_gt = f64_gt
f32_le = f64_le
f32_ge = f64_ge
