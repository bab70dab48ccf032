"""Floating-point instructions against numpy's float32 and float64, bit by bit.

numpy computes f32 in single precision, so it also shows that rounding a double once more is right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.numerics import function
from tests.support.numeric import EDGES, FLOAT_COMPARE, bits, is_nan, operand, patterns

TYPES = ("f32", "f64")
CANONICAL = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}
SIGN = {"f32": 0x80000000, "f64": 0x8000000000000000}


def pick(choose: Callable[..., Any], signs: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """min and max by definition: a NaN wins, and of two zeros the sign decides."""

    def oracle(a: Any, b: Any) -> Any:
        if a != a or b != b:
            return math.nan
        if a == b:
            return math.copysign(a, signs(math.copysign(1, a), math.copysign(1, b)))
        return choose(a, b)

    return oracle


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "trunc": np.trunc,
    "nearest": np.rint,
    "sqrt": np.sqrt,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": pick(min, min),
    "max": pick(max, max),
}
ONE_OPERAND = ("ceil", "floor", "trunc", "nearest", "sqrt")
COMPARE = {name: getattr(np, long) for name, long in zip(
    FLOAT_COMPARE, ("equal", "not_equal", "less", "greater", "less_equal", "greater_equal"), strict=True
)}  # fmt: skip


def as_numpy(type_: str, pattern: int) -> Any:
    return np.array([pattern], dtype=f"uint{type_[1:]}").view(f"float{type_[1:]}")[0]


def expected_bits(type_: str, value: Any) -> int:
    if value != value:
        return CANONICAL[type_]
    return int(np.array([value], dtype=f"float{type_[1:]}").view(f"uint{type_[1:]}")[0])


def check_arithmetic(type_: str, name: str, *operands: int) -> None:
    result = bits(type_, function(f"{type_}.{name}")(*(operand(type_, a) for a in operands)))
    with np.errstate(all="ignore"):
        expected = ARITHMETIC[name](*(as_numpy(type_, a) for a in operands))
    assert result == expected_bits(type_, expected), [hex(a) for a in operands]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name: str, type_: str) -> None:
    count = 1 if name in ONE_OPERAND else 2
    edges = EDGES[type_] if count == 1 else EDGES[type_][::2]
    for operands in itertools.product(edges, repeat=count):
        check_arithmetic(type_, name, *operands)

    @given(st.tuples(*[patterns(type_)] * count))
    def check(operands: tuple[int, ...]) -> None:
        check_arithmetic(type_, name, *operands)

    check()


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("name", COMPARE)
def test_comparison_gives_a_plain_zero_or_one(name: str, type_: str) -> None:
    def verify(a: int, b: int) -> None:
        result = function(f"{type_}.{name}")(operand(type_, a), operand(type_, b))
        assert type(result) is int
        assert result == int(COMPARE[name](as_numpy(type_, a), as_numpy(type_, b)))

    for a, b in itertools.product(EDGES[type_][::3], repeat=2):
        verify(a, b)
    for a in EDGES[type_]:
        verify(a, a)
    given(patterns(type_), patterns(type_))(verify)()


@pytest.mark.parametrize("type_", TYPES)
def test_sign_operations_move_bits_of_every_value(type_: str) -> None:
    sign = SIGN[type_]

    def verify(a: int, b: int) -> None:
        x, y = operand(type_, a), operand(type_, b)
        assert bits(type_, function(f"{type_}.abs")(x)) == a & ~sign
        assert bits(type_, function(f"{type_}.neg")(x)) == a ^ sign
        assert bits(type_, function(f"{type_}.copysign")(x, y)) == a & ~sign | b & sign

    for a, b in itertools.product(EDGES[type_], EDGES[type_][::3]):
        verify(a, b)
    given(patterns(type_), patterns(type_))(verify)()


@pytest.mark.parametrize("type_", TYPES)
def test_nearest_takes_the_even_neighbour_and_keeps_the_sign_of_zero(type_: str) -> None:
    nearest = function(f"{type_}.nearest")
    cases = [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, -0.0), (-1.5, -2.0), (-0.4, -0.0), (-0.0, -0.0)]
    for value, expected in cases:
        assert math.copysign(1, nearest(value)) == math.copysign(1, expected)
        assert nearest(value) == expected


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("name", [name for name in ARITHMETIC if name not in ONE_OPERAND])
def test_a_nan_operand_gives_the_canonical_nan_whatever_its_payload(name: str, type_: str) -> None:
    nans = [a for a in EDGES[type_] if is_nan(type_, a)]
    assert len(nans) >= 8
    for a, b in itertools.product(nans, [*nans, 0]):
        for operands in ((a, b), (b, a)):
            result = function(f"{type_}.{name}")(*(operand(type_, x) for x in operands))
            assert bits(type_, result) == CANONICAL[type_]


@pytest.mark.parametrize("type_", TYPES)
def test_the_sign_of_zero_decides_between_zeros(type_: str) -> None:
    sign = SIGN[type_]
    for a, b in itertools.product((0, sign), repeat=2):
        zeros = operand(type_, a), operand(type_, b)
        assert bits(type_, function(f"{type_}.min")(*zeros)) == a | b
        assert bits(type_, function(f"{type_}.max")(*zeros)) == a & b


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_division_by_zero_is_not_an_error(type_: str, zero: float) -> None:
    divide = function(f"{type_}.div")
    assert divide(1.0, zero) == math.copysign(math.inf, zero)
    assert divide(-math.inf, zero) == -math.copysign(math.inf, zero)
    assert math.isnan(divide(zero, zero))


def test_a_plain_nan_is_positive_whatever_the_machine_computed() -> None:
    # On x86 the default NaN is negative. For f32 that sign must not show.
    for nan in (-math.nan, math.nan, function("f32.sub")(math.inf, math.inf), function("f32.div")(0.0, 0.0)):
        assert function("f32.copysign")(2.5, nan) == 2.5
        assert bits("f32", function("f32.copysign")(nan, -1.0)) == 0xFFC00000
        assert bits("f32", function("f32.abs")(nan)) == 0x7FC00000
        assert bits("f32", function("f32.neg")(nan)) == 0xFFC00000
        assert bits("f64", function("f64.promote_f32")(nan)) == 0x7FF8000000000000
