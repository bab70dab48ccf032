"""Vector instructions that move bits: bitwise ones, shuffles, and single lanes in and out (spec: Execution,
Vector Instructions).

Immediates come after the operands: `i8x16_extract_lane_s(a, lane)`, `i8x16_replace_lane(a, x, lane)`,
`i8x16_shuffle(a, b, lanes)` with sixteen bytes. An f32 lane outside of a vector is what an f32 always is
(docs/adr/0003-value-representation.md), so payloads of NaNs survive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from pywasmvm.numerics.lanes import F32X4, F64X2, I8X16, I16X8, I32X4, I64X2, MASK128, Shape, instruction

# -- bits --------------------------------------------------------------------------------------------------


def v128_not(a: int) -> int:
    """Every bit inverted."""
    return a ^ MASK128


def v128_and(a: int, b: int) -> int:
    """Bits of both."""
    return a & b


def v128_andnot(a: int, b: int) -> int:
    """Bits of the first and not of the second."""
    return a & ~b


def v128_or(a: int, b: int) -> int:
    """Bits of either."""
    return a | b


def v128_xor(a: int, b: int) -> int:
    """Bits of exactly one."""
    return a ^ b


def v128_bitselect(a: int, b: int, mask: int) -> int:
    """Bits of `a` where the mask has ones, of `b` elsewhere."""
    return b ^ (a ^ b) & mask


def v128_any_true(a: int) -> int:
    """Whether any bit is set."""
    return 1 if a else 0


# -- bytes by number ---------------------------------------------------------------------------------------
# `bytes.translate` looks every byte up in a table of 256: the vector to pick from, and zeros behind it.


def i8x16_shuffle(a: int, b: int, lanes: bytes) -> int:
    """Sixteen bytes picked by number from the thirty-two of `a` and `b`."""
    table = (a | b << 128).to_bytes(256, "little")
    return int.from_bytes(lanes.translate(table), "little")


def i8x16_swizzle(a: int, b: int) -> int:
    """Bytes of `a` picked by the bytes of `b`; numbers beyond 15 give zero."""
    table = a.to_bytes(256, "little")
    return int.from_bytes(b.to_bytes(16, "little").translate(table), "little")


# -- single lanes ------------------------------------------------------------------------------------------


def _same(value: int) -> int:
    return value


def _splat(shape: Shape, encode: Callable[[Any], int]) -> None:
    ones, mask = shape.ones, shape.mask

    @instruction(shape, "splat")
    def splat(x: Any) -> int:
        """Every lane the same: the low bits of an integer, or a float."""
        return ones * (encode(x) & mask)


def _replace_lane(shape: Shape, encode: Callable[[Any], int]) -> None:
    bits, mask = shape.bits, shape.mask

    @instruction(shape, "replace_lane")
    def replace_lane(a: int, x: Any, lane: int) -> int:
        """The vector with one lane exchanged for the low bits of an integer, or for a float."""
        shift = lane * bits
        return a & ~(mask << shift) | (encode(x) & mask) << shift


def _extract_lane(shape: Shape, name: str, decode: Callable[[int], Any]) -> None:
    bits, mask = shape.bits, shape.mask

    @instruction(shape, name)
    def extract_lane(a: int, lane: int) -> Any:
        """One lane: an unsigned integer or a float."""
        return decode(a >> lane * bits & mask)


def _extract_lane_s(shape: Shape) -> None:
    bits, mask, sign = shape.bits, shape.mask, shape.sign

    @instruction(shape, "extract_lane_s")
    def extract_lane_s(a: int, lane: int) -> int:
        """One lane, sign-extended to an i32."""
        return ((a >> lane * bits & mask ^ sign) - sign) & 0xFFFF_FFFF


for _shape in (I8X16, I16X8, I32X4, I64X2):
    _splat(_shape, _same)
    _replace_lane(_shape, _same)
for _shape in (I8X16, I16X8):
    _extract_lane_s(_shape)
    _extract_lane(_shape, "extract_lane_u", _same)
for _shape in (I32X4, I64X2):
    _extract_lane(_shape, "extract_lane", _same)
for _shape, _encode, _decode in (
    (F32X4, f32_to_bits, f32_from_bits),
    (F64X2, f64_to_bits, f64_from_bits),
):
    _splat(_shape, _encode)
    _replace_lane(_shape, _encode)
    _extract_lane(_shape, "extract_lane", _decode)
