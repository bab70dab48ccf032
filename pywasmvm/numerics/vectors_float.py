"""Vector instructions on floating-point lanes: each lane is computed by the scalar instruction.

So rounding, NaNs and the order of zeros are those of `floats` and `convert`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.numerics import convert, floats
from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from pywasmvm.numerics.shapes import F32X4, F64X2, I32X4, Shape, named
from pywasmvm.numerics.vectors import lane_access

_UNARY = ["abs", "neg", "sqrt", "ceil", "floor", "trunc", "nearest"]
_BINARY = ["add", "sub", "mul", "div", "min", "max"]
_COMPARE = ["eq", "ne", "lt", "gt", "le", "ge"]

Encode = Callable[[Any], int]
Decode = Callable[[int], Any]


def _float_shape(shape: Shape, decode: Decode, encode: Encode) -> dict[str, Any]:
    """All instructions of a shape that have a scalar counterpart."""
    made = lane_access(shape, encode, decode)
    scalar = shape.name.partition("x")[0]

    def define(name: str, function: Callable[..., int], doc: str) -> None:
        made[f"{shape.name}_{name}"] = named(function, shape, name, doc)

    for name in _UNARY:
        define(
            name, _unary(shape, getattr(floats, f"{scalar}_{name}"), decode, encode), f"{name} of each lane."
        )
    for name in _BINARY:
        define(
            name,
            _binary(shape, getattr(floats, f"{scalar}_{name}"), decode, encode),
            f"{name} of each two lanes.",
        )
    for name in _COMPARE:
        test = getattr(floats, f"{scalar}_{name}")
        define(name, _comparison(shape, test, decode), "All bits set in lanes that compare so.")
    define("pmin", _pick(shape, decode, smaller=True), "The second lane where it is less than the first.")
    define("pmax", _pick(shape, decode, smaller=False), "The second lane where it is greater than the first.")
    return made


def _unary(shape: Shape, lane: Callable[[Any], Any], decode: Decode, encode: Encode) -> Callable[..., int]:
    def compute(a: int) -> int:
        return shape.join([encode(lane(decode(x))) for x in shape.unsigned(a)])

    return compute


def _binary(
    shape: Shape, lane: Callable[[Any, Any], Any], decode: Decode, encode: Encode
) -> Callable[..., int]:
    def compute(a: int, b: int) -> int:
        pairs = zip(shape.unsigned(a), shape.unsigned(b), strict=True)
        return shape.join([encode(lane(decode(x), decode(y))) for x, y in pairs])

    return compute


def _comparison(shape: Shape, test: Callable[[Any, Any], int], decode: Decode) -> Callable[..., int]:
    ones = shape.mask

    def compute(a: int, b: int) -> int:
        pairs = zip(shape.unsigned(a), shape.unsigned(b), strict=True)
        return shape.join([ones if test(decode(x), decode(y)) else 0 for x, y in pairs])

    return compute


def _pick(shape: Shape, decode: Decode, smaller: bool) -> Callable[..., int]:
    """pmin and pmax only choose: the lane keeps its bits, those of a NaN too."""

    def compute(a: int, b: int) -> int:
        lanes = []
        for x, y in zip(shape.unsigned(a), shape.unsigned(b), strict=True):
            first, second = decode(x), decode(y)
            chosen = second < first if smaller else first < second
            lanes.append(y if chosen else x)
        return shape.join(lanes)

    return compute


globals().update(_float_shape(F32X4, f32_from_bits, f32_to_bits))
globals().update(_float_shape(F64X2, f64_from_bits, f64_to_bits))


# -- conversions -------------------------------------------------------------------------------------------


def f32x4_convert_i32x4_s(a: int) -> int:
    """Signed integers to floats."""
    return F32X4.join([f32_to_bits(convert.f32_convert_i32_s(x)) for x in I32X4.unsigned(a)])


def f32x4_convert_i32x4_u(a: int) -> int:
    """Unsigned integers to floats."""
    return F32X4.join([f32_to_bits(convert.f32_convert_i32_u(x)) for x in I32X4.unsigned(a)])


def f64x2_convert_low_i32x4_s(a: int) -> int:
    """The two lower signed integers to floats."""
    return F64X2.join([f64_to_bits(convert.f64_convert_i32_s(x)) for x in I32X4.unsigned(a)[:2]])


def f64x2_convert_low_i32x4_u(a: int) -> int:
    """The two lower unsigned integers to floats."""
    return F64X2.join([f64_to_bits(convert.f64_convert_i32_u(x)) for x in I32X4.unsigned(a)[:2]])


def i32x4_trunc_sat_f32x4_s(a: int) -> int:
    """Floats to signed integers, saturating."""
    return I32X4.join([convert.i32_trunc_sat_f32_s(f32_from_bits(x)) for x in F32X4.unsigned(a)])


def i32x4_trunc_sat_f32x4_u(a: int) -> int:
    """Floats to unsigned integers, saturating."""
    return I32X4.join([convert.i32_trunc_sat_f32_u(f32_from_bits(x)) for x in F32X4.unsigned(a)])


def i32x4_trunc_sat_f64x2_s_zero(a: int) -> int:
    """Two floats to signed integers, saturating; the upper lanes are zero."""
    low = [convert.i32_trunc_sat_f64_s(f64_from_bits(x)) for x in F64X2.unsigned(a)]
    return I32X4.join([*low, 0, 0])


def i32x4_trunc_sat_f64x2_u_zero(a: int) -> int:
    """Two floats to unsigned integers, saturating; the upper lanes are zero."""
    low = [convert.i32_trunc_sat_f64_u(f64_from_bits(x)) for x in F64X2.unsigned(a)]
    return I32X4.join([*low, 0, 0])


def f32x4_demote_f64x2_zero(a: int) -> int:
    """Two floats rounded to half their width; the upper lanes are zero."""
    low = [f32_to_bits(convert.f32_demote_f64(f64_from_bits(x))) for x in F64X2.unsigned(a)]
    return F32X4.join([*low, 0, 0])


def f64x2_promote_low_f32x4(a: int) -> int:
    """The two lower floats widened."""
    return F64X2.join([f64_to_bits(convert.f64_promote_f32(f32_from_bits(x))) for x in F32X4.unsigned(a)[:2]])
