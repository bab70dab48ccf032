"""Comparisons of integers as Python conditions, and what each says of the locals it compares (spec:
Execution, Numerics, Integer Operations).

A signed comparison of unsigned values is written as one chain of comparisons wherever ranges, constants or
one operand that is known to be positive allow it; a mask only where nothing is known.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pywasmvm.translate.expr import (
    ATOM,
    COMPARE,
    NOT,
    TERNARY,
    TRAPS,
    Expr,
    condition,
    constant,
)
from pywasmvm.translate.integers import canonical, is_canonical, is_signed, masked, signed, signed_value

if TYPE_CHECKING:
    from pywasmvm.translate.symbolic import Symbolic

Facts = tuple[tuple[int, int, int], ...]


_COMPARE = {
    "<": operators.lt, ">": operators.gt, "<=": operators.le,
    ">=": operators.ge, "==": operators.eq, "!=": operators.ne,
}  # fmt: skip
_SWAPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
_OPPOSITE = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="}


def _facts(operator: str, a: Expr, b: Expr) -> Facts:
    """What `a operator b` says of the locals that a and b are; bounds that cannot be met mean unreachable."""
    found: list[tuple[int, int, int]] = []
    if a.local is not None:
        if operator == "<":
            found.append((a.local, a.lo, min(a.hi, b.hi - 1)))
        elif operator == "<=":
            found.append((a.local, a.lo, min(a.hi, b.hi)))
        elif operator == ">":
            found.append((a.local, max(a.lo, b.lo + 1), a.hi))
        elif operator == ">=":
            found.append((a.local, max(a.lo, b.lo), a.hi))
        elif operator == "==":
            found.append((a.local, max(a.lo, b.lo), min(a.hi, b.hi)))
        elif b.lo == b.hi:
            found.append((a.local, a.lo + (a.lo == b.lo), a.hi - (a.hi == b.lo)))
    if b.local is not None and a.local != b.local:
        swapped = Expr("", ATOM, b.lo, b.hi)
        swapped.local = b.local
        other = Expr("", ATOM, a.lo, a.hi)
        found += _facts(_SWAPPED[operator], swapped, other)
    return tuple(found)


def _compared(operator: str, a: Expr, b: Expr) -> Expr:
    """A comparison of what the texts give."""
    if a.value is not None and b.value is not None:
        return constant(int(_COMPARE[operator](a.value, b.value)))
    left, right = a.at(COMPARE + 1), b.at(COMPARE + 1)
    opposite = _OPPOSITE[operator]
    made = condition(f"{left}{operator}{right}", COMPARE, f"{left}{opposite}{right}", a, b)
    made.yes, made.no = _facts(operator, a, b), _facts(opposite, a, b)
    made.compared = (operator, a, b)
    return made


def _equality(operator: str, bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    if not (is_canonical(a, bits) and is_canonical(b, bits)):
        if is_signed(a, bits) and b.value is not None:
            b = constant(signed_value(b.value & (1 << bits) - 1, bits))
        elif is_signed(b, bits) and a.value is not None:
            a = constant(signed_value(a.value & (1 << bits) - 1, bits))
        if not (is_signed(a, bits) and is_signed(b, bits)):
            a, b = canonical(a, bits, body), canonical(b, bits, body)
    if b.value == 0:
        return eqz(bits, body, a) if operator == "==" else nonzero(a, bits, body)
    return _carry(operator, bits, a, b) or _compared(operator, a, b)


def _carry(operator: str, bits: int, a: Expr, b: Expr) -> Expr | None:
    """Whether adding a small constant changes the high bits (counters beside flags are checked like that):
    the low ones tell."""
    if a.high is None or b.high is None or a.high[1] != b.high[1]:
        return None
    (x, count), (y, _) = a.high, b.high
    if y.base is None and x.base is not None:
        x, y = y, x
    step = y.offset
    if y.base is None or y.base.text != x.text or not x.is_name or not is_canonical(x, bits):
        return None
    if not 0 < abs(step) < 1 << count:
        return None
    carries = constant((1 << count) - step if step > 0 else -step)
    below = (step > 0) == (operator == "==")
    made = _compared("<" if below else ">=", masked(x, (1 << count) - 1), carries)
    if x.local is not None:
        fits = (x.local, max(x.lo, -step), min(x.hi, (1 << bits) - 1 - step))
        made.yes, made.no = ((fits,), ()) if operator == "==" else ((), (fits,))
    return made


def nonzero(e: Expr, bits: int, body: Symbolic) -> Expr:
    """The condition that a value is not zero."""
    if e.is_condition:
        return e
    if e.value is not None:
        return constant(int(e.value & (1 << bits) - 1 != 0))
    size = 1 << bits
    if not (e.lo > -size and e.hi < size):
        e = canonical(e, bits, body)
    made = condition(e.text, e.prec, f"not {e.at(COMPARE)}", e)
    made.loose = True
    zero = Expr("", ATOM, 0, 0)
    made.yes, made.no = _facts("!=", e, zero), _facts("==", e, zero)
    return made


def eqz(bits: int, body: Symbolic, a: Expr) -> Expr:
    return inverted(nonzero(a, bits, body))


def inverted(e: Expr) -> Expr:
    """The opposite condition."""
    if e.value is not None:
        return constant(0 if e.value else 1)
    if e.negation is None:
        raise TypeError(f"{e!r} is no condition")
    text = e.negation
    # Negations are comparisons, or start with `not`, or are conditional expressions.
    prec = COMPARE
    if " if " in text:
        prec = TERNARY
    elif " and " in text or " or " in text:
        prec = TERNARY + 1
    elif text.startswith("not "):
        prec = NOT
    made = Expr(text, prec, 0, 1, e.locals, e.effects, e.depth)
    made.negation = e.text if e.prec >= NOT else f"({e.text})"
    made.loose, made.loose_negation = e.loose_negation, e.loose
    if e.compared is not None:
        made.compared = (_OPPOSITE[e.compared[0]], e.compared[1], e.compared[2])
    made.yes, made.no = e.no, e.yes
    return made


def _unsigned(operator: str, bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    return _compared(operator, canonical(a, bits, body), canonical(b, bits, body))


def _ordered(operator: str, bits: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    """A signed comparison."""
    half, size = 1 << (bits - 1), 1 << bits
    if b.value is not None:
        b = constant(signed_value(b.value & size - 1, bits))
    if a.value is not None:
        a = constant(signed_value(a.value & size - 1, bits))
    if is_signed(a, bits) and is_signed(b, bits):
        return _compared(operator, a, b)
    if a.value is not None:
        return _to_constant(_SWAPPED[operator], bits, body, b, a.value)
    if b.value is not None:
        return _to_constant(operator, bits, body, a, b.value)
    a, b = canonical(a, bits, body), canonical(b, bits, body)
    if (a.hi < half and b.lo >= half) or (b.hi < half and a.lo >= half):
        # Of different signs, for certain; a trap in them must still happen.
        a, b = signed(a, bits, body), signed(b, bits, body)
        return _compared(operator, a, b)
    if a.hi < half or b.hi < half:
        return _one_positive(operator, bits, a, b)
    a, b = body.names(a, b)
    x, y, opposite = a.text, b.text, _OPPOSITE[operator]
    made = condition(
        f"{x}{operator}{y} if {x}^{y}<{half} else {x}{_flip(operator)}{y}",
        TERNARY,
        f"{x}{opposite}{y} if {x}^{y}<{half} else {x}{_flip(opposite)}{y}",
        a,
        b,
    )
    return made


def _flip(operator: str) -> str:
    """For operands of different signs, which are never equal, the unsigned order is the other one."""
    return ">" if operator in ("<", "<=") else "<"


def _one_positive(operator: str, bits: int, a: Expr, b: Expr) -> Expr:
    """One of them is known to be positive: one chain of comparisons tells."""
    half = 1 << (bits - 1)
    left, right = a.at(COMPARE + 1), b.at(COMPARE + 1)
    if a.hi < half:  # b may be negative
        if operator in ("<", "<="):
            made = condition(
                f"{left}{operator}{right}<{half}", COMPARE, f"not {left}{operator}{right}<{half}", a, b
            )
        else:
            text = f"{left}{_OPPOSITE[operator]}{right}<{half}"
            made = condition(f"not {text}", NOT, text, a, b)
        rising = operator in ("<", "<=")
        low = max(b.lo, a.lo + (operator in ("<", ">=")))
        if b.local is not None:
            known: Facts = ((b.local, low, half - 1),)
            made.yes, made.no = (known, ()) if rising else ((), known)
        return made
    if operator in (">", ">="):
        made = condition(
            f"{half}>{left}{operator}{right}", COMPARE, f"not {half}>{left}{operator}{right}", a, b
        )
    else:
        text = f"{half}>{left}{_OPPOSITE[operator]}{right}"
        made = condition(f"not {text}", NOT, text, a, b)
    falling = operator in (">", ">=")
    low = max(a.lo, b.lo + (operator in (">", "<=")))
    if a.local is not None:
        known = ((a.local, low, half - 1),)
        made.yes, made.no = (known, ()) if falling else ((), known)
    return made


def _to_constant(operator: str, bits: int, body: Symbolic, a: Expr, value: int) -> Expr:
    """A signed comparison with a constant, as one range of unsigned values."""
    half, size = 1 << (bits - 1), 1 << bits
    a = canonical(a, bits, body)
    if operator in ("<=", ">"):  # a <= v is a < v + 1
        if value == half - 1:
            if not a.effects & TRAPS:
                return constant(int(operator == "<="))
            return _compared(operator, signed(a, bits, body), constant(value))
        value += 1
        operator = "<" if operator == "<=" else ">="
    at_least = operator == ">="
    local = a.local
    if value >= 0:
        # a >= v: v <= a < half
        lo, hi = value, half - 1
        inside = f"{a.at(COMPARE + 1)}<{half}" if value <= a.lo else f"{value}<={a.at(COMPARE + 1)}<{half}"
        outside = f"{a.at(COMPARE + 1)}>={half}" if value <= a.lo else f"not {inside}"
        true_inside = at_least
    else:
        # a < v: half <= a < v + size
        lo, hi = half, value + size - 1
        if hi < lo:
            return (
                constant(int(at_least))
                if not a.effects & TRAPS
                else _compared(operator, signed(a, bits, body), constant(value))
            )
        inside = f"{half}<={a.at(COMPARE + 1)}<={hi}"
        outside = f"not {inside}"
        true_inside = not at_least
    known: Facts = () if local is None else ((local, max(a.lo, lo), min(a.hi, hi)),)
    rest: Facts = ()
    if local is not None and value <= a.lo and value >= 0:
        rest = ((local, max(a.lo, half), a.hi),)
    if true_inside:
        made = condition(inside, COMPARE, outside, a)
        made.yes, made.no = known, rest
    else:
        made = condition(outside, NOT if outside.startswith("not") else COMPARE, inside, a)
        made.yes, made.no = rest, known
    return made


Template = Callable[..., Expr]

TEMPLATES: dict[str, Template] = {}

for _bits in (32, 64):
    TEMPLATES[f"i{_bits}.eqz"] = partial(eqz, _bits)
    TEMPLATES[f"i{_bits}.eq"] = partial(_equality, "==", _bits)
    TEMPLATES[f"i{_bits}.ne"] = partial(_equality, "!=", _bits)
    for _name, _operator in (("lt", "<"), ("gt", ">"), ("le", "<="), ("ge", ">=")):
        TEMPLATES[f"i{_bits}.{_name}_u"] = partial(_unsigned, _operator, _bits)
        TEMPLATES[f"i{_bits}.{_name}_s"] = partial(_ordered, _operator, _bits)
