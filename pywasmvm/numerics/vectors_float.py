"""Vector instructions on floating-point lanes (spec: Execution, Vector Instructions).

What is computed is computed by the scalar instruction on each lane, so rounding, NaNs and the order of zeros
are those of `floats`. What only moves bits (signs, `pmin`, `pmax`) never makes a float of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from pywasmvm.numerics import floats
from pywasmvm.numerics.lanes import F32X4, F64X2, FloatShape, instruction

Unary = Callable[[float], float]
Binary = Callable[[float, float], float]


def _computed(shape: FloatShape, name: str) -> None:
    """An instruction that is the scalar one of the same name on every lane."""
    lane = getattr(floats, f"{shape.name.partition('x')[0]}_{name}")
    split, join = shape.floats, shape.join_floats

    if name in ("sqrt", "ceil", "floor", "trunc", "nearest"):

        @instruction(shape, name)
        def unary(a: int) -> int:
            """The scalar instruction of the same name on every lane."""
            return join(map(lane, split(a)))

    else:

        @instruction(shape, name)
        def binary(a: int, b: int) -> int:
            """The scalar instruction of the same name on each two lanes."""
            return join(map(lane, split(a), split(b)))


def _compared(
    shape: FloatShape, name: str, test: Callable[[float, float], bool]
) -> Callable[[int, int], int]:
    split, join = shape.floats, shape.join_flags

    @instruction(shape, name)
    def compare(a: int, b: int) -> int:
        """All bits set in lanes that compare so; a NaN only is unequal."""
        return join(map(test, split(a), split(b)))

    return compare


def _signs(shape: FloatShape) -> None:
    tops, rests = shape.tops, shape.rests

    @instruction(shape, "abs")
    def abs_(a: int) -> int:
        """The sign bits cleared, of NaNs too."""
        return a & rests

    @instruction(shape, "neg")
    def neg(a: int) -> int:
        """The sign bits inverted, of NaNs too."""
        return a ^ tops


def _picks(shape: FloatShape, less: Callable[[int, int], int]) -> None:
    @instruction(shape, "pmin")
    def pmin(a: int, b: int) -> int:
        """The second of two lanes where it is less, else the first, bit by bit."""
        return a ^ (a ^ b) & less(b, a)

    @instruction(shape, "pmax")
    def pmax(a: int, b: int) -> int:
        """The second of two lanes where it is greater, else the first, bit by bit."""
        return a ^ (a ^ b) & less(a, b)


for _shape in (F32X4, F64X2):
    for _name in ("sqrt", "ceil", "floor", "trunc", "nearest", "add", "sub", "mul", "div", "min", "max"):
        _computed(_shape, _name)
    for _name in ("eq", "ne", "gt", "le", "ge"):
        _compared(_shape, _name, getattr(operator, _name))
    _picks(_shape, _compared(_shape, "lt", operator.lt))
    _signs(_shape)
