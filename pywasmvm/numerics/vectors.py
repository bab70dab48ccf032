"""Vector instructions on bits and integer lanes (spec: Execution, Vector Instructions).

A v128 is an integer of 128 bits whose lowest bits are lane 0. Where lanes do not disturb each other the whole
integer is computed at once; else it is taken apart with a `Shape`. Families that differ only in their lanes
are made from the function of one lane. Lane immediates come after the operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pywasmvm.numerics.lanes import I8X16, I16X8, I32X4, I64X2, INTEGER_SHAPES, Shape, named

MASK128 = (1 << 128) - 1


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
    """Bits of one of them."""
    return a ^ b


def v128_bitselect(a: int, b: int, mask: int) -> int:
    """Bits of `a` where the mask has ones, of `b` elsewhere."""
    return a & mask | b & ~mask


def v128_any_true(a: int) -> int:
    """Whether any bit is set."""
    return 1 if a else 0


def i8x16_shuffle(a: int, b: int, lanes: bytes) -> int:
    """Sixteen bytes picked from the thirty-two of both by number."""
    both = a.to_bytes(16, "little") + b.to_bytes(16, "little")
    return int.from_bytes(bytes([both[lane] for lane in lanes]), "little")


def i8x16_swizzle(a: int, b: int) -> int:
    """Bytes of `a` picked by the bytes of `b`; numbers beyond 15 give zero."""
    source = a.to_bytes(16, "little")
    picked = [source[lane] if lane < 16 else 0 for lane in b.to_bytes(16, "little")]
    return int.from_bytes(bytes(picked), "little")


# -- lanes by a function of one lane -----------------------------------------------------------------------

_SIGNED_LIMITS = {s.bits: (-(1 << s.bits - 1), (1 << s.bits - 1) - 1) for s in INTEGER_SHAPES}


def _unary(shape: Shape, name: str, lane: Callable[[int], int], doc: str, signed: bool = False) -> None:
    split, join = (shape.signed if signed else shape.unsigned), shape.join

    def compute(a: int) -> int:
        return join(map(lane, split(a)))

    globals()[f"{shape.name}_{name}"] = named(compute, shape, name, doc)


def _binary(shape: Shape, name: str, lane: Callable[[int, int], int], doc: str, signed: bool = False) -> None:
    split, join = (shape.signed if signed else shape.unsigned), shape.join

    def compute(a: int, b: int) -> int:
        return join(map(lane, split(a), split(b)))

    globals()[f"{shape.name}_{name}"] = named(compute, shape, name, doc)


def _compare(shape: Shape, name: str, test: Callable[[int, int], bool], doc: str, signed: bool) -> None:
    ones = shape.mask
    _binary(shape, name, lambda x, y: ones if test(x, y) else 0, doc, signed)


def _clamp(low: int, high: int, value: int) -> int:
    return low if value < low else high if value > high else value


def _saturating(shape: Shape) -> None:
    low, high = _SIGNED_LIMITS[shape.bits]
    top = shape.mask
    _binary(shape, "add_sat_s", lambda x, y: _clamp(low, high, x + y), "Sums, saturating signed.", True)
    _binary(shape, "add_sat_u", lambda x, y: min(top, x + y), "Sums, saturating unsigned.")
    _binary(
        shape, "sub_sat_s", lambda x, y: _clamp(low, high, x - y), "Differences, saturating signed.", True
    )
    _binary(shape, "sub_sat_u", lambda x, y: max(0, x - y), "Differences, saturating unsigned.")
    _binary(shape, "avgr_u", lambda x, y: (x + y + 1) >> 1, "Averages, rounded up.")


def _arithmetic(shape: Shape) -> None:
    _unary(shape, "abs", abs, "Absolute values.", signed=True)
    _unary(shape, "neg", lambda x: -x, "Negations.")
    # The top bits of lanes are kept out of the sum, so that no carry leaves a lane, and added by xor.
    tops = shape.splat(1 << shape.bits - 1)
    rest = MASK128 ^ tops

    def add(a: int, b: int) -> int:
        return (a & rest) + (b & rest) ^ (a ^ b) & tops

    def sub(a: int, b: int) -> int:
        return (a | tops) - (b & rest) ^ (a ^ b ^ tops) & tops

    globals()[f"{shape.name}_add"] = named(add, shape, "add", "Sums.")
    globals()[f"{shape.name}_sub"] = named(sub, shape, "sub", "Differences.")


def _shifts(shape: Shape) -> None:
    bits = shape.bits

    def shl(a: int, count: int) -> int:
        count %= bits
        return (a & shape.splat(shape.mask >> count)) << count

    def shr_u(a: int, count: int) -> int:
        count %= bits
        return a >> count & shape.splat(shape.mask >> count)

    def shr_s(a: int, count: int) -> int:
        count %= bits
        return shape.join(x >> count for x in shape.signed(a))

    globals()[f"{shape.name}_shl"] = named(shl, shape, "shl", "Lanes shifted left.")
    globals()[f"{shape.name}_shr_u"] = named(shr_u, shape, "shr_u", "Lanes shifted right, zeros coming in.")
    globals()[f"{shape.name}_shr_s"] = named(
        shr_s, shape, "shr_s", "Lanes shifted right, the sign coming in."
    )


def _comparisons(shape: Shape) -> None:
    for name, test in _TESTS.items():
        if name in ("eq", "ne"):
            _compare(shape, name, test, "All bits set in lanes that compare so.", False)
            continue
        _compare(shape, f"{name}_s", test, "All bits set in lanes that compare so, signed.", True)
        if shape is not I64X2:
            _compare(shape, f"{name}_u", test, "All bits set in lanes that compare so, unsigned.", False)


_TESTS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "gt": lambda x, y: x > y,
    "le": lambda x, y: x <= y,
    "ge": lambda x, y: x >= y,
}


def _extremes(shape: Shape) -> None:
    for name, pick in (("min", min), ("max", max)):
        _binary(shape, f"{name}_s", pick, f"The {name}imum of each two lanes, signed.", True)
        _binary(shape, f"{name}_u", pick, f"The {name}imum of each two lanes, unsigned.")


def _tests(shape: Shape) -> None:
    def all_true(a: int) -> int:
        return 1 if all(shape.unsigned(a)) else 0

    def bitmask(a: int) -> int:
        return sum(1 << place for place, x in enumerate(shape.signed(a)) if x < 0)

    globals()[f"{shape.name}_all_true"] = named(all_true, shape, "all_true", "Whether no lane is zero.")
    globals()[f"{shape.name}_bitmask"] = named(bitmask, shape, "bitmask", "The sign bits of the lanes.")


def lane_access(shape: Shape, encode: Callable[[Any], int], decode: Callable[[int], Any]) -> dict[str, Any]:
    """splat, extract_lane and replace_lane of a shape whose lanes have another form outside."""
    bits, mask = shape.bits, shape.mask

    def splat(x: Any) -> int:
        return shape.splat(encode(x) & mask)

    def extract_lane(a: int, lane: int) -> Any:
        return decode(a >> lane * bits & mask)

    def replace_lane(a: int, x: Any, lane: int) -> int:
        shift = lane * bits
        return a & ~(mask << shift) | (encode(x) & mask) << shift

    return {
        f"{shape.name}_{f.__name__}": named(f, shape, f.__name__, doc)
        for f, doc in (
            (splat, "Every lane the same."),
            (extract_lane, "One lane."),
            (replace_lane, "The vector with one lane exchanged."),
        )
    }


def _integer_lanes(shape: Shape) -> None:
    made = lane_access(shape, lambda x: x, lambda x: x)
    if shape in (I8X16, I16X8):
        made[f"{shape.name}_extract_lane_u"] = made.pop(f"{shape.name}_extract_lane")
        sign = 1 << shape.bits - 1

        def extract_lane_s(a: int, lane: int) -> int:
            x = a >> lane * shape.bits & shape.mask
            return (x ^ sign) - sign & 0xFFFF_FFFF

        made[f"{shape.name}_extract_lane_s"] = named(
            extract_lane_s, shape, "extract_lane_s", "One lane, sign-extended to an i32."
        )
    globals().update(made)


for _shape in INTEGER_SHAPES:
    _arithmetic(_shape)
    _shifts(_shape)
    _comparisons(_shape)
    _tests(_shape)
    _integer_lanes(_shape)
for _shape in (I8X16, I16X8, I32X4):
    _extremes(_shape)
for _shape in (I8X16, I16X8):
    _saturating(_shape)
for _shape in (I16X8, I32X4, I64X2):
    _binary(_shape, "mul", lambda x, y: x * y, "Products, the low bits of each.")
_unary(I8X16, "popcnt", int.bit_count, "How many bits are set in each lane.")
_binary(
    I16X8,
    "q15mulr_sat_s",
    lambda x, y: min((x * y + 0x4000) >> 15, 0x7FFF),
    "Products of fractions in 1.15 format, rounded, saturating.",
    signed=True,
)


# -- between shapes ----------------------------------------------------------------------------------------


def _extending(wide: Shape, narrow: Shape) -> None:
    """Instructions whose lanes come from half as wide ones, of one half or from pairs."""
    half = narrow.count // 2
    parts = {"low": slice(0, half), "high": slice(half, None)}
    for sign, split in (("s", narrow.signed), ("u", narrow.unsigned)):
        for name, part in parts.items():
            _extend(wide, narrow, f"{name}_{narrow.name}_{sign}", split, part)
        if wide is I64X2:
            continue
        _pairwise(wide, f"extadd_pairwise_{narrow.name}_{sign}", split)


def _extend(
    wide: Shape, narrow: Shape, suffix: str, split: Callable[[int], tuple[int, ...]], part: slice
) -> None:
    def extend(a: int) -> int:
        return wide.join(split(a)[part])

    def extmul(a: int, b: int) -> int:
        return wide.join(x * y for x, y in zip(split(a)[part], split(b)[part], strict=True))

    globals()[f"{wide.name}_extend_{suffix}"] = named(
        extend, wide, f"extend_{suffix}", f"Half of the {narrow.name} lanes, widened."
    )
    globals()[f"{wide.name}_extmul_{suffix}"] = named(
        extmul, wide, f"extmul_{suffix}", f"Whole products of half of the {narrow.name} lanes."
    )


def _pairwise(wide: Shape, name: str, split: Callable[[int], tuple[int, ...]]) -> None:
    def extadd(a: int) -> int:
        lanes = split(a)
        return wide.join(x + y for x, y in zip(lanes[::2], lanes[1::2], strict=True))

    globals()[f"{wide.name}_{name}"] = named(extadd, wide, name, "Sums of neighbours, widened.")


def _narrowing(narrow: Shape, wide: Shape) -> None:
    """Lanes of two vectors, saturated to half their width."""
    signed, unsigned = _SIGNED_LIMITS[narrow.bits], (0, narrow.mask)
    for sign, (low, high) in (("s", signed), ("u", unsigned)):
        _narrow(narrow, wide, sign, low, high)


def _narrow(narrow: Shape, wide: Shape, sign: str, low: int, high: int) -> None:
    def compute(a: int, b: int) -> int:
        return narrow.join(_clamp(low, high, x) for x in (*wide.signed(a), *wide.signed(b)))

    name = f"narrow_{wide.name}_{sign}"
    globals()[f"{narrow.name}_{name}"] = named(compute, narrow, name, "Lanes of both, saturated.")


for _wide, _narrow_shape in ((I16X8, I8X16), (I32X4, I16X8), (I64X2, I32X4)):
    _extending(_wide, _narrow_shape)
_narrowing(I8X16, I16X8)
_narrowing(I16X8, I32X4)


def pair_products(a: Iterable[int], b: Iterable[int]) -> list[int]:
    """The sums of the products of each two neighbouring lanes."""
    products = [x * y for x, y in zip(a, b, strict=True)]
    return [x + y for x, y in zip(products[::2], products[1::2], strict=True)]


def i32x4_dot_i16x8_s(a: int, b: int) -> int:
    """Sums of the products of neighbouring lanes, signed."""
    return I32X4.join(pair_products(I16X8.signed(a), I16X8.signed(b)))
