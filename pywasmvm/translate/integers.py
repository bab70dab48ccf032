"""Integer instructions as Python text, one template for each (spec: Execution, Numerics, Integer Operations).

`numerics/` defines what they mean; these templates compute the same in line, and a test compares the two.
Results may be wide: sums, differences and products are left as they come, and are brought into range only
where somebody has to see the canonical value, and there by a comparison where one wrap at most can have
happened, which CPython does faster than a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pywasmvm.translate.expr import (
    ADD,
    AND,
    ATOM,
    MUL,
    OR,
    SHIFT,
    TERNARY,
    TRAPS,
    UNARY,
    XOR,
    Expr,
    binary,
    call,
    constant,
    merged,
)

if TYPE_CHECKING:
    from pywasmvm.translate.symbolic import Symbolic

#: Wide values are brought into range before they get out of proportion.
_WIDEST = {32: 1 << 62, 64: 1 << 90}

#: Python's integers have digits of 30 bits; division by a power of two beats a shift while there is one
#: digit.
_ONE_DIGIT = 1 << 30


def _like(made: Expr, *parts: Expr) -> Expr:
    """Give an expression that was written out the locals, effects and depth of its parts."""
    made.locals, made.effects, made.depth = merged(*parts)
    return made


def is_canonical(e: Expr, bits: int) -> bool:
    """Whether the text gives the unsigned value itself."""
    return e.lo >= 0 and e.hi >> bits == 0


def is_signed(e: Expr, bits: int) -> bool:
    """Whether the text gives the signed value itself."""
    half = 1 << (bits - 1)
    return -half <= e.lo and e.hi < half


def add_constant(e: Expr, value: int) -> Expr:
    """`e + value`, a constant that `e` has already taken into account."""
    base, offset = (e, value) if e.base is None else (e.base, e.offset + value)
    if offset == 0:
        return base
    text = f"{base.at(ADD)}+{offset}" if offset > 0 else f"{base.at(ADD)}-{-offset}"
    made = _like(Expr(text, ADD, base.lo + offset, base.hi + offset), base)
    made.base, made.offset = base, offset
    made.align = min(base.align, (offset & -offset).bit_length() - 1)
    return made


def canonical(e: Expr, bits: int, body: Symbolic) -> Expr:
    """The unsigned value."""
    lo, hi = e.lo, e.hi
    if lo >= 0 and hi >> bits == 0:
        return e
    size = 1 << bits
    mask = size - 1
    if e.value is not None:
        return constant(e.value & mask)
    period = lo >> bits
    if period == hi >> bits:
        return add_constant(e, -period * size)
    base, offset = e.base, e.offset
    simple = base is not None and base.is_name and base.lo >= 0 and base.hi <= mask
    if lo >= 0 and hi < 2 * size:
        # Something small was added: the sum, a pointer or a counter, is most likely of one digit, and to
        # compare numbers of one digit costs a third.
        likely = f"<={_ONE_DIGIT - 1} or " if hi - size < 2 * _ONE_DIGIT < size else ""
        if simple:
            name = base.text  # type: ignore[union-attr] # simple says that there is one
            first = f"{name}{likely}" if likely else ""
            text = f"{e.text} if {first}{name}<{size - offset} else {name}-{size - offset}"
        else:
            w = body.fresh()
            rest = f"{likely}{w}" if likely else ""
            text = f"{w} if ({w}:={e.text}){rest}<={mask} else {w}-{size}"
    elif lo >= -size and hi <= mask:
        if simple:
            name = base.text  # type: ignore[union-attr] # simple says that there is one
            text = f"{e.text} if {name}>={-offset} else {name}+{size + offset}"
        else:
            w = body.fresh()
            text = f"{w} if ({w}:={e.text})>=0 else {w}+{size}"
    else:
        made = Expr(f"{e.at(AND)}&{mask}", AND, 0, mask)
        made.align = e.align
        return _like(made, e)
    made = Expr(text, TERNARY, 0, mask)
    made.align = e.align
    return _like(made, e)


def _narrow(e: Expr, bits: int, body: Symbolic) -> Expr:
    """The same, or in range when it has become too wide."""
    widest = _WIDEST[bits]
    return e if -widest < e.lo and e.hi < widest else canonical(e, bits, body)


# -- arithmetic ----------------------------------------------------------------------------------------------


def add(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    size = 1 << bits
    if a.value is not None:
        a, b = b, a
    if b.value is not None:
        if a.value is not None:
            return constant(a.value + b.value & size - 1)
        value = b.value & size - 1
        negative = value - size
        plain = add_constant(a, value)
        if (value < size >> 1 and plain.hi < size) or is_canonical(plain, bits):
            return plain
        if value >= size >> 1 or (a.lo + negative >= 0 and a.hi + negative < size):
            return add_constant(a, negative)
        return _narrow(plain, bits, body)
    return _sum("+", bits, body, a, b)


def _sum(operator: str, bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    offset = 0
    if a.base is not None:
        a, offset = a.base, a.offset
    if b.base is not None:
        b, offset = b.base, offset + b.offset if operator == "+" else offset - b.offset
    lo, hi = (a.lo + b.lo, a.hi + b.hi) if operator == "+" else (a.lo - b.hi, a.hi - b.lo)
    made = binary(operator, ADD, a, b, lo, hi)
    made.align = min(a.align, b.align)
    if operator == "+":
        made.parts = (a, b)
    if offset:
        made = add_constant(made, offset)
    return _narrow(made, bits, body)


def sub(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if a.value is not None and b.rest is not None:  # the rest of a rest
        return add_constant(b.rest[1], a.value - b.rest[0])
    if b.value is not None:
        return add(bits, body, a, constant(-b.value & (1 << bits) - 1))
    return _sum("-", bits, body, a, b)


def mul(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if a.value is not None and b.value is not None:
        return constant(a.value * b.value & (1 << bits) - 1)
    for x, y in ((a, b), (b, a)):
        if y.value is not None and y.value > 0 and y.value & (y.value - 1) == 0:
            return shl(bits, body, x, constant(y.value.bit_length() - 1))
    limit = 2 << bits
    if bits == 32 and any(e.value is not None and abs(e.value) < _ONE_DIGIT for e in (a, b)):
        # Hashes multiply again and again: a mask after every second time costs less than one each time.
        limit = _WIDEST[bits]
    a, b = (e if -limit < e.lo and e.hi < limit else canonical(e, bits, body) for e in (a, b))
    corners = (a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi)
    made = binary("*", MUL, a, b, min(corners), max(corners))
    made.align = min(a.align + b.align, 64)
    return made


def shl(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if b.value is None:
        a = canonical(a, bits, body)
        count = b if b.lo >= 0 and b.hi < bits else _low(b, bits)
        if a.value == (1 << bits) - 1:  # a mask of high bits: wide, but a small number in Python
            return binary("<<", SHIFT, constant(-1), count, -1 << min(count.hi, bits - 1), -1 << count.lo)
        made = binary("<<", SHIFT, a, count, 0, a.hi << min(count.hi, bits - 1))
        return canonical(made, bits, body)
    count_ = b.value % bits
    if a.value is not None:
        return constant(a.value << count_ & (1 << bits) - 1)
    if count_ == 0:
        return a
    if not -(4 << bits) < a.lo <= a.hi < 4 << bits:
        a = canonical(a, bits, body)
    factor = 1 << count_
    # A sum stays one, so that its constant can join that of the address.
    inner, offset = (a, 0) if a.base is None else (a.base, a.offset)
    made = binary("*", MUL, inner, constant(factor), inner.lo * factor, inner.hi * factor)
    made.align = min(inner.align + count_, 64)
    made.scaled = (inner, count_)
    if offset:
        made = add_constant(made, offset * factor)
    return made


def shr_u(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    a = canonical(a, bits, body)
    if b.value is None:
        count = b if b.lo >= 0 and b.hi < bits else _low(b, bits)
        return binary(">>", SHIFT, a, count, 0, a.hi >> count.lo)
    count_ = b.value % bits
    if a.value is not None:
        return constant(a.value >> count_)
    if count_ == 0:
        return a
    if a.hi < _ONE_DIGIT:
        return binary("//", MUL, a, constant(1 << count_), a.lo >> count_, a.hi >> count_)
    return binary(">>", SHIFT, a, constant(count_), a.lo >> count_, a.hi >> count_)


def shr_s(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if not is_signed(a, bits):
        a = canonical(a, bits, body)
        if a.value is not None:
            a = constant(signed_value(a.value, bits))
        else:
            a = _as_signed(a, bits, body)
    if b.value is None:
        count = b if b.lo >= 0 and b.hi < bits else _low(b, bits)
        return binary(">>", SHIFT, a, count, min(a.lo, 0), max(a.hi, 0))
    count_ = b.value % bits
    if a.value is not None:
        return constant((a.value >> count_) & (1 << bits) - 1)
    return binary(">>", SHIFT, a, constant(count_), a.lo >> count_, a.hi >> count_) if count_ else a


def _low(e: Expr, bits: int) -> Expr:
    """A shift count modulo the width."""
    if e.value is not None:
        return constant(e.value % bits)
    return (
        binary("%", MUL, e, constant(bits), 0, bits - 1)
        if e.lo >= 0 and e.hi < _ONE_DIGIT
        else masked(e, bits - 1)
    )


def signed_value(value: int, bits: int) -> int:
    """A constant as a signed number."""
    return value - (1 << bits) if value >> (bits - 1) else value


def _as_signed(e: Expr, bits: int, body: Symbolic) -> Expr:
    """The signed value of a canonical one."""
    size, half = 1 << bits, 1 << (bits - 1)
    if e.hi < half:
        return e
    if e.lo >= half:
        return add_constant(e, -size)
    if e.is_name:
        text = f"{e.text} if {e.text}<{half} else {e.text}-{size}"
    else:
        w = body.fresh()
        text = f"{w} if ({w}:={e.text})<{half} else {w}-{size}"
    made = _like(Expr(text, TERNARY, -half, half - 1), e)
    made.align = e.align
    return made


def signed(e: Expr, bits: int, body: Symbolic) -> Expr:
    """The signed value."""
    if is_signed(e, bits):
        return e
    if e.value is not None:
        return constant(signed_value(e.value & (1 << bits) - 1, bits))
    return _as_signed(canonical(e, bits, body), bits, body)


def _rotate(bits: int, body: Symbolic, a: Expr, count: int) -> Expr:
    """Rotate left by a constant: the value twice side by side, and a window of it."""
    mask = (1 << bits) - 1
    a = canonical(a, bits, body)
    if a.value is not None:
        return constant((a.value << count | a.value >> (bits - count)) & mask)
    if count == 0:
        return a
    double = body.shared(f"{a.at(MUL)}*{(1 << bits) + 1}", a)
    return binary(">>", SHIFT, double, constant(bits - count), 0, ((1 << 2 * bits) - 1) >> (bits - count))


def rotl(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if b.value is not None:
        return _rotate(bits, body, a, b.value % bits)
    return call(f"i{bits}_rotl", canonical(a, bits, body), canonical(b, bits, body), hi=(1 << bits) - 1)


def rotr(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if b.value is not None:
        return _rotate(bits, body, a, -b.value % bits)
    return call(f"i{bits}_rotr", canonical(a, bits, body), canonical(b, bits, body), hi=(1 << bits) - 1)


# -- bits ----------------------------------------------------------------------------------------------------


def masked(e: Expr, mask: int) -> Expr:
    """The bits of a constant mask."""
    made = binary("&", AND, e, constant(mask), 0, mask)
    made.align = e.align if e.align < 64 else 0
    return made


def _most_bits(e: Expr, bits: int, mask: int) -> Expr:
    """Some bits of a canonical value, the highest among them: as a negative number a mask that clears few
    bits has one of the digits that Python's integers are made of, as a positive one it has more."""
    negative = mask - (1 << bits)
    made = masked(e, mask)
    if mask >> (bits - 1) and -negative < _ONE_DIGIT:
        made.text = f"{e.at(AND)}&{negative}"
    return made


def and_(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if a.value is not None:
        a, b = b, a
    if b.value is not None:
        mask = b.value & (1 << bits) - 1
        if a.value is not None:
            return constant(a.value & mask)
        if mask == 0 and not a.effects & TRAPS:
            return constant(0)
        low = (mask & -mask).bit_length() - 1 if mask else 0
        if a.lo >= 0 and a.hi <= mask and mask & (mask + 1) == 0:
            return a
        if a.is_condition:
            return a if mask & 1 else constant(0)
        made = (
            masked(a, mask) if mask < _ONE_DIGIT or not is_canonical(a, bits) else _most_bits(a, bits, mask)
        )
        if mask == (1 << bits) - (1 << low):
            made.high = (a, low)
        made.align = max(low, min(a.align, 63))
        if a.lo >= 0 and a.hi <= mask | (1 << low) - 1 and (mask >> low) & ((mask >> low) + 1) == 0:
            made.lo, made.hi = a.lo & mask, a.hi & mask  # rounding down keeps the order
        elif a.lo >= 0:
            made.hi = min(mask, a.hi)
        return made
    if a.complement is not None and b.complement is None:
        a, b = b, a
    if b.complement is not None and is_canonical(a, bits):
        rest = b.complement
        made = _like(Expr(f"{a.at(AND)}&~{rest.at(UNARY)}", AND, 0, a.hi), a, rest)
        made.align = a.align
        return made
    made = binary("&", AND, a, b, 0, 0)
    made.align = max(a.align, b.align)
    if a.is_condition and b.is_condition:
        made.hi, made.negation = 1, f"not {made.text}"
        return made
    if a.lo >= 0 or b.lo >= 0:
        made.hi = min(e.hi for e in (a, b) if e.lo >= 0)
        return made
    return _bitwise(made, a, b)


def _bitwise(made: Expr, a: Expr, b: Expr) -> Expr:
    """Bounds of an operation bit by bit: what both operands' bits can make."""
    width = max(_width(a), _width(b))
    made.hi = (1 << width) - 1
    made.lo = 0 if a.lo >= 0 and b.lo >= 0 else -(1 << width)
    return made


def _width(e: Expr) -> int:
    return max(e.hi.bit_length(), (~e.lo).bit_length() if e.lo < 0 else 0)


def _or_xor(operator: str, prec: int, bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if a.value is not None and b.value is not None:
        value = a.value | b.value if operator == "|" else a.value ^ b.value
        return constant(value & (1 << bits) - 1)
    if b.value == 0:
        return a
    if a.value == 0:
        return b
    made = binary(operator, prec, a, b, 0, 0)
    made.align = min(a.align, b.align)
    if a.is_condition and b.is_condition:
        made.hi, made.negation = 1, f"not {made.text}"
        return made
    return _bitwise(made, a, b)


def or_(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    return _or_xor("|", OR, bits, body, a, b)


def xor(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    made = _or_xor("^", XOR, bits, body, a, b)
    for one, other in ((a, b), (b, a)):
        if (
            one.value is not None
            and one.value & (1 << bits) - 1 == (1 << bits) - 1
            and not other.is_condition
        ):
            made.complement = other
    return made


def clz(bits: int, body: Symbolic, a: Expr) -> Expr:
    a = canonical(a, bits, body)
    if a.value is not None:
        return constant(bits - a.value.bit_length())
    length = _like(Expr(f"{a.at(ATOM)}.bit_length()", ATOM, a.lo.bit_length(), a.hi.bit_length()), a)
    made = _like(Expr(f"{bits}-{length.text}", ADD, bits - length.hi, bits - length.lo), a)
    made.rest = (bits, length)
    return made


def ctz(bits: int, body: Symbolic, a: Expr) -> Expr:
    a = canonical(a, bits, body)
    if a.is_name and a.value is None:
        text, none = f"({a.text}&-{a.text}).bit_length()-1", f" if {a.text} else {bits}"
        made = Expr(text, ADD, 0, bits - 1) if a.lo > 0 else Expr(text + none, TERNARY, 0, bits)
        return _like(made, a)
    return call(f"i{bits}_ctz", canonical(a, bits, body), hi=bits)


def popcnt(bits: int, body: Symbolic, a: Expr) -> Expr:
    a = canonical(a, bits, body)
    if a.value is not None:
        return constant(a.value.bit_count())
    return _like(Expr(f"{a.at(ATOM)}.bit_count()", ATOM, 0, bits), a)


# -- division ------------------------------------------------------------------------------------------------


def _divide(operator: str, bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    a, b = canonical(a, bits, body), canonical(b, bits, body)
    if a.value is not None and b.value:
        return constant(a.value // b.value if operator == "//" else a.value % b.value)
    hi = a.hi // max(b.lo, 1) if operator == "//" else min(a.hi, max(b.hi - 1, 0))
    if operator == "//" and b.value and b.value & (b.value - 1) == 0:
        return shr_u(bits, body, a, constant(b.value.bit_length() - 1))
    made = binary(operator, MUL, a, b, 0, hi)
    if b.lo == 0:
        made.effects |= TRAPS
        made.text = body.mark(made.text)
    return made


def div_u(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    return _divide("//", bits, body, a, b)


def rem_u(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    return _divide("%", bits, body, a, b)


def _positive(e: Expr, bits: int) -> bool:
    return e.lo >= 0 and e.hi >> (bits - 1) == 0


def div_s(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if _positive(a, bits) and _positive(b, bits):
        return _divide("//", bits, body, a, b)
    return body.trapping_call(
        f"i{bits}_div_s", canonical(a, bits, body), canonical(b, bits, body), hi=(1 << bits) - 1
    )


def rem_s(bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if _positive(a, bits) and _positive(b, bits):
        return _divide("%", bits, body, a, b)
    return body.trapping_call(
        f"i{bits}_rem_s", canonical(a, bits, body), canonical(b, bits, body), hi=(1 << bits) - 1
    )


# -- conversions ---------------------------------------------------------------------------------------------


def wrap(body: Symbolic, a: Expr) -> Expr:
    """i32.wrap_i64: what is congruent modulo 2^64 is so modulo 2^32."""
    if a.value is not None:
        return constant(a.value & 0xFFFF_FFFF)
    return a if a.lo > -(1 << 62) and a.hi < 1 << 62 else _mask(a, 32)


def _mask(a: Expr, bits: int) -> Expr:
    return masked(a, (1 << bits) - 1)


def extend_u(body: Symbolic, a: Expr) -> Expr:
    return canonical(a, 32, body)


def extend_s(body: Symbolic, a: Expr) -> Expr:
    return signed(a, 32, body)


def _extend_part(bits: int, width: int, body: Symbolic, a: Expr) -> Expr:
    """extend8_s and its like: the low bits, signed."""
    half, size = 1 << (width - 1), 1 << width
    if a.value is not None:
        return constant(signed_value(a.value & size - 1, width) & (1 << bits) - 1)
    if -half <= a.lo and a.hi < half:
        return a
    low = a if a.lo >= 0 and a.hi < size else _mask(a, width)
    if width == 32:
        return _as_signed(low, 32, body)
    made = Expr(f"({low.at(XOR)}^{half})-{half}", ADD, -half, half - 1)
    return _like(made, low)


Template = Callable[..., Expr]

TEMPLATES: dict[str, Template] = {
    "i32.wrap_i64": wrap,
    "i64.extend_i32_u": extend_u,
    "i64.extend_i32_s": extend_s,
}

_PER_WIDTH: dict[str, Template] = {
    "add": add, "sub": sub, "mul": mul, "div_s": div_s, "div_u": div_u, "rem_s": rem_s, "rem_u": rem_u,
    "and": and_, "or": or_, "xor": xor, "shl": shl, "shr_s": shr_s, "shr_u": shr_u, "rotl": rotl,
    "rotr": rotr, "clz": clz, "ctz": ctz, "popcnt": popcnt,
}  # fmt: skip

for _bits in (32, 64):
    for _name, _template in _PER_WIDTH.items():
        TEMPLATES[f"i{_bits}.{_name}"] = partial(_template, _bits)
    for _part in (8, 16, 32):
        if _part < _bits:
            TEMPLATES[f"i{_bits}.extend{_part}_s"] = partial(_extend_part, _bits, _part)
