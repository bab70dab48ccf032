"""Vector instructions on integer lanes, all lanes at once where they can be kept from disturbing each other.

A v128 is one integer, so one addition adds all lanes, and only a carry from one into the next has to be
prevented: the top bits of the lanes are taken out (`rests`) or set as a guard (`tops`) and dealt with apart.
Products go lane by lane.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from pywasmvm.numerics.lanes import I8X16, I16X8, I32X4, I64X2, MASK128, Shape, instruction

# -- sums and differences ----------------------------------------------------------------------------------


def _arithmetic(shape: Shape) -> None:
    tops, rests, fill, shift = shape.tops, shape.rests, shape.fill, shape.bits - 1

    @instruction(shape, "add")
    def add(a: int, b: int) -> int:
        """Sums, modulo the width of a lane."""
        return (a & rests) + (b & rests) ^ (a ^ b) & tops

    @instruction(shape, "sub")
    def sub(a: int, b: int) -> int:
        """Differences, modulo the width of a lane."""
        return (a | tops) - (b & rests) ^ (a ^ b ^ tops) & tops

    @instruction(shape, "neg")
    def neg(a: int) -> int:
        """Negations, modulo the width of a lane."""
        return tops - (a & rests) ^ (a ^ tops) & tops

    @instruction(shape, "abs")
    def abs_(a: int) -> int:
        """Absolute values; that of the least number is itself."""
        signs = a & tops
        # Inverted and one more; an inverted lane is at most the greatest signed number, so nothing carries.
        return (a ^ fill(signs)) + (signs >> shift)


def _saturating(shape: Shape) -> None:
    """For lanes of 8 and 16 bits: sums and differences that stop at the limits, and averages."""
    tops, rests, fill, shift = shape.tops, shape.rests, shape.fill, shape.bits - 1

    def stop(a: int, wrapped: int, overflowed: int) -> int:
        """The limit on the side of `a` in lanes that overflowed."""
        if not overflowed:
            return wrapped
        limits = rests + ((a & tops) >> shift)
        return wrapped ^ (wrapped ^ limits) & fill(overflowed)

    @instruction(shape, "add_sat_s")
    def add_sat_s(a: int, b: int) -> int:
        """Sums, saturating signed."""
        wrapped = (a & rests) + (b & rests) ^ (a ^ b) & tops
        return stop(a, wrapped, (wrapped ^ a) & (wrapped ^ b) & tops)

    @instruction(shape, "sub_sat_s")
    def sub_sat_s(a: int, b: int) -> int:
        """Differences, saturating signed."""
        wrapped = (a | tops) - (b & rests) ^ (a ^ b ^ tops) & tops
        return stop(a, wrapped, (wrapped ^ a) & (a ^ b) & tops)

    @instruction(shape, "add_sat_u")
    def add_sat_u(a: int, b: int) -> int:
        """Sums, saturating unsigned."""
        wrapped = (a & rests) + (b & rests) ^ (a ^ b) & tops
        carried = (a & b | (a | b) & (wrapped ^ MASK128)) & tops
        return wrapped | fill(carried)

    @instruction(shape, "sub_sat_u")
    def sub_sat_u(a: int, b: int) -> int:
        """Differences, saturating unsigned."""
        guarded = (a | tops) - (b & rests)
        least = b ^ MASK128
        kept = (a & least | (a | least) & guarded) & tops
        return (guarded ^ (a ^ b ^ tops) & tops) & fill(kept)

    @instruction(shape, "avgr_u")
    def avgr_u(a: int, b: int) -> int:
        """Averages of unsigned lanes, rounded up."""
        return (a | b) - ((a ^ b) >> 1 & rests)


# -- comparisons -------------------------------------------------------------------------------------------

Compare = Callable[[int, int], int]


def _at_least_u(shape: Shape) -> Compare:
    """All bits set in lanes where `a >= b`, unsigned."""
    tops, rests, shift, mask = shape.tops, shape.rests, shape.bits - 1, shape.mask

    def at_least(a: int, b: int) -> int:
        # The guard stays where the lower bits of `a` are not less. It is outvoted where the top bits differ.
        guard = (a | tops) - (b & rests)
        other = b ^ MASK128
        return (((a & other | (a | other) & guard) & tops) >> shift) * mask

    return at_least


def _at_least_s(shape: Shape) -> Compare:
    """All bits set in lanes where `a >= b`, signed: here a top bit makes a lane less."""
    tops, rests, shift, mask = shape.tops, shape.rests, shape.bits - 1, shape.mask

    def at_least(a: int, b: int) -> int:
        guard = (a | tops) - (b & rests)
        other = a ^ MASK128
        return (((b & other | (b | other) & guard) & tops) >> shift) * mask

    return at_least


def _equality(shape: Shape) -> None:
    tops, rests, fill = shape.tops, shape.rests, shape.fill

    @instruction(shape, "ne")
    def ne(a: int, b: int) -> int:
        """All bits set in lanes that differ."""
        difference = a ^ b
        return fill(((difference & rests) + rests | difference) & tops)

    @instruction(shape, "eq")
    def eq(a: int, b: int) -> int:
        """All bits set in lanes that are equal."""
        difference = a ^ b
        return fill(((difference & rests) + rests | difference) & tops) ^ MASK128


def _order(shape: Shape, sign: str, at_least: Compare) -> None:
    @instruction(shape, f"ge_{sign}")
    def ge(a: int, b: int) -> int:
        """All bits set in lanes where the first is greater or equal."""
        return at_least(a, b)

    @instruction(shape, f"le_{sign}")
    def le(a: int, b: int) -> int:
        """All bits set in lanes where the first is less or equal."""
        return at_least(b, a)

    @instruction(shape, f"lt_{sign}")
    def lt(a: int, b: int) -> int:
        """All bits set in lanes where the first is less."""
        return at_least(a, b) ^ MASK128

    @instruction(shape, f"gt_{sign}")
    def gt(a: int, b: int) -> int:
        """All bits set in lanes where the first is greater."""
        return at_least(b, a) ^ MASK128


def _extremes(shape: Shape, sign: str, at_least: Compare) -> None:
    @instruction(shape, f"min_{sign}")
    def min_(a: int, b: int) -> int:
        """The lesser of each two lanes."""
        return a ^ (a ^ b) & at_least(a, b)

    @instruction(shape, f"max_{sign}")
    def max_(a: int, b: int) -> int:
        """The greater of each two lanes."""
        return b ^ (a ^ b) & at_least(a, b)


# -- shifts ------------------------------------------------------------------------------------------------


def _shifts(shape: Shape) -> None:
    bits, tops, fill = shape.bits, shape.tops, shape.fill
    #: By the shift count: the low bits of every lane that are still in it.
    left = [shape.splat(shape.mask >> count) for count in range(bits)]

    @instruction(shape, "shl")
    def shl(a: int, count: int) -> int:
        """Lanes shifted left; the count is taken modulo their width."""
        count %= bits
        return (a & left[count]) << count

    @instruction(shape, "shr_u")
    def shr_u(a: int, count: int) -> int:
        """Lanes shifted right, zeros coming in; the count is taken modulo their width."""
        count %= bits
        return a >> count & left[count]

    @instruction(shape, "shr_s")
    def shr_s(a: int, count: int) -> int:
        """Lanes shifted right, the sign coming in; the count is taken modulo their width."""
        count %= bits
        kept = left[count]
        return a >> count & kept | fill(a & tops) & (kept ^ MASK128)


# -- tests -------------------------------------------------------------------------------------------------

#: The sign of a byte as a binary digit.
_SIGN_DIGITS = b"0" * 128 + b"1" * 128


def _tests(shape: Shape) -> None:
    tops, rests, width = shape.tops, shape.rests, shape.bits // 8

    @instruction(shape, "all_true")
    def all_true(a: int) -> int:
        """Whether no lane is zero."""
        return 1 if ((a & rests) + rests | a) & tops == tops else 0

    @instruction(shape, "bitmask")
    def bitmask(a: int) -> int:
        """The signs of the lanes, that of lane 0 lowest."""
        # The highest byte of each lane, from the last lane on, as the digits of a number.
        return int(a.to_bytes(16, "big")[::width].translate(_SIGN_DIGITS), 2)


for _shape in (I8X16, I16X8, I32X4, I64X2):
    _arithmetic(_shape)
    _shifts(_shape)
    _tests(_shape)
    _equality(_shape)
    _order(_shape, "s", _at_least_s(_shape))
for _shape in (I8X16, I16X8, I32X4):
    _order(_shape, "u", _at_least_u(_shape))
    _extremes(_shape, "s", _at_least_s(_shape))
    _extremes(_shape, "u", _at_least_u(_shape))
for _shape in (I8X16, I16X8):
    _saturating(_shape)


# -- lane by lane ------------------------------------------------------------------------------------------

_ONES_IN_BYTE = bytes(byte.bit_count() for byte in range(256))


def i8x16_popcnt(a: int) -> int:
    """How many bits are set in each lane."""
    return int.from_bytes(a.to_bytes(16, "little").translate(_ONES_IN_BYTE), "little")


def _products(shape: Shape) -> None:
    mask, split, join = shape.mask, shape.unsigned, shape.join

    @instruction(shape, "mul")
    def mul(a: int, b: int) -> int:
        """Products, modulo the width of a lane."""
        return join([product & mask for product in map(operator.mul, split(a), split(b))])


for _shape in (I16X8, I32X4, I64X2):
    _products(_shape)


def i16x8_q15mulr_sat_s(a: int, b: int) -> int:
    """Products of fractions in 1.15 format, rounded; only that of two least ones saturates."""
    products = map(operator.mul, I16X8.signed(a), I16X8.signed(b))
    return I16X8.join_signed([min(product + 0x4000 >> 15, 0x7FFF) for product in products])
