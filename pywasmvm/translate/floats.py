"""Floating-point instructions as Python text (spec: Execution, Numerics, Floating-Point Operations).

f64 is Python's own float. The one difference is which NaN comes out of arithmetic: Wasm, as this project
decided it, gives the positive canonical one, hardware whatever it likes. So results of f64 arithmetic are
`COMPUTED`: any NaN among them stands for the canonical one and is replaced by it where its bits could be
seen. A NaN that came from outside (`CARRIED`) keeps its bits, so the two must not mix in one variable.

f32 values are exact: arithmetic is done in double and rounded through a scratch view, whose NaNs come out as
plain floats, which stand for the canonical NaN already (docs/adr/0003-value-representation.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pywasmvm.translate.expr import (
    ADD,
    COMPARE,
    MUL,
    TERNARY,
    TRAPS,
    UNARY,
    Expr,
    binary,
    call,
    condition,
    merged,
)
from pywasmvm.translate.integers import canonical, signed

if TYPE_CHECKING:
    from pywasmvm.translate.symbolic import Symbolic

#: What the NaNs of an f64 expression may be: none but the canonical one; any, standing for the canonical one;
#: any, meant as they are.
PURE, COMPUTED, CARRIED = range(3)


def clean(e: Expr, body: Symbolic) -> Expr:
    """An f64 whose NaNs are the ones Wasm says."""
    if e.nan != COMPUTED:
        return e
    if e.is_name:
        text = f"{e.text} if {e.text}=={e.text} else nan"
    else:
        w = body.fresh()
        text = f"{w} if ({w}:={e.text})=={w} else nan"
    return Expr(text, TERNARY, 0, 0, *merged(e))


def _computed(made: Expr) -> Expr:
    made.nan = COMPUTED
    return made


def _arithmetic(operator: str, prec: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    return _computed(binary(operator, prec, a, b, 0, 0))


def _quotient(body: Symbolic, a: Expr, b: Expr) -> Expr:
    """Python refuses to divide by zero."""
    try:
        if float(b.text) != 0:
            return binary("/", MUL, a, b, 0, 0)
    except ValueError:
        pass
    a, b = body.names(a, b)
    return Expr(
        f"{a.text}/{b.text} if {b.text} else f64_div({a.text},{b.text})", TERNARY, 0, 0, *merged(a, b)
    )


def _div(body: Symbolic, a: Expr, b: Expr) -> Expr:
    return _computed(_quotient(body, a, b))


def _either(name: str, operator: str, body: Symbolic, a: Expr, b: Expr) -> Expr:
    """min and max: the function sees to zeros and NaN."""
    a, b = body.names(a, b)
    x, y = a.text, b.text
    made = Expr(
        f"{x} if {x}{operator}{y} else {y} if {y}{operator}{x} else {name}({x},{y})",
        TERNARY,
        0,
        0,
        *merged(a, b),
    )
    return made


def _sqrt(body: Symbolic, a: Expr) -> Expr:
    (a,) = body.names(a)
    return Expr(f"sqrt({a.text}) if {a.text}>=0.0 else nan", TERNARY, 0, 0, *merged(a))


def _neg(body: Symbolic, a: Expr) -> Expr:
    a = clean(a, body)
    made = Expr(f"-{a.at(UNARY)}", UNARY, 0, 0, *merged(a))
    made.nan = CARRIED
    return made


def _moved(name: str, body: Symbolic, *operands: Expr) -> Expr:
    """Functions that move the sign bit, of NaNs too."""
    made = call(name, *[clean(e, body) for e in operands])
    made.nan = CARRIED
    return made


def _rounded(name: str, body: Symbolic, a: Expr) -> Expr:
    return call(name, a)


def _compare(operator: str, body: Symbolic, a: Expr, b: Expr) -> Expr:
    text = f"{a.at(COMPARE + 1)}{operator}{b.at(COMPARE + 1)}"
    opposite = {"==": "!=", "!=": "=="}.get(operator)
    negation = f"not {text}" if opposite is None else f"{a.at(COMPARE + 1)}{opposite}{b.at(COMPARE + 1)}"
    return condition(text, COMPARE, negation, a, b)


# -- f32 -----------------------------------------------------------------------------------------------------


def _f32_arithmetic(operator: str, prec: int, body: Symbolic, a: Expr, b: Expr) -> Expr:
    return body.rounded(binary(operator, prec, a, b, 0, 0))


def _f32_div(body: Symbolic, a: Expr, b: Expr) -> Expr:
    return body.rounded(_quotient(body, a, b))


def _f32_sqrt(body: Symbolic, a: Expr) -> Expr:
    return body.rounded(_sqrt(body, a))


def _helper(name: str, body: Symbolic, *operands: Expr) -> Expr:
    return call(name, *operands)


# -- conversions ---------------------------------------------------------------------------------------------


def _demote(body: Symbolic, a: Expr) -> Expr:
    return body.rounded(a)


def _promote(body: Symbolic, a: Expr) -> Expr:
    made = Expr(a.text, a.prec, 0, 0, *merged(a))
    made.depth = a.depth
    made.nan = COMPUTED
    return made


def _convert(bits: int, sign: bool, body: Symbolic, a: Expr) -> Expr:
    a = signed(a, bits, body) if sign else canonical(a, bits, body)
    return Expr(f"{a.at(MUL)}*1.0", MUL, 0, 0, *merged(a))


def _convert_f32(bits: int, sign: bool, body: Symbolic, a: Expr) -> Expr:
    if bits == 64:  # converting to a double first would round twice
        return call(f"f32_convert_i64_{'s' if sign else 'u'}", canonical(a, 64, body))
    return body.rounded(signed(a, bits, body) if sign else canonical(a, bits, body))


def _truncate(name: str, bits: int, low: str, high: str, lo: int, hi: int, body: Symbolic, a: Expr) -> Expr:
    """The usual case in line; what is out of range traps or saturates in the function."""
    w = body.fresh()
    text = f"int({w}) if {low}<({w}:={a.text})<{high} else {name}({w})"
    made = Expr(text, TERNARY, lo, hi, *merged(a))
    if "_sat_" not in name:
        made.text = body.mark(text)
        made.effects |= TRAPS
    return made


def _reinterpret(to: str, body: Symbolic, a: Expr) -> Expr:
    """Through the scratch views: the same bytes as another type."""
    if to == "i64":
        return body.scratch("as_f64", clean(a, body), "as_u64", hi=(1 << 64) - 1)
    if to == "f64":
        made = body.scratch("as_u64", canonical(a, 64, body), "as_f64", hi=0)
        made.nan = CARRIED
        return made
    if to == "i32":
        return call("f32_to_bits", a, hi=(1 << 32) - 1)
    return call("f32_from_bits", canonical(a, 32, body))


Template = Callable[..., Expr]

TEMPLATES: dict[str, Template] = {
    "f64.div": _div,
    "f64.neg": _neg,
    "f64.sqrt": _sqrt,
    "f64.min": partial(_either, "f64_min", "<"),
    "f64.max": partial(_either, "f64_max", ">"),
    "f32.div": _f32_div,
    "f32.sqrt": _f32_sqrt,
    "f32.min": partial(_either, "f32_min", "<"),
    "f32.max": partial(_either, "f32_max", ">"),
    "f32.demote_f64": _demote,
    "f64.promote_f32": _promote,
    "i64.reinterpret_f64": partial(_reinterpret, "i64"),
    "f64.reinterpret_i64": partial(_reinterpret, "f64"),
    "i32.reinterpret_f32": partial(_reinterpret, "i32"),
    "f32.reinterpret_i32": partial(_reinterpret, "f32"),
}

for _name, _operator, _prec in (("add", "+", ADD), ("sub", "-", ADD), ("mul", "*", MUL)):
    TEMPLATES[f"f64.{_name}"] = partial(_arithmetic, _operator, _prec)
    TEMPLATES[f"f32.{_name}"] = partial(_f32_arithmetic, _operator, _prec)
for _name, _operator in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("gt", ">"), ("le", "<="), ("ge", ">=")):
    TEMPLATES[f"f64.{_name}"] = TEMPLATES[f"f32.{_name}"] = partial(_compare, _operator)
for _name in ("abs", "copysign"):
    TEMPLATES[f"f64.{_name}"] = partial(_moved, f"f64_{_name}")
for _name in ("ceil", "floor", "trunc", "nearest"):
    TEMPLATES[f"f64.{_name}"] = partial(_rounded, f"f64_{_name}")
for _bits in (32, 64):
    for _sign in "su":
        TEMPLATES[f"f64.convert_i{_bits}_{_sign}"] = partial(_convert, _bits, _sign == "s")
        TEMPLATES[f"f32.convert_i{_bits}_{_sign}"] = partial(_convert_f32, _bits, _sign == "s")
        # Strictly between these every float truncates into range.
        _low = "-1.0" if _sign == "u" else {32: "-2147483649.0", 64: "-9223372036854775809.0"}[_bits]
        _top = 1 << (_bits - (_sign == "s"))
        _lo = 0 if _sign == "u" else -_top
        for _from in ("f32", "f64"):
            TEMPLATES[f"i{_bits}.trunc_{_from}_{_sign}"] = partial(
                _truncate, f"i{_bits}_trunc_{_from}_{_sign}", _bits, _low, f"{_top}.0", _lo, (1 << _bits) - 1
            )
            TEMPLATES[f"i{_bits}.trunc_sat_{_from}_{_sign}"] = partial(
                _truncate,
                f"i{_bits}_trunc_sat_{_from}_{_sign}",
                _bits,
                _low,
                f"{_top}.0",
                _lo,
                (1 << _bits) - 1,
            )
