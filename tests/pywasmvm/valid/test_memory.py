"""`memory.copy` between memories of different address types, which the decoder does not read yet."""

from __future__ import annotations

from array import array

import pytest

from pywasmvm.errors import InvalidError
from pywasmvm.features import DEFAULT
from pywasmvm.isa import op
from pywasmvm.syntax import Code, ModuleSyntax
from pywasmvm.types import I32, I64, Limits, MemoryType, NumType
from pywasmvm.valid import module as all_rules
from pywasmvm.valid.code import CodeValidator
from pywasmvm.valid.context import Context


def check(target: int, source: int, operands: tuple[NumType, ...]) -> None:
    memories = [MemoryType(Limits(1), address) for address in (I32, I64)]
    checker = CodeValidator(Context(ModuleSyntax(b"", DEFAULT, memories=memories)), (), ())
    assert all_rules.RULE_FILES
    ops = [*(op(f"{type_}.const") for type_ in operands), op("memory.copy")]
    code = Code((), ops, [*[0] * len(operands), (target, source)], array("Q", range(len(ops))))
    checker.run(code, ())


@pytest.mark.parametrize(
    ("target", "source", "operands"),
    [(0, 0, (I32, I32, I32)), (0, 1, (I32, I64, I32)), (1, 0, (I64, I32, I32)), (1, 1, (I64, I64, I64))],
)
def test_the_length_has_the_smaller_address_type(
    target: int, source: int, operands: tuple[NumType, NumType, NumType]
) -> None:
    check(target, source, operands)
    for index in range(3):
        other = I32 if operands[index] is I64 else I64
        with pytest.raises(InvalidError, match="type mismatch"):
            check(target, source, (*operands[:index], other, *operands[index + 1 :]))
    with pytest.raises(InvalidError, match="nothing on stack"):
        check(target, source, operands[1:])
