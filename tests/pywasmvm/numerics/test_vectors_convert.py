"""Vector instructions from one shape to another, against definitions on lists of lanes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.numerics import function
from tests.support.numeric import bits, operand
from tests.support.vectors import NARROWER, SHAPES, join, split, vectors

WIDER = [*itertools.product(["i16x8", "i32x4", "i64x2"], "su")]


def half(part: str, lanes: list[int]) -> list[int]:
    """The lower or upper lanes."""
    return lanes[: len(lanes) // 2] if part == "low" else lanes[len(lanes) // 2 :]


@pytest.mark.parametrize(("shape", "sign"), WIDER)
@pytest.mark.parametrize("part", ["low", "high"])
@given(data=st.data())
def test_extend_and_extmul(shape: str, sign: str, part: str, data: st.DataObject) -> None:
    width, narrow = SHAPES[shape][0], NARROWER[shape]
    a, b = data.draw(vectors(narrow)), data.draw(vectors(narrow))
    x, y = (half(part, split(width // 2, vector, sign == "s")) for vector in (a, b))
    assert function(f"{shape}.extend_{part}_{narrow}_{sign}")(a) == join(width, x)
    products = [p * q for p, q in zip(x, y, strict=True)]
    assert function(f"{shape}.extmul_{part}_{narrow}_{sign}")(a, b) == join(width, products)


@pytest.mark.parametrize(("shape", "sign"), WIDER[:4])
@given(data=st.data())
def test_extadd_pairwise(shape: str, sign: str, data: st.DataObject) -> None:
    width, narrow = SHAPES[shape][0], NARROWER[shape]
    a = data.draw(vectors(narrow))
    lanes = split(width // 2, a, sign == "s")
    sums = [lanes[place] + lanes[place + 1] for place in range(0, len(lanes), 2)]
    assert function(f"{shape}.extadd_pairwise_{narrow}_{sign}")(a) == join(width, sums)


@pytest.mark.parametrize(("shape", "sign"), WIDER[:4])
@given(data=st.data())
def test_narrow(shape: str, sign: str, data: st.DataObject) -> None:
    width, narrow = SHAPES[shape][0], NARROWER[shape]
    a, b = data.draw(vectors(shape)), data.draw(vectors(shape))
    limits = (
        range(-(2 ** (width // 2 - 1)), 2 ** (width // 2 - 1)) if sign == "s" else range(2 ** (width // 2))
    )
    lanes = split(width, a, signed=True) + split(width, b, signed=True)  # signed in both ways
    found = [lane if lane in limits else limits[0] if lane < 0 else limits[-1] for lane in lanes]
    assert function(f"{narrow}.narrow_{shape}_{sign}")(a, b) == join(width // 2, found)


@given(vectors("i16x8"), vectors("i16x8"))
def test_dot(a: int, b: int) -> None:
    x, y = split(16, a, signed=True), split(16, b, signed=True)
    sums = [x[at] * y[at] + x[at + 1] * y[at + 1] for at in range(0, 8, 2)]
    assert function("i32x4.dot_i16x8_s")(a, b) == join(32, sums)


def test_the_greatest_dot_wraps() -> None:
    least = join(16, [0x8000] * 8)
    assert function("i32x4.dot_i16x8_s")(least, least) == join(32, [0x8000_0000] * 4)


# instruction -> (scalar instruction, its operand type, its result type)
CONVERSIONS = {
    "f32x4.demote_f64x2_zero": ("f32.demote_f64", "f64", "f32"),
    "f64x2.promote_low_f32x4": ("f64.promote_f32", "f32", "f64"),
}
for _sign in "su":
    CONVERSIONS |= {
        f"f32x4.convert_i32x4_{_sign}": (f"f32.convert_i32_{_sign}", "i32", "f32"),
        f"f64x2.convert_low_i32x4_{_sign}": (f"f64.convert_i32_{_sign}", "i32", "f64"),
    }
    for _way in ("relaxed_trunc", "trunc_sat"):
        CONVERSIONS |= {
            f"i32x4.{_way}_f32x4_{_sign}": (f"i32.trunc_sat_f32_{_sign}", "f32", "i32"),
            f"i32x4.{_way}_f64x2_{_sign}_zero": (f"i32.trunc_sat_f64_{_sign}", "f64", "i32"),
        }


@pytest.mark.parametrize("name", CONVERSIONS)
@given(data=st.data())
def test_conversions(name: str, data: st.DataObject) -> None:
    """The scalar instruction on as many lower lanes as there are in both; zeros above them."""
    scalar, source, target = CONVERSIONS[name]
    a = data.draw(vectors({"i32": "i32x4", "f32": "f32x4", "f64": "f64x2"}[source]))
    width = int(target[1:])
    lanes = split(int(source[1:]), a)[: 128 // width]
    expected = join(width, [bits(target, function(scalar)(operand(source, lane))) for lane in lanes])
    assert function(name)(a) == expected
