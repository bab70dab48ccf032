"""Bit patterns: masks, signed views of canonical integers, and floats to and from their IEEE 754 bits.

The value representation of docs/adr/0003-value-representation.md in code (spec: Execution, Numerics).
Everything here moves bits and never computes, so NaN payloads survive.
"""

from __future__ import annotations

import math
from typing import Any

MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF

F32_CANONICAL_NAN = 0x7FC00000
F64_CANONICAL_NAN = 0x7FF8000000000000

# Several views of the same eight bytes: a value is written through one and read through another. The
# two steps stand on consecutive lines without a call or a jump between them, and CPython switches threads
# only at those, so one scratch serves all threads of a process that has a GIL.
_scratch = memoryview(bytearray(8))
as_f32: memoryview[Any] = _scratch.cast("f")
as_u32: memoryview[Any] = _scratch.cast("I")
as_f64: memoryview[Any] = _scratch.cast("d")
as_u64: memoryview[Any] = _scratch.cast("Q")


class F32NaN(float):
    """An f32 NaN other than the canonical positive one, with its 32-bit pattern in `bits`.

    Python floats are doubles, and turning a signalling f32 NaN into a double makes it quiet. So the
    pattern travels beside the value. A NaN that is a plain `float` always stands for 0x7fc00000.
    """

    __slots__ = ("bits",)
    bits: int

    def __new__(cls, bits: int) -> F32NaN:
        """`bits` must be the pattern of an f32 NaN."""
        wide = (bits & 0x80000000) << 32 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
        self = super().__new__(cls, f64_from_bits(wide))
        self.bits = bits
        return self

    def __getnewargs__(self) -> tuple[int]:
        return (self.bits,)

    def __repr__(self) -> str:
        """As the text format writes it: `-nan:0x200000`."""
        return f"{'-' if self.bits >> 31 else ''}nan:{self.bits & 0x7FFFFF:#x}"


def s32(value: int) -> int:
    """The signed reading of a canonical i32."""
    return value if value < 0x80000000 else value - 0x100000000


def s64(value: int) -> int:
    """The signed reading of a canonical i64."""
    return value if value < 0x8000000000000000 else value - 0x10000000000000000


def f32_from_bits(bits: int) -> float:
    """The f32 with this 32-bit pattern."""
    as_u32[0] = bits
    value: float = as_f32[0]
    if value == value:
        return value
    return math.nan if bits == F32_CANONICAL_NAN else F32NaN(bits)


def f32_to_bits(value: float) -> int:
    """The 32-bit pattern of an f32."""
    if value == value:
        as_f32[0] = value
        bits: int = as_u32[0]
        return bits
    return value.bits if isinstance(value, F32NaN) else F32_CANONICAL_NAN


def f64_from_bits(bits: int) -> float:
    """The f64 with this 64-bit pattern."""
    as_u64[0] = bits
    value: float = as_f64[0]
    return value


def f64_to_bits(value: float) -> int:
    """The 64-bit pattern of an f64."""
    as_f64[0] = value
    bits: int = as_u64[0]
    return bits


def f32_from_python(value: float) -> float:
    """Any Python number as an f32: rounded once; a NaN keeps its sign and the top 23 bits of its payload.

    For values that come from outside; inside, an f32 already is one. A NaN whose payload would be lost
    completely becomes quiet, as hardware does it. Raises OverflowError for an integer beyond f64's range,
    TypeError for what is no number.
    """
    if isinstance(value, int):
        value = float(value)
    if value == value:
        as_f32[0] = value
        rounded: float = as_f32[0]
        return rounded
    wide = f64_to_bits(value)  # also of an F32NaN: its double has the same sign and payload
    payload = wide >> 29 & 0x7FFFFF
    return f32_from_bits(wide >> 32 & 0x80000000 | 0x7F800000 | (payload or 0x400000))
