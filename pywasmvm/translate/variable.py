"""Locals, globals, constants, drop and select."""

from __future__ import annotations

import math
from typing import Any

from pywasmvm.translate.body import Body
from pywasmvm.translate.comparisons import inverted
from pywasmvm.translate.expr import (
    ATOM,
    COMPARE,
    READS_GLOBALS,
    TERNARY,
    TRAPS,
    Expr,
    condition,
    constant,
    merged,
)
from pywasmvm.translate.floats import CARRIED, clean
from pywasmvm.translate.integers import canonical
from pywasmvm.translate.rules import rule
from pywasmvm.translate.symbolic import BITS, MASKS, number


@rule("local.get")
def _get(body: Body, index: int) -> None:
    body.stack.append(body.local(index))


@rule("local.set")
def _set(body: Body, index: int) -> None:
    body.set_local(index, body.pop())


@rule("local.tee")
def _tee(body: Body, index: int) -> None:
    body.set_local(index, body.pop())
    body.stack.append(body.local(index))


@rule("global.get")
def _global_get(body: Body, index: int) -> None:
    type_ = body.context.globals[index]
    made = Expr(body.use(f"g{index}"), ATOM)
    bits = BITS.get(type_.value, 0)
    if bits:
        made.hi = MASKS[bits]
    made.nan = CARRIED
    if type_.mutable:
        made.effects = READS_GLOBALS
    body.push(made, bits)


@rule("global.set")
def _global_set(body: Body, index: int) -> None:
    value = body.pop()
    body.spill(READS_GLOBALS | TRAPS)
    body.assigned_globals.add(index)
    body.statement(f"{body.use(f'g{index}')}={body.escaping(value)}")


@rule("i32.const")
def _i32(body: Body, value: int) -> None:
    body.push(constant(value), 32)


@rule("i64.const")
def _i64(body: Body, value: int) -> None:
    body.push(constant(value), 64)


def _float(value: float) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "(-inf)"
    text = repr(float(value))
    return f"({text})" if text.startswith("-") else text


@rule("f32.const")
def _f32(body: Body, value: float) -> None:
    if value == value:
        body.push(Expr(_float(value)))
    elif type(value) is float:
        body.push(Expr("nan"))
    else:
        body.push(Expr(f"f32_from_bits({value.bits})", ATOM, depth=1))  # type: ignore[attr-defined] # an F32NaN


@rule("f64.const")
def _f64(body: Body, value: float) -> None:
    if value == value:
        body.push(Expr(_float(value)))
        return
    from pywasmvm.numerics.bits import F64_CANONICAL_NAN, f64_to_bits

    bits = f64_to_bits(value)
    made = Expr("nan") if bits == F64_CANONICAL_NAN else Expr(f"f64_from_bits({bits})", ATOM, depth=1)
    made.nan = CARRIED if bits != F64_CANONICAL_NAN else 0
    body.push(made)


@rule("v128.const")
def _v128(body: Body, value: int) -> None:
    body.push(Expr(str(value)))


@rule("nop")
def _nop(body: Body, immediate: None) -> None:
    pass


@rule("drop")
def _drop(body: Body, immediate: None) -> None:
    e = body.pop()
    if e.effects & TRAPS:  # it must still happen
        body.spill(TRAPS)
        body.statement(e.text)


def _junction(chosen: Expr, a: Expr, b: Expr) -> Expr | None:
    """A choice between a condition and a constant as `and` or `or`."""
    if chosen.value is not None or (a.effects | b.effects | chosen.effects) & TRAPS:
        return None
    if a.is_condition and b.value == 0:
        word, other, negated = "and", a, "or"
    elif b.is_condition and a.value == 1:
        word, other, negated = "or", b, "and"
    else:
        return None
    tests = [e.at(COMPARE) for e in (chosen, other)]
    opposites = [inverted(e).at(COMPARE) for e in (chosen, other)]
    made = condition(
        f"{tests[0]} {word} {tests[1]}", TERNARY + 1, f"{opposites[0]} {negated} {opposites[1]}", a, b
    )
    made.locals, made.effects, made.depth = merged(chosen, other)
    made.loose, made.loose_negation = (
        chosen.loose or other.loose,
        chosen.loose_negation or other.loose_negation,
    )
    if word == "and":
        made.yes = (*chosen.yes, *other.yes)
    else:
        made.no = (*chosen.no, *other.no)
    return made


@rule("select")
def _select(body: Body, types: Any) -> None:
    chosen = body.condition(body.pop())
    b, a = body.pop(), body.pop()
    bits = a.bits or b.bits
    both = _junction(chosen, a, b)
    if both is not None:
        body.push(both, bits)
        return
    if bits:
        a, b = number(canonical(a, bits, body)), number(canonical(b, bits, body))
    else:
        a, b = clean(a, body), clean(b, body)
    if chosen.value is not None:
        kept, dropped = (a, b) if chosen.value else (b, a)
        if not dropped.effects & TRAPS:
            body.push(kept, bits)
            return
    # All three operands are computed, whichever is taken; what cannot trap may be left out.
    if chosen.effects & TRAPS or (a.effects | b.effects) & TRAPS:
        if a.effects & TRAPS:
            a = body.temp(a)
        if b.effects & TRAPS:
            b = body.temp(b)
    made = Expr(
        f"{a.at(TERNARY + 1)} if {chosen.at(TERNARY + 1)} else {b.text}",
        TERNARY,
        min(a.lo, b.lo),
        max(a.hi, b.hi),
        *merged(a, b, chosen),
    )
    made.align = min(a.align, b.align)
    made.nan = CARRIED
    body.push(made, bits)
