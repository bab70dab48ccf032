"""Typing of the table instructions: operands and elements, sources and targets."""

from __future__ import annotations

from array import array

import pytest

from pywasmvm.errors import InvalidError
from pywasmvm.features import DEFAULT
from pywasmvm.isa import op
from pywasmvm.syntax import Code, Elem, ModuleSyntax, Table
from pywasmvm.types import (
    F32,
    FUNCREF,
    I32,
    I64,
    FuncType,
    HeapType,
    Limits,
    NumType,
    SubType,
    TableType,
    ValType,
    ref,
)
from pywasmvm.valid import module as all_rules
from pywasmvm.valid.code import CodeValidator
from pywasmvm.valid.context import Context
from tests.support.validation import accepted_body, refused_body

FIELDS = "(table $f 1 funcref) (table $x 1 externref) (elem $e func) (elem $ex externref)"
INDEX, WRONG = "i32.const 0", "i64.const 0"


def both(good: str, *bad: str) -> None:
    """`good` is valid; each of `bad` breaks a typing rule."""
    accepted_body(good, fields=FIELDS)
    for text in bad:
        refused_body("type mismatch", text, fields=FIELDS)


def test_get() -> None:
    both(
        f"{INDEX} table.get $x {INDEX} table.get $f drop drop",
        "table.get $f drop",
        f"{WRONG} table.get $f drop",
        f"{INDEX} table.get $f i32.eqz drop",
    )
    both(
        f"block (result externref) {INDEX} table.get $x end drop",
        f"block (result funcref) {INDEX} table.get $x end drop",
    )
    refused_body("unknown table 2", f"{INDEX} table.get 2 drop", fields=FIELDS)


def test_set() -> None:
    both(
        f"{INDEX} ref.null extern table.set $x",
        f"{INDEX} ref.null func table.set $x",
        f"{WRONG} ref.null extern table.set $x",
        "ref.null extern table.set $x",
        f"ref.null extern {INDEX} table.set $x",
    )
    refused_body("unknown table 2", f"{INDEX} ref.null func table.set 2", fields=FIELDS)


def test_size_and_grow() -> None:
    both("table.size $x i32.eqz drop", "table.size $x i64.eqz drop")
    both(
        f"ref.null extern {INDEX} table.grow $x i32.eqz drop",
        f"ref.null func {INDEX} table.grow $x drop",
        f"ref.null extern {WRONG} table.grow $x drop",
        f"{INDEX} table.grow $x drop",
        f"ref.null extern {INDEX} table.grow $x i64.eqz drop",
    )
    for name in ("table.size 2 drop", f"ref.null func {INDEX} table.grow 2 drop"):
        refused_body("unknown table 2", name, fields=FIELDS)


def test_fill() -> None:
    both(
        f"{INDEX} ref.null extern {INDEX} table.fill $x",
        f"{INDEX} ref.null func {INDEX} table.fill $x",
        f"{WRONG} ref.null extern {INDEX} table.fill $x",
        f"{INDEX} ref.null extern {WRONG} table.fill $x",
        f"ref.null extern {INDEX} table.fill $x",
    )
    refused_body("unknown table 2", f"{INDEX} ref.null func {INDEX} table.fill 2", fields=FIELDS)


def test_copy() -> None:
    three = f"{INDEX} {INDEX} {INDEX}"
    both(
        f"{three} table.copy $f $f {three} table.copy $x $x",
        f"{three} table.copy $f $x",
        f"{three} table.copy $x $f",
        f"{WRONG} {INDEX} {INDEX} table.copy $f $f",
        f"{INDEX} {WRONG} {INDEX} table.copy $f $f",
        f"{INDEX} {INDEX} {WRONG} table.copy $f $f",
        f"{INDEX} {INDEX} table.copy $f $f",
    )
    for pair in ("0 2", "2 0"):
        refused_body("unknown table 2", f"{three} table.copy {pair}", fields=FIELDS)


def test_init() -> None:
    three = f"{INDEX} {INDEX} {INDEX}"
    both(
        f"{three} table.init $f $e {three} table.init $x $ex elem.drop $e",
        f"{three} table.init $x $e",
        f"{three} table.init $f $ex",
        f"{WRONG} {INDEX} {INDEX} table.init $f $e",
        f"{INDEX} {WRONG} {INDEX} table.init $f $e",
        f"{INDEX} {INDEX} {WRONG} table.init $f $e",
        f"{INDEX} {INDEX} table.init $f $e",
    )
    refused_body("unknown elem segment 2", f"{three} table.init $f 2", fields=FIELDS)
    refused_body("unknown elem segment 2", "elem.drop 2", fields=FIELDS)
    refused_body("unknown table 2", f"{three} table.init 2 $e", fields=FIELDS)


# -- 64-bit tables ------------------------------------------------------------------------------------------


def types_after(name: str, immediate: object, operands: tuple[ValType, ...]) -> list[ValType]:
    """Type one instruction on an i32 table (0) and an i64 table (1)."""
    tables = [Table(TableType(FUNCREF, Limits(1), address)) for address in (I32, I64)]
    syntax = ModuleSyntax(b"", DEFAULT, tables=tables, elems=[Elem(FUNCREF, "passive", [])])
    assert all_rules.RULE_FILES
    constants = {I32: op("i32.const"), I64: op("i64.const"), F32: op("f32.const"), FUNCREF: op("ref.null")}
    ops = [*(constants[type_] for type_ in operands), op(name)]
    immediates = [*(0 if isinstance(type_, NumType) else FUNCREF.heap for type_ in operands), immediate]
    checker = CodeValidator(Context(syntax), (), ())
    checker.run(Code((), ops, immediates, array("Q", range(len(ops)))), ())
    return checker.stack


@pytest.mark.parametrize(
    ("name", "immediate", "operands", "results"),
    [
        ("table.get", 1, (I64,), [FUNCREF]),
        ("table.set", 1, (I64, FUNCREF), []),
        ("table.size", 1, (), [I64]),
        ("table.grow", 1, (FUNCREF, I64), [I64]),
        ("table.fill", 1, (I64, FUNCREF, I64), []),
        ("table.copy", (1, 1), (I64, I64, I64), []),
        ("table.copy", (0, 1), (I32, I64, I32), []),
        ("table.copy", (1, 0), (I64, I32, I32), []),
        ("table.copy", (0, 0), (I32, I32, I32), []),
        ("table.init", (0, 1), (I64, I32, I32), []),
    ],
)
def test_operands_have_the_address_type(
    name: str, immediate: object, operands: tuple[ValType, ...], results: list[ValType]
) -> None:
    assert types_after(name, immediate, operands) == results
    for index, type_ in enumerate(operands):
        if isinstance(type_, NumType):
            other = I32 if type_ is I64 else I64
            with pytest.raises(InvalidError, match="type mismatch"):
                types_after(name, immediate, (*operands[:index], other, *operands[index + 1 :]))


# -- subtypes: tables of references that are never null -----------------------------------------------------

EXACT = ref(False, HeapType.FUNC)


def run_between(name: str, immediate: object) -> None:
    """Type one instruction on i32 operands; tables 0 and 2 hold any functions, table 1 only real ones."""
    tables = [Table(TableType(element, Limits(1))) for element in (FUNCREF, EXACT, FUNCREF)]
    elems = [Elem(element, "passive", []) for element in (FUNCREF, EXACT)]
    syntax = ModuleSyntax(b"", DEFAULT, types=[SubType(FuncType())], groups=[1], tables=tables, elems=elems)
    count = 1 if name == "call_indirect" else 3
    ops = [*[op("i32.const")] * count, op(name)]
    code = Code((), ops, [*[0] * count, immediate], array("Q", range(count + 1)))
    CodeValidator(Context(syntax), (), ()).run(code, ())


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("table.copy", [(0, 1), (0, 2), (1, 1)], [(1, 0)]),
        ("table.init", [(0, 0), (1, 0), (1, 1)], [(0, 1)]),
        ("call_indirect", [(0, 0), (0, 1)], []),
    ],
)
def test_elements_may_be_of_a_subtype(name: str, good: list[object], bad: list[object]) -> None:
    for immediate in good:
        run_between(name, immediate)
    for immediate in bad:
        with pytest.raises(InvalidError, match="type mismatch"):
            run_between(name, immediate)
