"""Vector instructions on integer lanes, each against its definition on one lane."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.numerics import function
from tests.support.vectors import INSTRUCTIONS, INTEGERS, SHAPES, join, split, vectors

# Definitions take the width and two lanes, signed where the name says so; the result is taken modulo 2^width.
Lane = Callable[[int, int, int], int]


def clamped(signed: bool, bits: int, value: int) -> int:
    """The value, or the limit of lanes of this width that it is beyond."""
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(max(value, least), most)


BINARY: dict[str, Lane] = {
    "add": lambda bits, a, b: a + b,
    "sub": lambda bits, a, b: a - b,
    "mul": lambda bits, a, b: a * b,
    "add_sat_s": lambda bits, a, b: clamped(True, bits, a + b),
    "add_sat_u": lambda bits, a, b: clamped(False, bits, a + b),
    "sub_sat_s": lambda bits, a, b: clamped(True, bits, a - b),
    "sub_sat_u": lambda bits, a, b: clamped(False, bits, a - b),
    "avgr_u": lambda bits, a, b: (a + b + 1) // 2,
    "q15mulr_sat_s": lambda bits, a, b: clamped(True, bits, (a * b + 2**14) // 2**15),
    "relaxed_q15mulr_s": lambda bits, a, b: clamped(True, bits, (a * b + 2**14) // 2**15),
    "eq": lambda bits, a, b: -(a == b),
    "ne": lambda bits, a, b: -(a != b),
}
for _sign in "su":
    BINARY |= {
        f"lt_{_sign}": lambda bits, a, b: -(a < b),
        f"gt_{_sign}": lambda bits, a, b: -(a > b),
        f"le_{_sign}": lambda bits, a, b: -(a <= b),
        f"ge_{_sign}": lambda bits, a, b: -(a >= b),
        f"min_{_sign}": lambda bits, a, b: min(a, b),
        f"max_{_sign}": lambda bits, a, b: max(a, b),
    }
UNARY: dict[str, Callable[[int], int]] = {
    "abs": abs,
    "neg": lambda a: -a,
    "popcnt": lambda a: f"{a:b}".count("1"),
}
SHIFTS: dict[str, Callable[[int, int], int]] = {
    "shl": lambda a, count: a << count,
    "shr_s": lambda a, count: a >> count,
    "shr_u": lambda a, count: a >> count,
}


def is_signed(name: str) -> bool:
    """Whether the lanes are read as signed."""
    return name.endswith("_s") or name == "abs"


def those(names: dict[str, object]) -> list[tuple[str, str]]:
    """Shape and name of the instructions there are."""
    return [pair for pair in itertools.product(INTEGERS, names) if ".".join(pair) in INSTRUCTIONS]


@pytest.mark.parametrize(("shape", "name"), those({**BINARY}))
@given(data=st.data())
def test_binary(shape: str, name: str, data: st.DataObject) -> None:
    bits = SHAPES[shape][0]
    a, b = data.draw(vectors(shape)), data.draw(vectors(shape))
    lanes = zip(*(split(bits, vector, is_signed(name)) for vector in (a, b)), strict=True)
    assert function(f"{shape}.{name}")(a, b) == join(bits, [BINARY[name](bits, x, y) for x, y in lanes])


@pytest.mark.parametrize("name", [name for name in BINARY if f"i8x16.{name}" in INSTRUCTIONS])
def test_binary_on_all_bytes(name: str) -> None:
    """All 65,536 pairs of bytes, in vectors whose lanes differ."""
    compute, lane = function(f"i8x16.{name}"), BINARY[name]
    signed = is_signed(name)
    for shift in range(256):
        for start in range(0, 256, 16):
            a = join(8, range(start, start + 16))
            b = join(8, [x * 3 + shift for x in range(start, start + 16)])
            pairs = zip(split(8, a, signed), split(8, b, signed), strict=True)
            assert compute(a, b) == join(8, [lane(8, x, y) for x, y in pairs])


@pytest.mark.parametrize(("shape", "name"), those({**UNARY}))
@given(data=st.data())
def test_unary(shape: str, name: str, data: st.DataObject) -> None:
    bits = SHAPES[shape][0]
    a = data.draw(vectors(shape))
    expected = join(bits, map(UNARY[name], split(bits, a, is_signed(name))))
    assert function(f"{shape}.{name}")(a) == expected


@pytest.mark.parametrize(("shape", "name"), those({**SHIFTS}))
@given(data=st.data(), count=st.integers(0, 130) | st.integers(0, 2**32 - 1))
def test_shifts(shape: str, name: str, data: st.DataObject, count: int) -> None:
    bits = SHAPES[shape][0]
    a = data.draw(vectors(shape))
    lanes = [SHIFTS[name](lane, count % bits) for lane in split(bits, a, is_signed(name))]
    assert function(f"{shape}.{name}")(a, count) == join(bits, lanes)


@pytest.mark.parametrize("shape", INTEGERS)
@given(data=st.data())
def test_all_true_and_bitmask(shape: str, data: st.DataObject) -> None:
    bits = SHAPES[shape][0]
    a = data.draw(vectors(shape))
    lanes = split(bits, a, signed=True)
    assert function(f"{shape}.all_true")(a) == int(0 not in lanes)
    digits = "".join("01"[lane < 0] for lane in reversed(lanes))
    assert function(f"{shape}.bitmask")(a) == int(digits, 2)


@pytest.mark.parametrize("shape", INTEGERS)
@given(data=st.data())
def test_one_zero_lane_is_enough(shape: str, data: st.DataObject) -> None:
    bits, count, _ = SHAPES[shape]
    lanes = data.draw(st.lists(st.integers(1, 2**bits - 1), min_size=count, max_size=count))
    assert function(f"{shape}.all_true")(join(bits, lanes)) == 1
    lanes[data.draw(st.integers(0, count - 1))] = 0
    assert function(f"{shape}.all_true")(join(bits, lanes)) == 0
