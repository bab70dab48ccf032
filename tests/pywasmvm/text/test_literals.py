"""Numbers in text: every value there and back, floats rounded once, what is no number refused."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from pywasmvm.text.literals import float32, float64, integer, unsigned

WIDTHS = st.sampled_from([8, 16, 32, 64])


def nearest_f32(exact: Fraction) -> Fraction | None:
    """The f32 next to a positive number, ties to even, by trying both neighbours; None when too large."""
    exponent = max(-149, math.floor(math.log2(exact)) - 24 if exact else -149)
    step = Fraction(2) ** exponent
    while exact / step >= 1 << 24:
        step *= 2
    lower = math.floor(exact / step)
    rest = exact / step - lower
    rounded = lower + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and lower % 2))
    found = rounded * step
    return None if found >= Fraction(2) ** 128 else found


@given(WIDTHS, st.data())
def test_integers(width: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(-(1 << width - 1), (1 << width) - 1))
    sign = "-" if value < 0 else data.draw(st.sampled_from(["", "+"]))
    canonical = value % (1 << width)
    assert integer(f"{sign}{abs(value)}", width) == canonical
    assert integer(f"{sign}{abs(value):#x}", width) == canonical
    assert integer(f"{sign}0x{abs(value):_X}", width) == canonical
    if sign == "":
        assert unsigned(f"{value:_}", width) == value


@given(WIDTHS)
def test_integers_out_of_range(width: int) -> None:
    for text in (str(1 << width), str(-(1 << width - 1) - 1), "0x1" + "0" * 5000, "9" * 5000):
        with pytest.raises(ValueError, match=r"^constant out of range"):
            integer(text, width)


@pytest.mark.parametrize(
    "text", ["", "_1", "1_", "1__0", "0x", "0x_1", "0b1", "+-1", "1a", "--1", "- 1", "٣"]
)
def test_no_integer(text: str) -> None:
    with pytest.raises(ValueError, match=r"^unknown operator"):
        integer(text, 32)
    with pytest.raises(ValueError, match=r"^unknown operator"):
        unsigned(text, 32)


def test_an_unsigned_number_has_no_sign() -> None:
    for text in ("+1", "-1"):
        with pytest.raises(ValueError):  # noqa: PT011
            unsigned(text, 32)


def test_leading_zeros_do_not_make_a_number_large() -> None:
    assert integer("0" * 5000 + "7", 32) == 7
    assert unsigned("0x" + "0" * 5000 + "7", 32) == 7


@given(st.integers(0, 2**64 - 1))
def test_every_f64_comes_back_from_its_digits(bits: int) -> None:
    value = f64_from_bits(bits)
    if not math.isfinite(value):
        return
    for text in (repr(value), value.hex(), f"{value:.17e}"):
        assert f64_to_bits(float64(text)) == bits


@given(st.integers(0, 2**32 - 1))
def test_every_f32_comes_back_from_its_digits(bits: int) -> None:
    value = f32_from_bits(bits)
    if not math.isfinite(value):
        return
    for text in (repr(value), value.hex(), f"{value:.8e}"):
        assert f32_to_bits(float32(text)) == bits


@given(st.integers(1, 2**23 - 1), st.booleans())
def test_payloads_of_nans(payload: int, negative: bool) -> None:
    sign = "-" if negative else ""
    assert f32_to_bits(float32(f"{sign}nan:{payload:#x}")) == negative << 31 | 0x7F800000 | payload
    wide = payload << 29 | payload
    assert (
        f64_to_bits(float64(f"{sign}nan:{wide:#_x}".replace("0x_", "0x")))
        == negative << 63 | 0x7FF << 52 | wide
    )


def test_special_values() -> None:
    for text, bits in (("inf", 0x7F800000), ("-inf", 0xFF800000), ("nan", 0x7FC00000), ("-nan", 0xFFC00000)):
        assert f32_to_bits(float32(text)) == bits
    for text, wide in (
        ("+inf", 0x7FF << 52),
        ("+nan", 0x7FF8 << 48),
        ("-nan", 0xFFF8 << 48),
        ("-0", 1 << 63),
    ):
        assert f64_to_bits(float64(text)) == wide


@pytest.mark.parametrize("payload", ["0", "800000", "80_0000", "f" * 20])
def test_payloads_out_of_range(payload: str) -> None:
    with pytest.raises(ValueError, match=r"^constant out of range"):
        float32(f"nan:0x{payload}")
    if len(payload) != 6 and payload != "80_0000":
        with pytest.raises(ValueError, match=r"^constant out of range"):
            float64(f"nan:0x{payload}")


@given(st.integers(0, 0x7F7FFFFF), st.integers(-3, 3), st.integers(30, 400))
def test_f32_is_rounded_once(bits: int, side: int, depth: int) -> None:
    """Numbers at and ever so little beside the middle between two f32s: rounding to f64 first would err."""
    low = Fraction(f32_from_bits(bits))
    high = low + (
        Fraction(f32_from_bits(bits)) - Fraction(f32_from_bits(bits - 1)) if bits else Fraction(2) ** -149
    )
    exact = (low + high) / 2 + side * Fraction(2) ** -(149 + depth)
    expected = nearest_f32(exact)
    mantissa, shift = exact.numerator, exact.denominator.bit_length() - 1
    for text in (f"{mantissa:#x}p-{shift}", _decimal(exact)):
        if expected is None:
            with pytest.raises(ValueError, match=r"^constant out of range"):
                float32(text)
        else:
            assert Fraction(float32(text)) == expected


def _decimal(exact: Fraction) -> str:
    """All digits of a number whose denominator is a power of two."""
    shift = exact.denominator.bit_length() - 1
    return f"{exact.numerator * 5**shift}e-{shift}"


def test_a_middle_that_is_told_apart_after_thousands_of_digits() -> None:
    middle = "1.000000059604644775390625"  # between 1 and the f32 above it
    above = struct.unpack("<f", (0x3F800001).to_bytes(4, "little"))[0]
    assert float32(middle) == 1.0
    assert float32(middle + "0" * 6000 + "1") == above
    assert float32("0x1.000001" + "0" * 6000 + "1") == above


@pytest.mark.parametrize(
    "text", ["1e39", "0x1p128", "340282356779733661637539395458142568448", "-1e999999999"]
)
def test_f32_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"^constant out of range"):
        float32(text)


@pytest.mark.parametrize("text", ["1e309", "-0x1p1024", "0x1.fffffffffffff8p1023", "1" + "0" * 400])
def test_f64_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"^constant out of range"):
        float64(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ".5",
        "1e",
        "1.e+",
        "e1",
        "0x",
        "0x.1",
        "0x1p",
        "0x1.p-",
        "1_",
        "1_.0",
        "1._0",
        "1e_1",
        "infinity",
        "NaN",
        "nan:1",
        "nan:0x",
        "nan:0x_1",
        "1f",
        "0x1.0e+1",
        "1.0p1",
        "++1",
        "in",
        "nan(1)",
        "１",
    ],
)
def test_no_float(text: str) -> None:
    for read in (float32, float64):
        with pytest.raises(ValueError, match=r"^(unknown operator|unexpected token)"):
            read(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.", 1.0), ("1.e1", 10.0), ("0x1.", 1.0), ("0x1.p1", 2.0), ("1_0.2_5e0_1", 102.5), ("0xA.8P+1", 21.0)],
)
def test_forms_of_floats(text: str, value: float) -> None:
    assert float32(text) == float64(text) == value
