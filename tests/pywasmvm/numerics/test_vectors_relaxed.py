"""The choices made for relaxed instructions; fused multiplication and addition against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pywasmvm.numerics import function, vectors_relaxed
from tests.support.numeric import bits, is_nan, operand, patterns
from tests.support.vectors import SHAPES, join, split, vectors

FRACTION = {"f32": 23, "f64": 52}
LEAST_EXPONENT = {"f32": -149, "f64": -1074}
GREATEST = {"f32": (2 - Fraction(1, 2**23)) * 2**127, "f64": (2 - Fraction(1, 2**52)) * 2**1023}


def rounded(type_: str, exact: Fraction) -> float:
    """The float next to a fraction that is not zero, ties to even, found by integer division alone."""
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - FRACTION[type_], LEAST_EXPONENT[type_])
    found = round(magnitude / unit) * unit
    return (1 if exact > 0 else -1) * (float(found) if found <= GREATEST[type_] else math.inf)


def fused(type_: str, x: float, y: float, z: float) -> float:
    """`x * y + z` as IEEE 754 defines it."""
    if not all(map(math.isfinite, (x, y))):
        return x * y + z
    if not math.isfinite(z):
        return z
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact:
        return rounded(type_, exact)
    signs = {math.copysign(1, x) * math.copysign(1, y), math.copysign(1, z)}
    return -0.0 if signs == {-1.0} else 0.0


def near(type_: str) -> st.SearchStrategy[float]:
    """Floats of like size, so that sums cancel, lie between two floats, or stick out a little."""
    precise = st.integers(-(2 ** (FRACTION[type_] + 1)), 2 ** (FRACTION[type_] + 1))
    few = st.sampled_from([1, 3, 2**11 + 1, 2**12 - 1, 2**12 + 1, 2**23 + 1, 2**24 - 1])
    exponent = st.integers(-30, 30) | st.sampled_from([-75, -100, -126, -149])
    return st.builds(lambda m, e: operand_of(type_, m * 2.0**e), precise | few, exponent)


def operand_of(type_: str, value: float) -> float:
    """The value rounded to the type."""
    return rounded(type_, Fraction(value)) if value else value


def floats(type_: str) -> st.SearchStrategy[float]:
    return patterns(type_).map(lambda pattern: operand(type_, pattern)) | near(type_)


def same(type_: str, found: float, expected: float) -> bool:
    """Equal by bits; any NaN for a NaN."""
    return (found != found and expected != expected) or bits(type_, found) == bits(type_, expected)


@given(floats("f32"), floats("f32"), floats("f32"))
@example(1 + 2.0**-12, 1 + 2.0**-12, -1.0)  # the product has 25 bits
@example(1.0, 1 + 2.0**-23, 2.0**-24)  # halfway, to even
@example(1 + 2.0**-23, 1.0, 2.0**-24 + 2.0**-47)  # a little more than halfway
@example(1 + 2.0**-23, 1.0, 2.0**-24 - 2.0**-48)  # a little less
@example(302407 * 2.0**-20, 3635867 * 2.0**-44, 1.0)  # the sum in double is odd, and one bit from halfway
@example(302407 * 2.0**-20, -3635867 * 2.0**-44, -1.0)
@example(1.0, 1 + 2.0**-23, math.ldexp(1, -149))  # far below the last bit
@example(2.0**-75, 2.0**-75, -0.0)  # too small
@example(3.4028234663852886e38, 2.0, -3.4028234663852886e38)  # the product alone is too big
def test_f32_in_one_rounding(x: float, y: float, z: float) -> None:
    assert same("f32", vectors_relaxed.fused_f32(x, y, z), fused("f32", x, y, z))


@given(floats("f64"), floats("f64"), floats("f64"))
@example(1e308, 10.0, -1e308)  # the product alone is too big
@example(1e308, 1e308, -1e308)  # all of it is
@example(-1e308, 1e308, 1.0)
@example(1e308, 10.0, -math.inf)
@example(5e-324, 0.5, 5e-324)  # three halves of the least float
@example(5e-324, -0.25, 0.0)  # rounds to minus zero
@example(2.0, -3.0, 6.0)  # zero
@example(-0.0, 1.0, -0.0)  # minus zero
@example(1 + 2.0**-52, 1 - 2.0**-52, -1.0)  # only the lower half of the product is left
def test_f64_in_one_rounding(x: float, y: float, z: float) -> None:
    assert same("f64", vectors_relaxed.fused_f64(x, y, z), fused("f64", x, y, z))


@pytest.mark.parametrize("shape", ["f32x4", "f64x2"])
@given(data=st.data())
def test_madd_and_nmadd(shape: str, data: st.DataObject) -> None:
    width, _, type_ = SHAPES[shape]
    a, b, c = (data.draw(vectors(shape)) for _ in range(3))
    canonical = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}[type_]
    for name, sign in (("relaxed_madd", 1), ("relaxed_nmadd", -1)):
        lanes = zip(*(split(width, vector) for vector in (a, b, c)), strict=True)
        expected = []
        for lane in lanes:
            x, y, z = (float(operand(type_, pattern)) for pattern in lane)
            pattern = bits(type_, fused(type_, sign * x, y, z))
            expected.append(canonical if is_nan(type_, pattern) else pattern)
        assert function(f"{shape}.{name}")(a, b, c) == join(width, expected)


@given(vectors("i8x16"), vectors("i8x16"), vectors("i32x4"))
def test_dot_products_are_signed_and_wrap_at_each_width(a: int, b: int, c: int) -> None:
    x, y = split(8, a, signed=True), split(8, b, signed=True)
    pairs = join(16, [x[at] * y[at] + x[at + 1] * y[at + 1] for at in range(0, 16, 2)])
    assert function("i16x8.relaxed_dot_i8x16_i7x16_s")(a, b) == pairs
    halves = split(16, pairs, signed=True)
    sums = [halves[2 * at] + halves[2 * at + 1] + lane for at, lane in enumerate(split(32, c))]
    assert function("i32x4.relaxed_dot_i8x16_i7x16_add_s")(a, b, c) == join(32, sums)


def test_the_greatest_byte_products_wrap() -> None:
    least = join(8, [0x80] * 16)
    assert function("i16x8.relaxed_dot_i8x16_i7x16_s")(least, least) == join(16, [0x8000] * 8)
    assert function("i32x4.relaxed_dot_i8x16_i7x16_add_s")(least, least, 0) == join(32, [-0x10000] * 4)


@pytest.mark.parametrize("shape", ["i8x16", "i16x8", "i32x4", "i64x2"])
@given(vectors(), vectors(), vectors())
def test_laneselect_is_bit_by_bit(shape: str, a: int, b: int, mask: int) -> None:
    digits = [
        str(x if m == "1" else y) for x, y, m in zip(*(f"{v:0128b}" for v in (a, b, mask)), strict=True)
    ]
    assert f"{function(f'{shape}.relaxed_laneselect')(a, b, mask):0128b}" == "".join(digits)


@pytest.mark.parametrize(("relaxed", "strict"), vectors_relaxed.STRICT.items())
def test_the_strict_instruction_serves(relaxed: str, strict: str) -> None:
    assert function(relaxed) is function(strict)
