"""Typing of structs and arrays, and of the type section they come from."""

from __future__ import annotations

import pytest

from tests.support.validation import accepted, accepted_body, refusal, refused_body

FIELDS = """(type $s (struct (field i32) (field (mut i8)) (field (mut f64))))
  (type $r (struct (field (ref $s))))
  (type $a (array (mut i32))) (type $fixed (array i64)) (type $p (array (mut i16)))
  (type $refs (array (mut (ref $s)))) (type $funcs (array (mut funcref))) (type $n (array (mut anyref)))
  (data $d "0123") (elem $e funcref (ref.null func)) (elem $x externref)"""


def good(body: str, types: str = "") -> None:
    accepted_body(body, types, FIELDS)


def bad(body: str, types: str = "", message: str = "type mismatch") -> None:
    refused_body(message, body, types, FIELDS)


def test_struct_new() -> None:
    good("i32.const 1 i32.const 2 f64.const 3 struct.new $s", "(result (ref $s))")
    bad("i32.const 1 i64.const 2 f64.const 3 struct.new $s drop")
    bad("i32.const 1 f64.const 3 struct.new $s drop")
    good("struct.new_default $s", "(result (ref struct))")
    bad("struct.new_default $r drop")
    bad("i32.const 0 struct.new $a drop")
    bad("struct.new_default $a drop")
    refused_body("unknown type 99", "struct.new 99 drop", "", FIELDS)


def test_struct_fields() -> None:
    good("local.get 0 struct.get $s 0 i32.eqz drop", "(param (ref null $s))")
    good("local.get 0 struct.get $s 2 f64.neg drop", "(param (ref $s))")
    good("local.get 0 struct.get_u $s 1 i32.eqz drop", "(param (ref $s))")
    bad("local.get 0 struct.get $s 1 drop", "(param (ref $s))")
    bad("local.get 0 struct.get_s $s 0 drop", "(param (ref $s))")
    bad("local.get 0 struct.get $s 0 drop", "(param (ref $r))")
    bad("local.get 0 struct.get $s 3 drop", "(param (ref $s))", "unknown field 3")
    good("local.get 0 i32.const 5 struct.set $s 1", "(param (ref $s))")
    bad("local.get 0 i64.const 5 struct.set $s 1", "(param (ref $s))")
    bad("local.get 0 i32.const 5 struct.set $s 0", "(param (ref $s))", "immutable field 0")
    bad("local.get 0 i32.const 5 struct.set $s 1", "(param (ref $r))")


def test_array_new() -> None:
    good("i32.const 7 i32.const 3 array.new $a", "(result (ref $a))")
    bad("i64.const 7 i32.const 3 array.new $a drop")
    bad("i32.const 7 i64.const 3 array.new $a drop")
    good("i32.const 3 array.new_default $n", "(result arrayref)")
    bad("i32.const 3 array.new_default $refs drop")
    good("i32.const 1 i32.const 2 array.new_fixed $p 2", "(result (ref $p))")
    bad("i32.const 1 array.new_fixed $p 2 drop")
    bad("i32.const 1 i64.const 1 array.new_fixed $p 2 drop")
    bad("unreachable array.new_fixed $p 10001 drop", message="array.new_fixed of 10001")
    bad("i32.const 0 array.new_default $s drop")


def test_arrays_from_segments() -> None:
    good("i32.const 0 i32.const 1 array.new_data $p $d", "(result (ref $p))")
    bad("i32.const 0 i32.const 1 array.new_data $n $d drop", message="array type is not numeric or vector")
    bad("i32.const 0 i64.const 1 array.new_data $p $d drop")
    bad("i32.const 0 i32.const 1 array.new_data $p 7 drop", message="unknown data segment 7")
    good("i32.const 0 i32.const 1 array.new_elem $funcs $e", "(result (ref $funcs))")
    bad("i32.const 0 i32.const 1 array.new_elem $funcs $x drop")
    bad("i32.const 0 i32.const 1 array.new_elem $a $e drop")
    bad("i32.const 0 i32.const 1 array.new_elem $funcs 7 drop", message="unknown elem segment 7")


def test_array_elements() -> None:
    good("local.get 0 i32.const 0 array.get $a i32.eqz drop", "(param (ref null $a))")
    good("local.get 0 i32.const 0 array.get_s $p i32.eqz drop", "(param (ref null $p))")
    bad("local.get 0 i32.const 0 array.get $p drop", "(param (ref null $p))")
    bad("local.get 0 i32.const 0 array.get_u $a drop", "(param (ref null $a))")
    bad("local.get 0 i64.const 0 array.get $a drop", "(param (ref null $a))")
    good("local.get 0 i32.const 0 i32.const 9 array.set $a", "(param (ref null $a))")
    bad("local.get 0 i32.const 0 f32.const 9 array.set $a", "(param (ref null $a))")
    bad("local.get 0 i32.const 0 i64.const 9 array.set $fixed", "(param (ref $fixed))", "immutable array")
    good("local.get 0 array.len i32.eqz drop", "(param arrayref)")
    bad("local.get 0 array.len drop", "(param eqref)")


def test_array_bulk() -> None:
    both = "(param (ref null $a)) (param (ref null $fixed))"
    good("local.get 0 i32.const 0 i32.const 9 i32.const 1 array.fill $a", both)
    bad("local.get 0 i32.const 0 i64.const 9 i32.const 1 array.fill $a", both)
    bad("local.get 1 i32.const 0 i64.const 9 i32.const 1 array.fill $fixed", both, "immutable array")
    good("local.get 0 i32.const 0 local.get 0 i32.const 1 i32.const 1 array.copy $a $a", both)
    bad(
        "local.get 0 i32.const 0 local.get 1 i32.const 1 i32.const 1 array.copy $a $fixed",
        both,
        "array types do not",
    )
    bad(
        "local.get 1 i32.const 0 local.get 1 i32.const 1 i32.const 1 array.copy $fixed $fixed",
        both,
        "immutable array",
    )
    bad("local.get 0 i32.const 0 local.get 1 i32.const 1 i32.const 1 array.copy $a $a", both)
    good("local.get 0 i32.const 0 i32.const 1 i32.const 1 array.init_data $a $d", both)
    bad("local.get 1 i32.const 0 i32.const 1 i32.const 1 array.init_data $fixed $d", both, "immutable array")
    bad("local.get 0 i32.const 0 i32.const 1 i64.const 1 array.init_data $a $d", both)
    funcs = "(param (ref null $funcs))"
    good("local.get 0 i32.const 0 i32.const 1 i32.const 1 array.init_elem $funcs $e", funcs)
    bad("local.get 0 i32.const 0 i32.const 1 i32.const 1 array.init_elem $funcs $x", funcs)


def test_a_subtype_must_fit_its_supertype() -> None:
    for parent, child in [
        ("(struct (field i32))", "(struct (field i64))"),
        ("(struct (field i32))", "(struct)"),
        ("(struct (field (mut i32)))", "(struct (field i32))"),
        ("(struct (field (mut anyref)))", "(struct (field (mut eqref)))"),
        ("(array i8)", "(array i16)"),
        ("(array i8)", "(struct)"),
        ("(func (param i32))", "(func)"),
        ("(func (param eqref))", "(func (param i31ref))"),
        ("(func (result i31ref))", "(func (result eqref))"),
    ]:
        error = refusal(f"(module (type $p (sub {parent})) (type (sub $p {child})))")
        assert error.message.startswith("sub type"), (parent, child)
    for parent, child in [
        ("(struct (field anyref))", "(struct (field eqref) (field i32))"),
        ("(struct (field (mut anyref)))", "(struct (field (mut anyref)))"),
        ("(func (param i31ref) (result eqref))", "(func (param eqref) (result i31ref))"),
        ("(array (ref null func))", "(array (ref func))"),
    ]:
        accepted(f"(module (type $p (sub {parent})) (type (sub $p {child})))")


def test_final_types_have_no_children() -> None:
    for parent in ("(struct)", "(sub final (struct))"):
        assert refusal(f"(module (type $p {parent}) (type (sub $p (struct))))").message.startswith("sub type")


@pytest.mark.parametrize(
    "text", ["(type (struct (field (ref 1)))) (type (struct))", "(rec (type (array (ref 5))))"]
)
def test_types_are_known_before_they_are_used(text: str) -> None:
    assert refusal(f"(module {text})").message.startswith("unknown type")


def test_equal_groups_are_equal_types() -> None:
    group = "(rec (type {0} (struct (field (ref null {1})))) (type {1} (struct (field (ref null {0})))))"
    one, two = group.format("$a", "$b"), group.format("$c", "$d")
    accepted(f"(module {one} {two} (func (param (ref $a)) (result (ref $c)) local.get 0))")
    assert refusal(
        f"(module {one} {two} (func (param (ref $a)) (result (ref $d)) local.get 0))"
    ).message.startswith("type mismatch")


def test_constant_aggregates() -> None:
    for init in (
        "struct.new_default $s",
        "i32.const 1 i32.const 2 f64.const 3 struct.new $s",
        "i32.const 1 ref.i31",
        "i32.const 1 i32.const 2 array.new $a",
        "i32.const 2 array.new_default $a",
        "i32.const 1 i32.const 2 array.new_fixed $a 2",
        "ref.null extern any.convert_extern",
    ):
        accepted(f"(module {FIELDS} (global anyref {init}))")
    accepted(f"(module {FIELDS} (global externref ref.null any extern.convert_any))")
    for init in ("i32.const 0 i32.const 1 array.new_elem $funcs $e", "ref.null any ref.cast anyref"):
        error = refusal(f"(module {FIELDS} (global anyref {init}))")
        assert error.message.startswith("constant expression required")
