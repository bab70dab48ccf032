"""Vector instructions that name lanes; the others are plain rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.isa import ROWS, Imm, Opcode
from pywasmvm.translate.body import Body
from pywasmvm.translate.expr import Expr, call
from pywasmvm.translate.rules import rule
from pywasmvm.translate.symbolic import BITS, MASKS
from pywasmvm.types import ValType


def _with_lanes(opcode: Opcode) -> Callable[[Body, Any], None]:
    signature = opcode.signature
    if signature is None:
        raise LookupError(f"{opcode.name} has no signature")
    params = [p for p in signature.params if isinstance(p, ValType)]
    (result,) = (r for r in signature.results if isinstance(r, ValType))
    bits = BITS.get(result, 0)

    def run(body: Body, lanes: int | bytes) -> None:
        operands = [body.as_argument(e, t) for e, t in zip(body.pop_many(len(params)), params, strict=True)]
        made = call(opcode.function_name, *operands, Expr(repr(lanes)), hi=MASKS.get(bits, 0))
        made.nan = 2
        body.push(made, bits)

    return run


for _opcode in ROWS:
    if _opcode.immediates in ((Imm.LANE,), (Imm.LANES,)):
        rule(_opcode.name)(_with_lanes(_opcode))
