"""How each instruction is translated: a template for those that only compute, a rule for all others.

The family files (`memory.py`, `calls.py`, ...) register their rules when they are imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pywasmvm.isa import Opcode
from pywasmvm.translate import comparisons, floats, integers
from pywasmvm.translate.expr import Expr
from pywasmvm.translate.graph import STRUCTURE
from pywasmvm.translate.symbolic import BITS
from pywasmvm.types import NumType, ValType, VecType

if TYPE_CHECKING:
    from pywasmvm.translate.body import Body

Template = Callable[..., Expr]

#: Template or None, number of operands, width of the result, helper's name, types of the operands, traps.
Shape = tuple[Template | None, int, int, str, tuple[ValType, ...], bool]

TEMPLATES: dict[str, Template] = {**integers.TEMPLATES, **comparisons.TEMPLATES, **floats.TEMPLATES}


def _may_trap(name: str) -> bool:
    operation = name.partition(".")[2]
    return operation.startswith(("div_s", "div_u", "rem_")) or (
        operation.startswith("trunc_f") and not name.startswith(("f32x4", "i32x4"))
    )


def _shapes() -> dict[Opcode, Shape]:
    from pywasmvm.isa import ROWS

    made: dict[Opcode, Shape] = {}
    for opcode in ROWS:
        signature = opcode.signature
        if not opcode.plain or signature is None or opcode.name in RULES or len(signature.results) != 1:
            continue
        params = tuple(p for p in signature.params if isinstance(p, NumType | VecType))
        if len(params) != len(signature.params):
            continue
        result = signature.results[0]
        bits = BITS.get(result, 0) if isinstance(result, ValType) else 0
        template = TEMPLATES.get(opcode.name)
        made[opcode] = (template, len(params), bits, opcode.function_name, params, _may_trap(opcode.name))
    return made


Rule = Callable[["Body", Any], None]

#: Rows that need more than their operands: the family files register theirs.
RULES: dict[str, Rule] = {}
PLAIN: dict[Opcode, Shape] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how the rows with these names are translated."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def has_rule(opcode: Opcode) -> bool:
    """Whether a row can be translated; the completeness test asks."""
    return opcode in PLAIN or opcode.name in RULES or opcode.name in STRUCTURE


def complete() -> None:
    """Called once all family files have registered their rules."""
    PLAIN.update(_shapes())
