"""Integer instructions against definitions that share nothing with the implementation.

The oracles are strings of binary digits, exact fractions and numpy's fixed-width integers.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.numerics import function
from tests.support.numeric import EDGES, INTEGER_COMPARE, bits, patterns

WIDTHS = (32, 64)


def signed(value: int, width: int) -> int:
    kind = np.int32 if width == 32 else np.int64
    return int(np.array([value], dtype=f"uint{width}").view(kind)[0])


def digits(value: int, width: int) -> str:
    return format(value, f"0{width}b")


def clz(a: int, n: int) -> int:
    return len(digits(a, n)) - len(digits(a, n).lstrip("0"))


def ctz(a: int, n: int) -> int:
    return len(digits(a, n)) - len(digits(a, n).rstrip("0"))


def popcnt(a: int, n: int) -> int:
    return digits(a, n).count("1")


def extend(from_bits: int) -> Callable[[int, int], int]:
    def oracle(a: int, n: int) -> int:
        low = digits(a, n)[-from_bits:]
        return int(low[0] * (n - from_bits) + low, 2)

    return oracle


UNARY: dict[str, Callable[[int, int], int]] = {
    "clz": clz,
    "ctz": ctz,
    "popcnt": popcnt,
    "eqz": lambda a, n: int("1" not in digits(a, n)),
    "extend8_s": extend(8),
    "extend16_s": extend(16),
    "extend32_s": extend(32),
}


def _numpy(name: str) -> Callable[[int, int, int], int]:
    def oracle(a: int, b: int, n: int) -> int:
        kind = np.dtype(f"uint{n}").type
        with np.errstate(over="ignore"):
            return int(getattr(np, name)(kind(a), kind(b)))

    return oracle


def _divide(is_signed: bool, remainder: bool) -> Callable[[int, int, int], int | TrapKind]:
    def oracle(a: int, b: int, n: int) -> int | TrapKind:
        if is_signed:
            a, b = signed(a, n), signed(b, n)
        if b == 0:
            return TrapKind.INTEGER_DIVIDE_BY_ZERO
        quotient = int(Fraction(a, b))  # towards zero
        if remainder:
            return (a - quotient * b) % 2**n
        if is_signed and quotient == 2 ** (n - 1):
            return TrapKind.INTEGER_OVERFLOW
        return quotient % 2**n

    return oracle


def _shr_s(a: int, b: int, n: int) -> int:
    text = digits(a, n)
    shift = b % n
    return int(text[0] * shift + text[: n - shift], 2)


def _rotate(sign: int) -> Callable[[int, int, int], int]:
    def oracle(a: int, b: int, n: int) -> int:
        text, by = digits(a, n), sign * b % n
        return int(text[by:] + text[:by], 2)

    return oracle


BINARY: dict[str, Callable[[int, int, int], int | TrapKind]] = {
    "add": _numpy("add"),
    "sub": _numpy("subtract"),
    "mul": _numpy("multiply"),
    "and": _numpy("bitwise_and"),
    "or": _numpy("bitwise_or"),
    "xor": _numpy("bitwise_xor"),
    "div_u": _divide(False, False),
    "div_s": _divide(True, False),
    "rem_u": _divide(False, True),
    "rem_s": _divide(True, True),
    "shl": lambda a, b, n: int((digits(a, n) + "0" * (b % n))[-n:], 2),
    "shr_u": lambda a, b, n: int(("0" * (b % n) + digits(a, n))[:n], 2),
    "shr_s": _shr_s,
    "rotl": _rotate(1),
    "rotr": _rotate(-1),
}

for _name in INTEGER_COMPARE:
    _compare = getattr(operator, _name[:2])
    if _name.endswith("_s"):
        BINARY[_name] = lambda a, b, n, compare=_compare: int(compare(signed(a, n), signed(b, n)))  # type: ignore[misc]
    else:
        BINARY[_name] = lambda a, b, n, compare=_compare: int(compare(a, b))  # type: ignore[misc]


def outcome(name: str, *operands: int) -> int | TrapKind:
    try:
        result: int = function(name)(*operands)
    except Trap as trap:
        return trap.kind
    compares = name.partition(".")[2] in (*INTEGER_COMPARE, "eqz")
    bits("i32" if compares else name[:3], result)  # canonical
    return result


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, width: int) -> None:
    if name == "extend32_s" and width == 32:
        return

    @given(patterns(f"i{width}"))
    def check(a: int) -> None:
        assert outcome(f"i{width}.{name}", a) == UNARY[name](a, width)

    check()
    for a in (
        EDGES[f"i{width}"] + [1 << k for k in range(width)] + [2**width - (1 << k) for k in range(width)]
    ):
        assert outcome(f"i{width}.{name}", a) == UNARY[name](a, width), hex(a)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str, width: int) -> None:
    oracle = BINARY[name]
    for a, b in itertools.product(EDGES[f"i{width}"], repeat=2):
        assert outcome(f"i{width}.{name}", a, b) == oracle(a, b, width), (hex(a), hex(b))

    @given(patterns(f"i{width}"), patterns(f"i{width}"))
    def check(a: int, b: int) -> None:
        assert outcome(f"i{width}.{name}", a, b) == oracle(a, b, width)

    check()


@given(st.sampled_from(WIDTHS), st.data())
def test_quotient_and_remainder_belong_together(width: int, data: st.DataObject) -> None:
    a, b = data.draw(patterns(f"i{width}")), data.draw(patterns(f"i{width}"))
    for sign in "su":
        quotient, remainder = outcome(f"i{width}.div_{sign}", a, b), outcome(f"i{width}.rem_{sign}", a, b)
        if isinstance(quotient, int) and isinstance(remainder, int):
            assert (quotient * b + remainder) % 2**width == a


@pytest.mark.parametrize("width", WIDTHS)
def test_smallest_by_minus_one(width: int) -> None:
    smallest, minus_one = 1 << width - 1, 2**width - 1
    assert outcome(f"i{width}.div_s", smallest, minus_one) is TrapKind.INTEGER_OVERFLOW
    assert outcome(f"i{width}.rem_s", smallest, minus_one) == 0
    assert outcome(f"i{width}.div_u", smallest, minus_one) == 0


@pytest.mark.parametrize("name", ["div_s", "div_u", "rem_s", "rem_u"])
@pytest.mark.parametrize("width", WIDTHS)
def test_division_by_zero_names_itself(name: str, width: int) -> None:
    with pytest.raises(Trap, match=r"^integer divide by zero$"):
        function(f"i{width}.{name}")(7, 0)
