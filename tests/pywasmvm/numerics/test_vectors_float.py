"""Vector instructions on float lanes, against the scalar instructions and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.numerics import function
from tests.support.numeric import bits, is_nan, operand
from tests.support.vectors import FLOAT_BINARY, FLOAT_COMPARE, FLOAT_UNARY, SHAPES, join, split, vectors

FLOATS = ["f32x4", "f64x2"]
CANONICAL = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}


def on_lanes(shape: str, name: str, *vectors_: int) -> int:
    """What the scalar instruction gives on each lane."""
    width, _, type_ = SHAPES[shape]
    compute = function(f"{type_}.{name}")
    lanes = zip(*(split(width, vector) for vector in vectors_), strict=True)
    return join(width, [bits(type_, compute(*(operand(type_, x) for x in lane))) for lane in lanes])


@pytest.mark.parametrize("shape", FLOATS)
@pytest.mark.parametrize("name", [*FLOAT_UNARY, "abs", "neg"])
@given(data=st.data())
def test_unary(shape: str, name: str, data: st.DataObject) -> None:
    a = data.draw(vectors(shape))
    assert function(f"{shape}.{name}")(a) == on_lanes(shape, name, a)


@pytest.mark.parametrize("shape", FLOATS)
@pytest.mark.parametrize("name", FLOAT_BINARY)
@given(data=st.data())
def test_binary(shape: str, name: str, data: st.DataObject) -> None:
    a, b = data.draw(vectors(shape)), data.draw(vectors(shape))
    expected = on_lanes(shape, name, a, b)
    assert function(f"{shape}.{name}")(a, b) == expected
    if name in ("min", "max"):
        assert function(f"{shape}.relaxed_{name}")(a, b) == expected


def array(shape: str, vector: int) -> Any:
    """The lanes as numpy floats."""
    return np.frombuffer(vector.to_bytes(16, "little"), dtype=f"<f{SHAPES[shape][0] // 8}")


@pytest.mark.parametrize("shape", FLOATS)
@pytest.mark.parametrize("name", FLOAT_COMPARE)
@given(data=st.data())
def test_compare(shape: str, name: str, data: st.DataObject) -> None:
    a = data.draw(vectors(shape))
    b = data.draw(vectors(shape) | st.just(a))
    compare = {"eq": np.equal, "ne": np.not_equal, "lt": np.less}
    compare |= {"gt": np.greater, "le": np.less_equal, "ge": np.greater_equal}
    verdicts = compare[name](array(shape, a), array(shape, b))
    assert function(f"{shape}.{name}")(a, b) == join(SHAPES[shape][0], [-int(true) for true in verdicts])


@pytest.mark.parametrize("shape", FLOATS)
@given(data=st.data())
def test_pmin_and_pmax_choose_by_comparison_and_keep_every_bit(shape: str, data: st.DataObject) -> None:
    width = SHAPES[shape][0]
    a, b = data.draw(vectors(shape)), data.draw(vectors(shape))
    lanes = [*zip(split(width, a), split(width, b), array(shape, b) < array(shape, a), strict=True)]
    assert function(f"{shape}.pmin")(a, b) == join(width, [y if less else x for x, y, less in lanes])
    lanes = [*zip(split(width, a), split(width, b), array(shape, a) < array(shape, b), strict=True)]
    assert function(f"{shape}.pmax")(a, b) == join(width, [y if less else x for x, y, less in lanes])


@pytest.mark.parametrize("shape", FLOATS)
@pytest.mark.parametrize("name", [*FLOAT_UNARY, *FLOAT_BINARY])
def test_computed_nans_are_canonical_in_their_lane_only(shape: str, name: str) -> None:
    width, count, type_ = SHAPES[shape]
    signalling = {"f32": 0xFFA00001, "f64": 0xFFF4000000000001}[type_]
    four = bits(type_, 4.0)
    a = join(width, [four, signalling, *[four] * (count - 2)])
    found = split(width, function(f"{shape}.{name}")(*[a, a][: 2 if name in FLOAT_BINARY else 1]))
    assert found[1] == CANONICAL[type_]
    assert not any(is_nan(type_, lane) for lane in found[:1] + found[2:])


def test_the_default_nan_of_the_processor_does_not_come_through() -> None:
    infinity = np.float32(np.inf).view(np.uint32).item()
    both = join(32, [infinity, infinity, 0, 0])
    assert function("f32x4.sub")(both, both) == join(32, [0x7FC00000, 0x7FC00000, 0, 0])
    assert function("f32x4.div")(0, 0) == join(32, [0x7FC00000] * 4)
    assert function("f64x2.div")(0, 0) == join(64, [0x7FF8000000000000] * 2)
    minus = join(64, [bits("f64", -1.0), bits("f64", 9.0)])
    assert function("f64x2.sqrt")(minus) == join(64, [0x7FF8000000000000, bits("f64", 3.0)])
