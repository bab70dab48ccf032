"""Typing of typed references: nullability, calls through references, branches and casts on them."""

from __future__ import annotations

import pytest

from tests.support.validation import accepted, accepted_body, refusal, refused_body

TYPES = """(type $f (func (param i32) (result i64))) (type $g (func))
  (type $point (sub (struct (field i32)))) (type $far (sub $point (struct (field i32) (field f32))))
  (type $bytes (array (mut i8)))"""


def good(body: str, types: str = "") -> None:
    accepted_body(body, types, TYPES)


def bad(body: str, types: str = "", message: str = "type mismatch") -> None:
    refused_body(message, body, types, TYPES)


def test_a_function_reference_has_the_exact_type() -> None:
    text = "(module {} (elem declare func $a) (func $a (type $g)) (func (result {}) ref.func $a))"
    for wanted in ("(ref $g)", "(ref null $g)", "(ref func)", "funcref"):
        accepted(text.format(TYPES, wanted))
    for wanted in ("(ref $f)", "externref", "anyref"):
        assert refusal(text.format(TYPES, wanted)).message.startswith("type mismatch")


def test_undeclared_function_reference() -> None:
    error = refusal("(module (func $a) (func ref.func $a drop))")
    assert error.message.startswith("undeclared function reference")
    accepted("(module (func $a) (table funcref (elem $a)) (func ref.func $a drop))")
    accepted('(module (func $a (export "a")) (func ref.func $a drop))')
    accepted("(module (func $a) (global funcref (ref.func $a)) (func ref.func $a drop))")
    accepted("(module (func $a) (table 1 1 funcref (ref.func $a)) (func ref.func $a drop))")


def test_null_references_to_defined_types() -> None:
    good("ref.null $f", "(result (ref null $f))")
    bad("ref.null $f", "(result (ref $f))")
    bad("ref.null $f", "(result (ref null $g))")
    good("ref.null none", "(result (ref null $point))")
    good("ref.null nofunc", "(result (ref null $f))")
    bad("ref.null nofunc", "(result (ref null $point))")
    bad("ref.null none", "(result (ref null $f))")


def test_as_non_null() -> None:
    good("local.get 0 ref.as_non_null", "(param (ref null $f)) (result (ref $f))")
    bad("local.get 0", "(param (ref null $f)) (result (ref $f))")
    bad("i32.const 0 ref.as_non_null drop")
    good("unreachable ref.as_non_null", "(result (ref $f))")
    good("unreachable ref.as_non_null", "(result (ref extern))")
    bad("unreachable ref.as_non_null", "(result i32)")


@pytest.mark.parametrize("word", ["call_ref", "return_call_ref"])
def test_calls_through_references(word: str) -> None:
    good(f"i32.const 1 local.get 0 {word} $f", "(param (ref null $f)) (result i64)")
    good(f"i32.const 1 local.get 0 {word} $f", "(param (ref $f)) (result i64)")
    bad(f"i64.const 1 local.get 0 {word} $f", "(param (ref null $f)) (result i64)")
    bad(f"i32.const 1 local.get 0 {word} $f", "(param (ref null $g)) (result i64)")
    bad(f"i32.const 1 local.get 0 {word} $f", "(param funcref) (result i64)")
    bad(f"local.get 0 {word} $point", "(param (ref null $point))")
    refused_body("unknown type 9", f"unreachable {word} 9", "", TYPES)


def test_br_on_null() -> None:
    good("block local.get 0 br_on_null 0 call_ref $g end", "(param (ref null $g))")
    good("block (result (ref $g)) local.get 0 br_on_null 1 end drop", "(param (ref null $g))")
    bad("block i32.const 0 br_on_null 0 drop end")
    bad("block (result i32) local.get 0 br_on_null 0 drop i32.const 1 end drop", "(param (ref null $g))")
    good("block (result i32) i32.const 7 local.get 0 br_on_null 0 drop end drop", "(param (ref null $g))")
    bad("local.get 0 br_on_null 0", "(param (ref null $g)) (result (ref $g))")
    bad("block local.get 0 br_on_null 3 drop end", "(param funcref)", "unknown label 3")


def test_br_on_non_null() -> None:
    good(
        "block (result (ref $g)) local.get 0 br_on_non_null 0 unreachable end call_ref $g",
        "(param (ref null $g))",
    )
    good(
        "block (result i32 (ref $g)) i32.const 1 local.get 0 br_on_non_null 0 drop return end drop drop",
        "(param (ref null $g))",
    )
    bad("block (result (ref $f)) local.get 0 br_on_non_null 0 unreachable end drop", "(param (ref null $g))")
    bad("block local.get 0 br_on_non_null 0 end", "(param (ref null $g))")
    bad("block (result i32) local.get 0 br_on_non_null 0 unreachable end drop", "(param (ref null $g))")
    bad(
        "block (result i32 (ref $g)) local.get 0 br_on_non_null 0 unreachable end drop drop",
        "(param (ref null $g))",
    )


def test_tests_and_casts_stay_in_their_hierarchy() -> None:
    good("local.get 0 ref.test (ref $far)", "(param anyref) (result i32)")
    good("local.get 0 ref.test (ref null $f)", "(param funcref) (result i32)")
    good("local.get 0 ref.test (ref extern)", "(param externref) (result i32)")
    bad("local.get 0 ref.test (ref $far)", "(param funcref) (result i32)")
    bad("local.get 0 ref.test (ref $f)", "(param anyref) (result i32)")
    bad("i32.const 0 ref.test (ref any)", "(result i32)")
    good("local.get 0 ref.cast (ref $far)", "(param anyref) (result (ref $point))")
    good("local.get 0 ref.cast (ref null $far)", "(param anyref) (result (ref null $point))")
    bad("local.get 0 ref.cast (ref null $far)", "(param anyref) (result (ref $point))")
    bad("local.get 0 ref.cast (ref $point)", "(param anyref) (result (ref $far))")
    bad("local.get 0 ref.cast (ref i31)", "(param externref) (result i31ref)")
    refused_body("unknown type 77", "unreachable ref.test (ref 77) drop", "", TYPES)


def test_br_on_cast() -> None:
    cast = "block (result (ref $far)) local.get 0 br_on_cast 0 anyref (ref $far) drop unreachable end drop"
    good(cast, "(param anyref)")
    # the rest keeps its nulls unless the target takes them
    rest = "block (result {0}) local.get 0 br_on_cast 0 anyref {0} br 1 end drop unreachable"
    bad(rest.format("(ref $far)"), "(param anyref) (result (ref any))")
    good(rest.format("(ref null $far)"), "(param anyref) (result (ref any))")
    good(rest.format("(ref $far)"), "(param anyref) (result anyref)")
    bad("block (result (ref $far)) local.get 0 br_on_cast 0 eqref (ref any) drop end drop", "(param eqref)")
    bad(
        "block (result (ref $far)) local.get 0 br_on_cast 0 anyref (ref $point) unreachable end drop",
        "(param anyref)",
    )
    bad("block local.get 0 br_on_cast 0 anyref (ref $point) unreachable end", "(param anyref)")
    bad("block (result (ref any)) i32.const 0 br_on_cast 0 anyref (ref $point) unreachable end drop")


def test_br_on_cast_fail() -> None:
    good(
        "block (result anyref) local.get 0 br_on_cast_fail 0 anyref (ref $far) return end drop unreachable",
        "(param anyref) (result (ref $point))",
    )
    good(
        "block (result (ref any)) local.get 0 br_on_cast_fail 0 anyref (ref null $far) "
        "return end drop unreachable",
        "(param anyref) (result (ref null $point))",
    )
    bad(
        "block (result (ref any)) local.get 0 br_on_cast_fail 0 anyref (ref $far) return end "
        "drop unreachable",
        "(param anyref) (result (ref $point))",
    )


def test_conversions_keep_nullability() -> None:
    for nullable in ("", "null "):
        good("local.get 0 any.convert_extern", f"(param (ref {nullable}extern)) (result (ref {nullable}any))")
        good(
            "local.get 0 extern.convert_any", f"(param (ref {nullable}$far)) (result (ref {nullable}extern))"
        )
    bad("local.get 0 any.convert_extern", "(param externref) (result (ref any))")
    bad("local.get 0 any.convert_extern", "(param anyref) (result anyref)")
    bad("local.get 0 extern.convert_any", "(param funcref) (result externref)")
    good("unreachable any.convert_extern", "(result (ref any))")


def test_reference_equality() -> None:
    good("local.get 0 ref.null i31 ref.eq", "(param (ref $far)) (result i32)")
    bad("local.get 0 local.get 0 ref.eq", "(param anyref) (result i32)")
    bad("local.get 0 local.get 0 ref.eq", "(param funcref) (result i32)")


def test_i31() -> None:
    good("i32.const 1 ref.i31", "(result (ref i31))")
    good("i32.const 1 ref.i31 i31.get_s", "(result i32)")
    good("ref.null none i31.get_u", "(result i32)")
    bad("i64.const 1 ref.i31", "(result i31ref)")
    bad("local.get 0 i31.get_u", "(param eqref) (result i32)")


def test_locals_without_a_default_must_be_set() -> None:
    local = "(param (ref $g)) (local (ref $g))"
    good("local.get 0 local.set 1 local.get 1 drop", local)
    good("local.get 0 local.tee 1 drop local.get 1 drop", local)
    bad("local.get 1 drop", local, "uninitialized local 1")
    bad("block local.get 0 local.set 1 end local.get 1 drop", local, "uninitialized local 1")
    bad("i32.const 0 if local.get 0 local.set 1 else local.get 1 drop end", local, "uninitialized local 1")
    good("local.get 0 local.set 1 block local.get 1 drop end local.get 1 drop", local)
    good("local.get 0 local.set 1 block local.get 0 local.set 1 end local.get 1 drop", local)
    good("unreachable local.get 0 local.set 1 local.get 1 drop", local)
    good("local.get 1 drop", "(local i32 (ref null $g))")


def test_runs_of_locals_are_told_apart() -> None:
    runs = "(param i32) (local " + "i64 " * 300 + ") (local (ref $g)) (local " + "f32 " * 300 + ")"
    good("local.get 300 i64.eqz drop local.get 302 f32.neg drop local.get 601 f32.neg drop", runs)
    bad("local.get 301 drop", runs, "uninitialized local 301")
    bad("local.get 602 drop", runs, "unknown local 602")
    bad("local.get 300 f32.neg drop", runs)
    bad("local.get 302 i64.eqz drop", runs)
