"""Conversions against exact fractions and numpy casts; limits checked one step to each side."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.numerics import function
from tests.support.numeric import EDGES, bits, is_nan, operand, patterns

FORMS = list(itertools.product(("i32", "i64"), ("f32", "f64"), "su"))


def limits(type_: str, sign: str) -> tuple[int, int]:
    width = int(type_[1:])
    return (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if sign == "s" else (0, 2**width - 1)


def truncated(i: str, f: str, sign: str, pattern: int) -> int | TrapKind:
    value = operand(f, pattern)
    if math.isnan(value):
        return TrapKind.INVALID_CONVERSION
    if math.isinf(value):
        return TrapKind.INTEGER_OVERFLOW
    whole = int(Fraction(value))
    low, high = limits(i, sign)
    return whole % 2 ** int(i[1:]) if low <= whole <= high else TrapKind.INTEGER_OVERFLOW


def saturated(i: str, f: str, sign: str, pattern: int) -> int:
    value = operand(f, pattern)
    if math.isnan(value):
        return 0
    low, high = limits(i, sign)
    whole = (low if value < 0 else high) if math.isinf(value) else min(max(int(Fraction(value)), low), high)
    return whole % 2 ** int(i[1:])


@pytest.mark.parametrize(("i", "f", "sign"), FORMS)
def test_truncation_traps_outside_the_range(i: str, f: str, sign: str) -> None:
    name = f"{i}.trunc_{f}_{sign}"

    def verify(a: int) -> None:
        try:
            result: int | TrapKind = bits(i, function(name)(operand(f, a)))
        except Trap as trap:
            result = trap.kind
        assert result == truncated(i, f, sign, a), hex(a)

    for a in EDGES[f]:
        verify(a)
    given(patterns(f))(verify)()


@pytest.mark.parametrize(("i", "f", "sign"), FORMS)
def test_saturating_truncation_never_traps(i: str, f: str, sign: str) -> None:
    name = f"{i}.trunc_sat_{f}_{sign}"

    def verify(a: int) -> None:
        assert bits(i, function(name)(operand(f, a))) == saturated(i, f, sign, a), hex(a)

    for a in EDGES[f]:
        verify(a)
    given(patterns(f))(verify)()


@pytest.mark.parametrize(("i", "f", "sign"), FORMS)
def test_truncation_at_the_very_limits(i: str, f: str, sign: str) -> None:
    low, high = limits(i, sign)
    trunc, sat = function(f"{i}.trunc_{f}_{sign}"), function(f"{i}.trunc_sat_{f}_{sign}")
    step = np.float32 if f == "f32" else np.float64
    first_above = float(step(high + 1))
    last_in = float(np.nextafter(step(first_above), step(0)))
    assert trunc(last_in) == int(last_in)
    assert sat(first_above) == high
    with pytest.raises(Trap, match="integer overflow"):
        trunc(first_above)
    below = float(np.nextafter(step(low - 1), step(-math.inf))) if low else -1.0
    assert sat(below) == low % 2 ** int(i[1:])
    with pytest.raises(Trap, match="integer overflow"):
        trunc(below)


@pytest.mark.parametrize(("value", "kind"), [(2147483647.9, None), (-2147483648.9, None), (-0.9, None)])
def test_limits_are_open_at_fractions(value: float, kind: None) -> None:
    assert function("i32.trunc_f64_s")(value) == int(value) % 2**32


@pytest.mark.parametrize("name", [f"{i}.trunc_{f}_{sign}" for i, f, sign in FORMS])
def test_nan_is_an_invalid_conversion(name: str) -> None:
    with pytest.raises(Trap, match=r"^invalid conversion to integer$"):
        function(name)(math.nan)


@pytest.mark.parametrize(("i", "f", "sign"), FORMS)
def test_integer_to_float_rounds_once(i: str, f: str, sign: str) -> None:
    name = f"{f}.convert_{i}_{sign}"
    integer = np.dtype(f"{'u' if sign == 'u' else ''}int{i[1:]}")

    def verify(a: int) -> None:
        source = np.array([a], dtype=f"uint{i[1:]}").view(integer)
        expected = int(source.astype(f"float{f[1:]}").view(f"uint{f[1:]}")[0])
        assert bits(f, function(name)(a)) == expected, hex(a)

    for a in EDGES[i]:
        verify(a)
    for exponent in range(24, int(i[1:])):  # exact ties of f32, and their neighbours
        for tie in (2**exponent + 2 ** (exponent - 24), 2**exponent + 3 * 2 ** (exponent - 24)):
            for step in (-1, 0, 1):
                verify((tie + step) % 2 ** int(i[1:]))
                verify(-(tie + step) % 2 ** int(i[1:]))
    given(patterns(i))(verify)()


def test_i64_to_f32_does_not_go_through_f64() -> None:
    # 2**60 + 2**36 + 1 is just above a tie of f32; as an f64 it would be the tie, and round down.
    value = 2**60 + 2**36 + 1
    assert float(value) == 2**60 + 2**36
    assert function("f32.convert_i64_u")(value) == 2.0**60 + 2.0**37
    assert function("f32.convert_i64_s")(2**64 - value) == -(2.0**60 + 2.0**37)


@given(patterns("f64"))
def test_demotion(a: int) -> None:
    with np.errstate(all="ignore"):
        value = np.array([a], dtype=np.uint64).view(np.float64).astype(np.float32)
    expected = 0x7FC00000 if is_nan("f64", a) else int(value.view(np.uint32)[0])
    assert bits("f32", function("f32.demote_f64")(operand("f64", a))) == expected


@pytest.mark.parametrize("a", EDGES["f64"], ids=hex)
def test_demotion_of_edges(a: int) -> None:
    test_demotion.hypothesis.inner_test(a)  # type: ignore[attr-defined]


@given(patterns("f32"))
def test_promotion(a: int) -> None:
    with np.errstate(all="ignore"):
        value = np.array([a], dtype=np.uint32).view(np.float32).astype(np.float64)
    expected = 0x7FF8000000000000 if is_nan("f32", a) else int(value.view(np.uint64)[0])
    result = function("f64.promote_f32")(operand("f32", a))
    assert type(result) is float
    assert bits("f64", result) == expected


@given(patterns("i64"))
def test_integers_change_width(a: int) -> None:
    low = int(np.array([a], dtype=np.uint64).astype(np.uint32)[0])
    assert bits("i32", function("i32.wrap_i64")(a)) == low
    assert bits("i64", function("i64.extend_i32_u")(low)) == low
    widened = np.array([low], dtype=np.uint32).view(np.int32).astype(np.int64).view(np.uint64)
    assert bits("i64", function("i64.extend_i32_s")(low)) == int(widened[0])


@pytest.mark.parametrize("a", [0, 1, 2**31 - 1, 2**31, 2**32 - 1], ids=hex)
def test_sign_extension_of_edges(a: int) -> None:
    test_integers_change_width.hypothesis.inner_test(a)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("i", "f"), [("i32", "f32"), ("i64", "f64")])
def test_reinterpretation_keeps_every_bit(i: str, f: str) -> None:
    def verify(a: int) -> None:
        value = function(f"{f}.reinterpret_{i}")(a)
        assert function(f"{i}.reinterpret_{f}")(value) == a

    for a in EDGES[f]:
        verify(a)
    given(patterns(f))(verify)()
