"""Numbers in the text format to canonical values (spec: Text Format, Values).

Each function raises ValueError with the reason: `unknown operator` for what is no number, `unexpected
token` for one of another kind, `constant out of range` for one that does not fit.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from pywasmvm.numerics.bits import f32_from_bits, f32_from_python, f64_from_bits, f64_to_bits

if TYPE_CHECKING:
    from decimal import Decimal
    from fractions import Fraction

_DIGITS, _HEX = r"[0-9]+(?:_[0-9]+)*", r"[0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*"
_INTEGER = re.compile(rf"([+-]?)(?:0x({_HEX})|({_DIGITS}))")
_FLOAT = re.compile(
    rf"([+-]?)(?:(inf)|nan(?::0x({_HEX}))?|0x({_HEX})(?:\.({_HEX})?)?(?:[pP]([+-]?{_DIGITS}))?"
    rf"|(({_DIGITS})(?:\.(?:{_DIGITS})?)?(?:[eE][+-]?{_DIGITS})?))"
)

#: What scripts say about results; no constants.
_NAN_CLASSES = ("nan:canonical", "nan:arithmetic")

#: Longer integers are out of range without looking at them: reading decimal digits takes quadratic time.
_LONGEST = 100


def _number(text: str) -> tuple[str, int]:
    match = _INTEGER.fullmatch(text)
    if match is None:
        known = _FLOAT.fullmatch(text) or text in _NAN_CLASSES
        raise ValueError(f"{'unexpected token' if known else 'unknown operator'} {text}: no integer")
    sign, hexadecimal, decimal = match.groups()
    digits = (hexadecimal or decimal).replace("_", "").lstrip("0") or "0"
    if len(digits) > _LONGEST:
        return sign, 1 << 400
    return sign, int(digits, 16 if hexadecimal else 10)


def unsigned(text: str, bits: int) -> int:
    """An index, a count, an offset: no sign."""
    sign, value = _number(text)
    if sign:
        raise ValueError(f"unknown operator {text}: an unsigned number has no sign")
    if value >> bits:
        raise ValueError(f"i{bits} constant out of range")
    return value


def integer(text: str, bits: int) -> int:
    """An integer constant, signed or unsigned, as a canonical (unsigned) value."""
    sign, value = _number(text)
    if sign == "-":
        value = -value
    if not -(1 << bits - 1) <= value < 1 << bits:
        raise ValueError("constant out of range")
    return value & (1 << bits) - 1


def float64(text: str) -> float:
    """An f64 constant, correctly rounded; a NaN has exactly the bits that are written."""
    match = _match(text)
    sign, infinite, payload, _, _, _, decimal, _ = match.groups()
    if infinite or "nan" in text:
        return f64_from_bits(_special(bool(infinite), sign, payload, 52, 11))
    if decimal is not None:
        value = float(decimal.replace("_", ""))
    else:
        value = _hexadecimal(match)
    if math.isinf(value):
        raise ValueError("constant out of range")
    return -value if sign == "-" else value


def float32(text: str) -> float:
    """An f32 constant, correctly rounded; a NaN has exactly the bits that are written."""
    match = _match(text)
    sign, infinite, payload, _, _, _, decimal, _ = match.groups()
    if infinite or "nan" in text:
        return f32_from_bits(_special(bool(infinite), sign, payload, 23, 8))
    wide = float(decimal.replace("_", "")) if decimal is not None else _hexadecimal(match)
    value = _narrowed(wide, match)
    if math.isinf(value):
        raise ValueError("constant out of range")
    return -value if sign == "-" else value


def _match(text: str) -> re.Match[str]:
    match = _FLOAT.fullmatch(text)
    if match is None and text in _NAN_CLASSES:
        raise ValueError(f"unexpected token {text}")
    if match is None:
        raise ValueError(f"unknown operator {text}")
    return match


def _special(infinite: bool, sign: str, payload: str | None, mantissa: int, exponent: int) -> int:
    """The bits of an infinity or a NaN."""
    bits = ((1 << exponent) - 1) << mantissa | (1 << mantissa + exponent if sign == "-" else 0)
    if infinite:
        return bits
    if payload is None:
        return bits | 1 << mantissa - 1
    value = int(payload.replace("_", ""), 16)
    if not 0 < value < 1 << mantissa:
        raise ValueError("constant out of range: no NaN has this payload")
    return bits | value


def _hexadecimal(match: re.Match[str]) -> float:
    whole, fraction, exponent = match[4], match[5] or "", match[6] or "0"
    text = f"0x{whole}.{fraction}p{exponent}".replace("_", "")
    try:
        return float.fromhex(text)
    except OverflowError:
        return math.inf


#: Below it an f32 is subnormal, and which f64s lie in the middle of two f32s is another matter.
_LEAST_NORMAL = 2.0**-126
_MIDDLE, _LOW_BITS = 1 << 28, (1 << 29) - 1


def _narrowed(wide: float, match: re.Match[str]) -> float:
    """The f32 next to the number, whose nearest f64 is known.

    Rounding twice is wrong only where the f64 is exactly between two f32s and the number is not.
    """
    if wide >= _LEAST_NORMAL and (math.isinf(wide) or f64_to_bits(wide) & _LOW_BITS != _MIDDLE):
        return _rounded(wide)
    if wide == 0:
        return 0.0  # the number is far below the least f32
    exact = _exact(match)
    if wide != exact:
        # The neighbour with an odd last bit, on the way to zero, rounds as the number itself does.
        if wide > exact:
            wide = math.nextafter(wide, 0.0)
        wide = f64_from_bits(f64_to_bits(wide) | 1)
    return _rounded(wide)


def _rounded(wide: float) -> float:
    return f32_from_python(wide) if wide < 2.0**128 else math.inf


def _exact(match: re.Match[str]) -> Decimal | Fraction:
    # Slow to import, and few constants need them.
    from decimal import Decimal
    from fractions import Fraction

    if match[7] is not None:
        return Decimal(match[7].replace("_", ""))  # exact, and of any length, which an int of Python's is not
    whole, fraction = match[4].replace("_", ""), (match[5] or "").replace("_", "")
    scale = int((match[6] or "0").replace("_", "")) - 4 * len(fraction)
    return Fraction(int(whole + fraction, 16)) * Fraction(2) ** scale


def is_integer(text: str) -> bool:
    """Whether this is an integer, with or without a sign."""
    return _INTEGER.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Whether this is a number of any kind."""
    return _INTEGER.fullmatch(text) is not None or _FLOAT.fullmatch(text) is not None
