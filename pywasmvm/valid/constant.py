"""Constant expressions: which instructions they may use, and their type (spec: Validation, Constant
Expressions).
"""

from __future__ import annotations

from pywasmvm.errors import InvalidError
from pywasmvm.isa import ROWS, Imm
from pywasmvm.syntax import Code
from pywasmvm.types import ValType
from pywasmvm.valid.code import CodeValidator
from pywasmvm.valid.context import Context

_EXTENDED = frozenset(f"{type_}.{name}" for type_ in ("i32", "i64") for name in ("add", "sub", "mul"))

_VALUES = frozenset({Imm.I32, Imm.I64, Imm.F32, Imm.F64, Imm.V128})

#: The others; `global.get` has a condition of its own.
_OTHERS = frozenset(
    {
        "ref.null",
        "ref.func",
        "ref.i31",
        "global.get",
        "struct.new",
        "struct.new_default",
        "array.new",
        "array.new_default",
        "array.new_fixed",
        "any.convert_extern",
        "extern.convert_any",
        "end",
    }
)

#: Instructions a constant expression is made of.
CONSTANT = frozenset(
    opcode
    for opcode in ROWS
    if opcode.name in _OTHERS | _EXTENDED or (opcode.immediates and opcode.immediates[0] in _VALUES)
)


def validate_constant(context: Context, code: Code, expected: ValType, globals_known: int) -> None:
    """Check that `code` is constant and leaves one value of the expected type.

    `globals_known` is how many globals are declared before this expression: only those may be read.
    """
    for opcode, immediate, offset in zip(code.ops, code.immediates, code.offsets, strict=True):
        if opcode not in CONSTANT:
            raise InvalidError("constant expression required", None, offset, opcode.name)
        if opcode.name == "global.get" and isinstance(immediate, int):
            if immediate >= globals_known:
                raise InvalidError(f"unknown global {immediate}", None, offset, opcode.name)
            if context.globals[immediate].mutable:
                raise InvalidError("constant expression required", None, offset, opcode.name)
    CodeValidator(context, (), ()).run(code, (expected,))
