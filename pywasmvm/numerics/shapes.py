"""Shapes of a v128: how many lanes of which width, and how a vector is taken apart and put together."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

#: Letters of `struct` for lanes by their width in bits.
_LETTERS = {8: "b", 16: "h", 32: "i", 64: "q"}


class Shape:
    """`count` lanes of `bits` each; `mask` has the bits of one lane set."""

    __slots__ = ("_ones", "_signed", "_unsigned", "bits", "count", "mask", "name")

    def __init__(self, name: str) -> None:
        kind, _, count = name.partition("x")
        self.name, self.bits, self.count = name, int(kind[1:]), int(count)
        self.mask = (1 << self.bits) - 1
        letter = _LETTERS[self.bits]
        self._signed = struct.Struct(f"<{count}{letter}")
        self._unsigned = struct.Struct(f"<{count}{letter.upper()}")
        self._ones = sum(1 << place * self.bits for place in range(self.count))

    def unsigned(self, vector: int) -> tuple[int, ...]:
        """The lanes as unsigned integers, lane 0 first."""
        return self._unsigned.unpack(vector.to_bytes(16, "little"))

    def signed(self, vector: int) -> tuple[int, ...]:
        """The lanes as signed integers, lane 0 first."""
        return self._signed.unpack(vector.to_bytes(16, "little"))

    def join(self, lanes: Iterable[int]) -> int:
        """The vector with these lanes; of each only the low bits count."""
        mask = self.mask
        return int.from_bytes(self._unsigned.pack(*[lane & mask for lane in lanes]), "little")

    def splat(self, lane: int) -> int:
        """The vector all of whose lanes are this one, given without bits beyond its width."""
        return self._ones * lane

    def __repr__(self) -> str:
        return self.name


I8X16, I16X8, I32X4, I64X2 = (Shape(name) for name in ("i8x16", "i16x8", "i32x4", "i64x2"))
F32X4, F64X2 = Shape("f32x4"), Shape("f64x2")
INTEGER_SHAPES = (I8X16, I16X8, I32X4, I64X2)


def named(function: Callable[..., Any], shape: Shape, name: str, doc: str) -> Callable[..., Any]:
    """The function under the name of its instruction, with its description."""
    function.__name__ = function.__qualname__ = f"{shape.name}_{name}"
    function.__doc__ = doc
    return function
