"""Shapes of a v128: how many lanes of which width, and how a vector is taken apart and put together.

A v128 is an integer, `0 <= v < 2**128`, whose lowest bits are lane 0.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

MASK128 = (1 << 128) - 1

#: The functions of instructions that exist once for each of several shapes, under their instruction's name.
LANEWISE: dict[str, Callable[..., Any]] = {}

#: Letters of `struct` for lanes by their width in bits.
_SIGNED = {8: "b", 16: "h", 32: "i", 64: "q"}
_UNSIGNED = {8: "B", 16: "H", 32: "I", 64: "Q"}
_FLOAT = {32: "f", 64: "d"}

F = TypeVar("F", bound=Callable[..., Any])


class Shape:
    """`count` lanes of `bits` each.

    `mask` and `sign` have all bits and the top bit of one lane set. Of every lane of a vector, `ones` has the
    lowest bit, `tops` the highest and `rests` all but the highest.
    """

    __slots__ = ("_signed", "_unsigned", "bits", "count", "mask", "name", "ones", "rests", "sign", "tops")

    def __init__(self, name: str) -> None:
        kind, _, count = name.partition("x")
        self.name, self.bits, self.count = name, int(kind[1:]), int(count)
        self.mask, self.sign = (1 << self.bits) - 1, 1 << self.bits - 1
        self.ones = sum(1 << place * self.bits for place in range(self.count))
        self.tops = self.ones * self.sign
        self.rests = MASK128 ^ self.tops
        self._signed = struct.Struct(f"<{count}{_SIGNED[self.bits]}")
        self._unsigned = struct.Struct(f"<{count}{_UNSIGNED[self.bits]}")

    def unsigned(self, vector: int) -> tuple[int, ...]:
        """The lanes as unsigned integers, lane 0 first."""
        return self._unsigned.unpack(vector.to_bytes(16, "little"))

    def signed(self, vector: int) -> tuple[int, ...]:
        """The lanes as signed integers, lane 0 first."""
        return self._signed.unpack(vector.to_bytes(16, "little"))

    def join(self, lanes: Iterable[int]) -> int:
        """The vector with these unsigned lanes. Raises struct.error where one does not fit."""
        return int.from_bytes(self._unsigned.pack(*lanes), "little")

    def join_signed(self, lanes: Iterable[int]) -> int:
        """The vector with these signed lanes. Raises struct.error where one does not fit."""
        return int.from_bytes(self._signed.pack(*lanes), "little")

    def splat(self, lane: int) -> int:
        """The vector all of whose lanes are this unsigned one."""
        return self.ones * lane

    def fill(self, tops: int) -> int:
        """All bits set in the lanes whose top bit is, in a vector that has no other bits."""
        return (tops >> self.bits - 1) * self.mask

    def __repr__(self) -> str:
        return self.name


class FloatShape(Shape):
    """Lanes that are floats."""

    __slots__ = ("_flags", "_floats")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._floats = struct.Struct(f"<{self.count}{_FLOAT[self.bits]}")
        self._flags = struct.Struct("<" + f"?{self.bits // 8 - 1}x" * self.count)

    def floats(self, vector: int) -> tuple[float, ...]:
        """The lanes to compute with, lane 0 first: f32 NaNs are NaNs, but their bits are lost."""
        return self._floats.unpack(vector.to_bytes(16, "little"))

    def join_floats(self, lanes: Iterable[float]) -> int:
        """The vector with these computed lanes, of which every NaN becomes the canonical one."""
        packed = self._floats.pack(*[lane if lane == lane else math.nan for lane in lanes])
        return int.from_bytes(packed, "little")

    def join_flags(self, flags: Iterable[bool]) -> int:
        """The vector with all bits set in lanes whose flag is."""
        return int.from_bytes(self._flags.pack(*flags), "little") * self.mask


I8X16, I16X8, I32X4, I64X2 = (Shape(name) for name in ("i8x16", "i16x8", "i32x4", "i64x2"))
F32X4, F64X2 = FloatShape("f32x4"), FloatShape("f64x2")


def instruction(shape: Shape, name: str) -> Callable[[F], F]:
    """Registers a function as the instruction `name` of a shape, and gives it that instruction's name."""

    def register(function: F) -> F:
        function.__name__ = function.__qualname__ = f"{shape.name}_{name}"
        LANEWISE[function.__name__] = function
        return function

    return register
