"""Constant expressions: which instructions they may use, and their type (spec: Validation, Constant
Expressions).
"""

from __future__ import annotations

from pywasmvm.errors import InvalidError
from pywasmvm.syntax import Code
from pywasmvm.types import ValType
from pywasmvm.valid.code import CodeValidator
from pywasmvm.valid.context import Context

#: Instructions a constant expression is made of; `global.get` has a condition of its own.
CONSTANT = frozenset(
    {"i32.const", "i64.const", "f32.const", "f64.const", "ref.null", "ref.func", "global.get", "end"}
)


def validate_constant(context: Context, code: Code, expected: ValType, globals_known: int) -> None:
    """Check that `code` is constant and leaves one value of the expected type.

    `globals_known` is how many globals are declared before this expression: only those may be read.
    """
    for opcode, immediate, offset in zip(code.ops, code.immediates, code.offsets, strict=True):
        if opcode.name not in CONSTANT:
            raise InvalidError("constant expression required", None, offset, opcode.name)
        if opcode.name == "global.get" and isinstance(immediate, int):
            if immediate >= globals_known:
                raise InvalidError(f"unknown global {immediate}", None, offset, opcode.name)
            if context.globals[immediate].mutable:
                raise InvalidError("constant expression required", None, offset, opcode.name)
    CodeValidator(context, (), ()).run(code, (expected,))
