"""Vector instructions from one shape to another: widened, narrowed and paired lanes, integers and floats.

Spec: Execution, Vector Instructions. `low` and `high` are the halves of a vector, by the numbers of lanes;
where a result has half as many lanes as fit, the upper ones are zero (`_zero`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

from pywasmvm.numerics import convert
from pywasmvm.numerics.lanes import F32X4, F64X2, I8X16, I16X8, I32X4, I64X2, Shape, instruction

Split = Callable[[int], tuple[int, ...]]
Join = Callable[[Sequence[int]], int]

# -- wider integers ----------------------------------------------------------------------------------------


def _halves(wide: Shape, narrow: Shape, sign: str) -> None:
    for half, part in (("low", slice(0, wide.count)), ("high", slice(wide.count, None))):
        _widened(wide, narrow, f"{half}_{narrow.name}_{sign}", sign, part)


def _widened(wide: Shape, narrow: Shape, name: str, sign: str, part: slice) -> None:
    split, join = (narrow.signed, wide.join_signed) if sign == "s" else (narrow.unsigned, wide.join)

    @instruction(wide, f"extend_{name}")
    def extend(a: int) -> int:
        """Half of the lanes, twice as wide."""
        return join(split(a)[part])

    @instruction(wide, f"extmul_{name}")
    def extmul(a: int, b: int) -> int:
        """The whole products of half of the lanes."""
        return join(map(operator.mul, split(a)[part], split(b)[part]))


def _paired(wide: Shape, narrow: Shape) -> None:
    """Sums of neighbours: every second lane is brought under its neighbour, all sums are made at once."""
    low, bits = wide.ones * narrow.mask, narrow.bits
    # Signed lanes are made unsigned by adding half their range, which the sum then has twice too much.
    tops, signs, excess = narrow.tops, wide.tops, wide.splat(wide.sign - 2 * narrow.sign)

    @instruction(wide, f"extadd_pairwise_{narrow.name}_u")
    def extadd_u(a: int) -> int:
        """Sums of each two neighbouring unsigned lanes, twice as wide."""
        return (a & low) + (a >> bits & low)

    @instruction(wide, f"extadd_pairwise_{narrow.name}_s")
    def extadd_s(a: int) -> int:
        """Sums of each two neighbouring signed lanes, twice as wide."""
        raised = a ^ tops
        return (raised & low) + (raised >> bits & low) + excess ^ signs


def pair_products(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Of each two neighbouring lanes the sum of their products."""
    products = [*map(operator.mul, a, b)]
    return [*map(operator.add, products[::2], products[1::2])]


def i32x4_dot_i16x8_s(a: int, b: int) -> int:
    """Of each two neighbouring signed lanes the sum of their products."""
    # Masked to be unsigned, and because four least numbers give 2**31.
    return I32X4.join([x & 0xFFFF_FFFF for x in pair_products(I16X8.signed(a), I16X8.signed(b))])


# -- narrower integers -------------------------------------------------------------------------------------


def _narrowed(narrow: Shape, wide: Shape) -> None:
    split = wide.signed
    least, most = -narrow.sign, narrow.sign - 1
    top = narrow.mask

    @instruction(narrow, f"narrow_{wide.name}_s")
    def narrow_s(a: int, b: int) -> int:
        """The signed lanes of both, half as wide, saturating signed."""
        lanes = split(a) + split(b)
        return narrow.join_signed([most if x > most else least if x < least else x for x in lanes])

    @instruction(narrow, f"narrow_{wide.name}_u")
    def narrow_u(a: int, b: int) -> int:
        """The signed lanes of both, half as wide, saturating unsigned."""
        lanes = split(a) + split(b)
        return narrow.join([top if x > top else 0 if x < 0 else x for x in lanes])


for _wide, _narrow in ((I16X8, I8X16), (I32X4, I16X8), (I64X2, I32X4)):
    _halves(_wide, _narrow, "s")
    _halves(_wide, _narrow, "u")
for _wide, _narrow in ((I16X8, I8X16), (I32X4, I16X8)):
    _paired(_wide, _narrow)
    _narrowed(_narrow, _wide)


# -- integers and floats -----------------------------------------------------------------------------------


def f32x4_convert_i32x4_s(a: int) -> int:
    """Signed integers to floats."""
    return F32X4.join_floats(map(convert.f32_convert_i32_s, I32X4.unsigned(a)))


def f32x4_convert_i32x4_u(a: int) -> int:
    """Unsigned integers to floats."""
    return F32X4.join_floats(map(convert.f32_convert_i32_u, I32X4.unsigned(a)))


def f64x2_convert_low_i32x4_s(a: int) -> int:
    """The two lower signed integers to floats."""
    return F64X2.join_floats(I32X4.signed(a)[:2])


def f64x2_convert_low_i32x4_u(a: int) -> int:
    """The two lower unsigned integers to floats."""
    return F64X2.join_floats(I32X4.unsigned(a)[:2])


def i32x4_trunc_sat_f32x4_s(a: int) -> int:
    """Floats to signed integers, saturating."""
    return I32X4.join(map(convert.i32_trunc_sat_f32_s, F32X4.floats(a)))


def i32x4_trunc_sat_f32x4_u(a: int) -> int:
    """Floats to unsigned integers, saturating."""
    return I32X4.join(map(convert.i32_trunc_sat_f32_u, F32X4.floats(a)))


def i32x4_trunc_sat_f64x2_s_zero(a: int) -> int:
    """Two floats to signed integers, saturating."""
    low, high = map(convert.i32_trunc_sat_f64_s, F64X2.floats(a))
    return low | high << 32


def i32x4_trunc_sat_f64x2_u_zero(a: int) -> int:
    """Two floats to unsigned integers, saturating."""
    low, high = map(convert.i32_trunc_sat_f64_u, F64X2.floats(a))
    return low | high << 32


def f32x4_demote_f64x2_zero(a: int) -> int:
    """Two floats rounded to half their width."""
    return F32X4.join_floats([*map(convert.f32_demote_f64, F64X2.floats(a)), 0.0, 0.0])


def f64x2_promote_low_f32x4(a: int) -> int:
    """The two lower floats, twice as wide."""
    return F64X2.join_floats(F32X4.floats(a)[:2])
