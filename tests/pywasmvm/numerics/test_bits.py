"""Bit patterns of floats against `struct`, and what an f32 NaN with a payload is as a Python object."""

from __future__ import annotations

import copy
import math
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.numerics import bits
from tests.support.numeric import EDGES, is_nan, patterns


@given(patterns("f32"))
def test_f32_patterns_survive(pattern: int) -> None:
    value = bits.f32_from_bits(pattern)
    assert bits.f32_to_bits(value) == pattern
    if is_nan("f32", pattern):
        assert (type(value) is float) == (pattern == bits.F32_CANONICAL_NAN)
    else:
        assert struct.pack("<f", value) == pattern.to_bytes(4, "little")


@given(patterns("f64"))
def test_f64_patterns_survive(pattern: int) -> None:
    value = bits.f64_from_bits(pattern)
    assert bits.f64_to_bits(value) == pattern
    assert struct.pack("<d", value) == pattern.to_bytes(8, "little")


@given(patterns("i32"), patterns("i64"))
def test_signed_views(a: int, b: int) -> None:
    assert bits.s32(a) == struct.unpack("<i", a.to_bytes(4, "little"))[0]
    assert bits.s64(b) == struct.unpack("<q", b.to_bytes(8, "little"))[0]


@pytest.mark.parametrize("width", [32, 64])
def test_masks_and_turning_points_of_the_sign(width: int) -> None:
    signed, mask = (bits.s32, bits.MASK32) if width == 32 else (bits.s64, bits.MASK64)
    assert mask == 2**width - 1
    assert [signed(a) for a in (0, 2 ** (width - 1) - 1, 2 ** (width - 1), mask)] == [
        0, 2 ** (width - 1) - 1, -(2 ** (width - 1)), -1,
    ]  # fmt: skip


def test_any_plain_nan_stands_for_the_canonical_f32_nan() -> None:
    odd = struct.unpack("<d", (0xFFF0000000000001).to_bytes(8, "little"))[0]
    assert math.isnan(odd)
    assert bits.f32_to_bits(odd) == bits.f32_to_bits(math.nan) == 0x7FC00000


def test_a_nan_with_payload_behaves_as_a_float() -> None:
    nan = bits.F32NaN(0xFFA00001)
    assert isinstance(nan, float)
    assert nan != nan
    assert math.copysign(1, nan) == -1
    assert struct.pack("<d", bits.F32NaN(0x7FE00001))[-3] == 0  # payload is where a wider float has it
    assert repr(nan) == "-nan:0x200001"
    assert repr(bits.F32NaN(0x7FE00001)) == "nan:0x600001"


def test_the_double_under_an_f32_nan_has_its_sign_and_payload() -> None:
    wide = bits.f64_to_bits(float.__pos__(bits.F32NaN(0xFFE00001)))
    assert wide == 0xFFFC000020000000


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda nan: pickle.loads(pickle.dumps(nan))])
def test_copies_of_a_nan_keep_its_payload(duplicate: object) -> None:
    assert callable(duplicate)
    assert duplicate(bits.F32NaN(0x7F800123)).bits == 0x7F800123


@given(st.floats(width=32, allow_nan=False))
def test_an_f32_from_outside_stays(value: float) -> None:
    assert bits.f32_from_python(value) == value


def test_numbers_from_outside_are_rounded_to_f32() -> None:
    assert bits.f32_from_python(0.1) == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert bits.f32_from_python(1e39) == math.inf
    assert bits.f32_from_python(3) == 3.0
    assert type(bits.f32_from_python(3)) is float
    with pytest.raises(OverflowError):
        bits.f32_from_python(10**400)
    with pytest.raises(TypeError):
        bits.f32_from_python("1")  # type: ignore[arg-type]


def test_a_nan_from_outside_keeps_what_an_f32_can_hold() -> None:
    convert = bits.f32_from_python
    assert bits.f32_to_bits(convert(math.nan)) == 0x7FC00000
    assert bits.f32_to_bits(convert(-math.nan)) == 0xFFC00000
    assert bits.f32_to_bits(convert(bits.F32NaN(0x7F800001))) == 0x7F800001
    assert bits.f32_to_bits(convert(bits.f64_from_bits(0x7FF0000020000000))) == 0x7F800001
    assert bits.f32_to_bits(convert(bits.f64_from_bits(0xFFF0000000000001))) == 0xFFC00000


@pytest.mark.parametrize("pattern", EDGES["f32"], ids=hex)
def test_edges_of_f32(pattern: int) -> None:
    test_f32_patterns_survive.hypothesis.inner_test(pattern)  # type: ignore[attr-defined]
