"""Vector instructions that move bits, against strings of digits and lists of bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.numerics import function, lanes
from pywasmvm.numerics.bits import F32NaN
from tests.support.numeric import bits, operand, patterns
from tests.support.vectors import INSTRUCTIONS, LANES, SHAPES, join, split, vectors

BITWISE: dict[str, Callable[..., str]] = {
    "v128.not": lambda a: "10"[a],
    "v128.and": lambda a, b: "01"[a == b == 1],
    "v128.andnot": lambda a, b: "01"[a == 1 and b == 0],
    "v128.or": lambda a, b: "10"[a == b == 0],
    "v128.xor": lambda a, b: "01"[a != b],
    "v128.bitselect": lambda a, b, mask: str(a if mask else b),
}


def test_every_vector_instruction_has_a_function_with_its_name() -> None:
    assert len(INSTRUCTIONS) == 236 + 20 - 14 - 8 - 1  # loads and stores, those of one lane, the constant
    for name in INSTRUCTIONS:
        compute = function(name)
        assert compute.__doc__
        if "relaxed" not in name:
            assert compute.__name__ == name.replace(".", "_")


@pytest.mark.parametrize("name", [*LANES, *INSTRUCTIONS])
def test_no_other_shape_has_it_by_accident(name: str) -> None:
    shape, _, rest = name.partition(".")
    for other in {*SHAPES, "v128"} - {shape}:
        if f"{other}.{rest}" not in INSTRUCTIONS:
            with pytest.raises(LookupError):
                function(f"{other}.{rest}")


@pytest.mark.parametrize("name", BITWISE)
@given(st.lists(vectors(), min_size=3, max_size=3))
def test_bitwise(name: str, operands: list[int]) -> None:
    used = operands[: len(INSTRUCTIONS[name][0])]
    columns = zip(*(map(int, f"{vector:0128b}") for vector in used), strict=True)
    assert f"{function(name)(*used):0128b}" == "".join(BITWISE[name](*column) for column in columns)


@given(vectors())
def test_any_true(a: int) -> None:
    assert function("v128.any_true")(a) == int("1" in f"{a:b}")


def test_any_true_of_nothing() -> None:
    assert function("v128.any_true")(0) == 0


@given(vectors(), vectors(), st.lists(st.integers(0, 31), min_size=16, max_size=16))
def test_shuffle(a: int, b: int, chosen: list[int]) -> None:
    both = split(8, a) + split(8, b)
    assert function("i8x16.shuffle")(a, b, bytes(chosen)) == join(8, [both[lane] for lane in chosen])


@pytest.mark.parametrize("name", ["i8x16.swizzle", "i8x16.relaxed_swizzle"])
@given(vectors(), st.lists(st.integers(0, 17) | st.integers(0, 255), min_size=16, max_size=16))
def test_swizzle(name: str, a: int, chosen: list[int]) -> None:
    found = [split(8, a)[lane] if lane < 16 else 0 for lane in chosen]
    assert function(name)(a, join(8, chosen)) == join(8, found)


# -- single lanes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data())
def test_splat(shape: str, data: st.DataObject) -> None:
    width, count, type_ = SHAPES[shape]
    pattern = data.draw(patterns(type_))
    assert function(f"{shape}.splat")(operand(type_, pattern)) == join(width, [pattern] * count)


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data(), a=vectors())
def test_replace_lane(shape: str, data: st.DataObject, a: int) -> None:
    width, count, type_ = SHAPES[shape]
    pattern, lane = data.draw(patterns(type_)), data.draw(st.integers(0, count - 1))
    expected = split(width, a)
    expected[lane] = pattern
    assert function(f"{shape}.replace_lane")(a, operand(type_, pattern), lane) == join(width, expected)


@pytest.mark.parametrize("name", [name for name in LANES if "extract" in name])
@given(data=st.data(), a=vectors())
def test_extract_lane(name: str, data: st.DataObject, a: int) -> None:
    width, count, type_ = SHAPES[name.partition(".")[0]]
    lane = data.draw(st.integers(0, count - 1))
    expected = split(width, a, signed=name.endswith("_s"))[lane] % 2 ** int(type_[1:])
    assert bits(type_, function(name)(a, lane)) == expected


def test_a_signalling_nan_goes_in_and_out_unharmed() -> None:
    signalling = F32NaN(0xFFA00001)
    vector = function("f32x4.replace_lane")(0, signalling, 2)
    assert vector == 0xFFA00001 << 64
    found = function("f32x4.extract_lane")(vector, 2)
    assert isinstance(found, F32NaN)
    assert found.bits == 0xFFA00001
    assert function("f32x4.splat")(signalling) == 0xFFA00001_FFA00001_FFA00001_FFA00001


# -- shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [lanes.I8X16, lanes.I16X8, lanes.I32X4, lanes.I64X2], ids=str)
@given(a=vectors())
def test_shapes_take_apart_and_join(shape: lanes.Shape, a: int) -> None:
    assert [*shape.unsigned(a)] == split(shape.bits, a)
    assert [*shape.signed(a)] == split(shape.bits, a, signed=True)
    assert shape.join(shape.unsigned(a)) == shape.join_signed(shape.signed(a)) == a
    assert shape.splat(5) == join(shape.bits, [5] * shape.count)
    assert shape.fill(a & shape.tops) == join(shape.bits, [-(lane < 0) for lane in shape.signed(a)])


@pytest.mark.parametrize("shape", [lanes.I8X16, lanes.I16X8, lanes.I32X4, lanes.I64X2], ids=str)
def test_a_lane_that_does_not_fit_is_refused(shape: lanes.Shape) -> None:
    with pytest.raises(struct.error):
        shape.join([2**shape.bits, *[0] * (shape.count - 1)])
    with pytest.raises(struct.error):
        shape.join_signed([2 ** (shape.bits - 1), *[0] * (shape.count - 1)])
    assert repr(shape) == f"i{shape.bits}x{shape.count}"
