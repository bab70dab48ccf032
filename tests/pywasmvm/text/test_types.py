"""Types in text: definitions, abbreviations, type uses and the types they add."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.binary.decode import decode
from pywasmvm.comparison import same
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import ModuleSyntax
from pywasmvm.text.parser import parse_module
from pywasmvm.types import (
    BY_NAME,
    F32,
    I8,
    I32,
    I64,
    ArrayType,
    FieldType,
    FuncType,
    HeapType,
    StructType,
    SubType,
    ref,
)
from tests.support.wat import assembled


def types(text: str) -> list[SubType]:
    return parse_module(text).types


@pytest.mark.parametrize("name", list(BY_NAME))
def test_value_types_of_one_word(name: str) -> None:
    assert types(f"(type (func (param {name})))")[0].composite == FuncType((BY_NAME[name],))


@pytest.mark.parametrize("heap", [heap for heap in HeapType if heap is not HeapType.BOT])
def test_references(heap: HeapType) -> None:
    (found,) = types(f"(type (func (param (ref {heap.value})) (result (ref null {heap.value}))))")
    assert found.composite == FuncType((ref(False, heap),), (ref(True, heap),))


def test_references_by_index() -> None:
    found = types("(rec (type $a (func (param (ref $b) (ref null 0)))) (type $b (struct)))")
    assert found[0].composite == FuncType((ref(False, 1), ref(True, 0)))


def test_fields() -> None:
    found = types(
        "(type (struct (field i32 (mut i64)) (field $x (mut i8)) (field))) (type (array (mut f32)))"
    )
    assert found[0].composite == StructType((FieldType(I32), FieldType(I64, True), FieldType(I8, True)))
    assert found[1].composite == ArrayType(FieldType(F32, True))


def test_groups_and_supertypes() -> None:
    module = parse_module(
        "(type (func)) (rec) (rec (type $a (sub (func))) (type (sub $a (func))))"
        "(rec (type (sub final 1 (func))))"
    )
    assert module.groups == [1, 0, 2, 1]
    assert [(t.final, t.supers) for t in module.types] == [
        (True, ()),
        (False, ()),
        (False, (1,)),
        (True, (1,)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "(type (func (result i32) (param i32)))",
        "(type (func (param $x i32 i32)))",
        "(type (func (param i32) i32))",
        "(type (func (result $x i32)))",
        "(type (func (param i8)))",
        "(type (func (param i16x8)))",
        "(type (func (param (ref))))",
        "(type (func (param (ref null))))",
        "(type (func (param (ref i32))))",
        "(type (func (param (ref bot))))",
        "(type (func (param (ref null any any))))",
        "(type (struct (field $x i32 i32)))",
        "(type (struct (field (mut))))",
        "(type (struct (field (mut i32 i32))))",
        "(type (struct i32))",
        "(type (array))",
        "(type (array i32 i32))",
        "(type (array (field i32)))",
        "(type (sub))",
        "(type (sub (func) (func)))",
        "(type (sub final final (func)))",
        "(type (sub (sub (func))))",
        "(type $a $b (func))",
        "(type func)",
        "(memory 1 2 3)",
        "(memory -1)",
        "(memory)",
        "(memory i64)",
        "(memory f32 1)",
        "(memory i64 i64 1)",
        "(table 1)",
        "(table 1 2 3 funcref)",
        "(table 1 i32)",
        "(table funcref 1)",
        "(table 1 func)",
        "(global (mut) i32.const 0)",
        "(global mut i32 i32.const 0)",
        "(global)",
        "(tag (param i32) (param))) ",
    ],
)
def test_what_is_no_type(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_module(text)


# -- type uses -----------------------------------------------------------------------------------------------


def uses(text: str) -> tuple[ModuleSyntax, list[int]]:
    module = parse_module(text)
    return module, module.functions


def test_a_signature_means_the_first_equal_type_that_stands_alone() -> None:
    """Not one that is open to subtypes, has a supertype, or is part of a larger group."""
    module, functions = uses(
        """
        (rec (type (func)) (type (struct)))
        (type (sub (func)))
        (type (sub final 2 (func)))
        (type $it (sub final (func)))
        (type (func))
        (func) (func (param) (result)) (func (type $it)) (func (type 5))
        """
    )
    assert functions == [4, 4, 4, 5]
    assert len(module.types) == 6


def test_a_group_of_one_stands_alone() -> None:
    module, functions = uses("(rec (type (func (param i32)))) (func (param i32))")
    assert functions == [0]
    assert len(module.types) == 1


def test_new_types_follow_all_others_in_the_order_of_their_use() -> None:
    text = """
        (func $a (param i32) (block (param i64) (drop)))
        (type $own (func (param f32)))
        (import "" "" (func $i (param f64)))
        (func (param i64)) (tag (param f64 f64)) (func (call_indirect (result v128) (i32.const 0)))
        (type (func (param f64 f64 f64)))
        """.replace("(func $a (param i32) (block (param i64) (drop)))", "", 1)
    module, functions = uses(text)
    assert [t.composite.params for t in module.types if isinstance(t.composite, FuncType)][:2] == [
        (F32,),
        (BY_NAME["f64"],) * 3,
    ]
    assert module.groups == [1] * len(module.types)
    assert functions == [3, 5]
    assert same(module, decode(assembled(f"(module {text})"))) is None


def test_parameters_come_with_the_type_where_they_are_not_written() -> None:
    module = parse_module("(type $t (func (param i32 i64))) (func (type $t) (local $x f32) (local.get $x))")
    assert module.bodies is not None
    assert module.bodies[0].immediates[0] == 2


def test_names_of_parameters() -> None:
    text = "(type $t (func (param i32 i64))) (func (type $t) (param $a i32) (param $b i64) (local.get $b))"
    module = parse_module(text)
    assert module.bodies is not None
    assert module.bodies[0].immediates[0] == 1


@pytest.mark.parametrize(
    "use",
    [
        "(param i32)",
        "(result i32)",
        "(param i32 i32) (result i64)",
        "(param i64) (result i32)",
        "(param i32) (result)",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "(func (type $t) {})",
        '(import "" "" (func (type $t) {}))',
        "(func (call_indirect (type $t) {}))",
        "(func block (type $t) {} end)",
        "(func (loop (type $t) {}))",
        "(func (if (type $t) {} (nop) (then)))",
        "(func (try_table (type $t) {}))",
        "(tag (type $t) {})",
    ],
)
def test_type_and_signature_must_agree(place: str, use: str) -> None:
    define = "(type $t (func (param i32) (result i64)))"
    parse_module(define + place.format("(param i32) (result i64)"))
    parse_module(define + place.format(""))
    with pytest.raises(MalformedError, match=r"^inline function type"):
        parse_module(define + place.format(use))


def test_a_signature_cannot_agree_with_a_struct() -> None:
    parse_module("(type $s (struct)) (func (type $s))")  # invalid, but well-formed
    with pytest.raises(MalformedError, match=r"^inline function type"):
        parse_module("(type $s (struct)) (func (type $s) (param i32))")


@pytest.mark.parametrize("form", ["block", "loop", "if", "try_table"])
def test_block_types(form: str) -> None:
    module = parse_module(
        f"(func {form} end {form} (result i32) end {form} (param i32) end {form} (type 9) end)"
    )
    assert module.bodies is not None
    code = module.bodies[0]
    found = [value for op, value in zip(code.ops, code.immediates, strict=True) if op.name == form]
    types: list[object] = [None, I32, 1, 9]
    assert found == ([(type_, ()) for type_ in types] if form == "try_table" else types)


@given(
    st.lists(st.sampled_from(["(param i32)", "(param $x i64)", "(result f32)", "(type 0)", "(local i32)"]))
)
def test_the_order_of_a_type_use(parts: list[str]) -> None:
    """Accepted exactly as an independent parser does."""
    text = f"(module (type (func)) (func {' '.join(parts)}))"
    try:
        theirs = decode(assembled(text))
    except ValueError:
        with pytest.raises(MalformedError):
            parse_module(text)
    else:
        assert same(parse_module(text), theirs) is None
