"""Typing of exceptions and tail calls."""

from __future__ import annotations

import pytest

from tests.support.validation import accepted, accepted_body, refusal, refused_body

TAGS = """(type $e (func (param i32 f64))) (tag $t (type $e)) (tag $u)
  (func $first (param i32) (result i64) unreachable)"""


def good(body: str, types: str = "") -> None:
    accepted(f"(module {TAGS} (func {types} {body}))")


def bad(body: str, types: str = "", message: str = "type mismatch") -> None:
    error = refusal(f"(module {TAGS} (func {types} {body}))")
    assert error.message.startswith(message), error
    assert error.function == 1


def test_throw() -> None:
    good("i32.const 1 f64.const 2 throw $t")
    good("i32.const 1 f64.const 2 throw $t", "(result i32)")
    bad("i32.const 1 throw $t")
    bad("f64.const 1 i32.const 1 throw $t")
    bad("throw 7", message="unknown tag 7")


def test_throw_ref() -> None:
    good("local.get 0 throw_ref", "(param exnref) (result i32)")
    good("local.get 0 throw_ref", "(param (ref exn))")
    good("ref.null noexn throw_ref")
    bad("local.get 0 throw_ref", "(param anyref)")
    bad("throw_ref")


@pytest.mark.parametrize(
    ("label", "clause"),
    [
        ("(result i32 f64)", "catch $t"),
        ("(result i32 f64 (ref exn))", "catch_ref $t"),
        ("(result i32 f64 exnref)", "catch_ref $t"),
        ("", "catch $u"),
        ("(result exnref)", "catch_ref $u"),
        ("", "catch_all"),
        ("(result (ref exn))", "catch_all_ref"),
    ],
)
def test_clauses_carry_what_their_labels_take(label: str, clause: str) -> None:
    good(f"block {label} try_table ({clause} 0) end unreachable end unreachable")
    for other in ("(result i64)", "(result i32)", "(result f64 i32)"):
        bad(f"block {other} try_table ({clause} 0) end unreachable end unreachable")


def test_labels_of_clauses_count_from_outside_of_the_block() -> None:
    bad("try_table (catch_all 1) end", message="unknown label 1")
    good("try_table (catch_all 0) end")
    bad("try_table (result i32) (catch_all 0) i32.const 0 end drop", "(result i64)")
    bad("try_table (catch 9 0) end", message="unknown tag 9")


def test_the_block_itself_is_a_block() -> None:
    good("i32.const 1 try_table (param i32) (result i64) drop i64.const 1 end", "(result i64)")
    good("try_table (result i64) i64.const 1 br 0 end", "(result i64)")
    bad("try_table (result i64) i32.const 1 end", "(result i64)")
    bad("i64.const 1 try_table (param i32) drop end")


def test_tags_have_no_results() -> None:
    assert (
        refusal("(module (type $f (func (result i32))) (tag (type $f)))").message
        == "non-empty tag result type"
    )
    assert refusal('(module (import "m" "t" (tag (result i32))))').message == "non-empty tag result type"


FIELDS = """(type $f (func (param i32) (result i64))) (type $g (func (result i32))) (table $t 1 funcref)
  (func $same (type $f) unreachable) (func $other (type $g) unreachable)"""


def tail(body: str, types: str, message: str | None = None) -> None:
    text = f"(module {FIELDS} (func {types} {body}))"
    if message is None:
        accepted(text)
    else:
        assert refusal(text).message.startswith(message)


def test_tail_calls() -> None:
    tail("i32.const 0 return_call $same", "(result i64)")
    tail("i32.const 0 return_call $same", "(result i32)", "type mismatch")
    tail("return_call $same", "(result i64)", "type mismatch")
    tail("return_call $other", "(result i32)")
    tail("return_call $other", "", "type mismatch")
    tail("return_call 99", "(result i32)", "unknown function 99")
    tail("return_call $other i64.eqz", "(result i32)")
    tail("i32.const 0 i32.const 0 return_call_indirect $t (type $f)", "(result i64)")
    tail("i32.const 0 i64.const 0 return_call_indirect $t (type $f)", "(result i64)", "type mismatch")
    tail("i32.const 0 i32.const 0 return_call_indirect $t (type $f)", "(result f32)", "type mismatch")
    tail("i32.const 0 i32.const 0 return_call_indirect 5 (type $f)", "(result i64)", "unknown table 5")


def test_a_tail_call_may_return_less_than_was_asked() -> None:
    accepted("(module (func $a (result (ref func)) unreachable) (func (result funcref) return_call $a))")
    assert refusal(
        "(module (func $a (result funcref) unreachable) (func (result (ref func)) return_call $a))"
    ).message.startswith("type mismatch")


def test_indirect_calls_through_typed_tables() -> None:
    types = "(type $f (func)) (type $s (struct)) (table $t 1 (ref null $f)) (table $x 1 externref)"
    accepted_body("i32.const 0 call_indirect $t (type $f)", fields=types)
    refused_body("type mismatch", "i32.const 0 call_indirect $x (type $f)", fields=types)
    refused_body("type mismatch", "i32.const 0 call_indirect $t (type $s)", fields=types)


def test_a_table_that_cannot_be_null_needs_a_value() -> None:
    assert refusal("(module (table 1 (ref func)))").message.startswith("type mismatch")
    accepted("(module (func $f) (table 1 (ref func) (ref.func $f)))")
    assert refusal("(module (table 1 (ref func) (ref.null func)))").message.startswith("type mismatch")


def test_addresses_of_64_bits() -> None:
    memory = "(memory $m i64 1) (memory $n 1) (table $t i64 1 funcref) (data $d) (elem $e func)"
    accepted_body("i64.const 0 i32.load $m drop i32.const 0 i32.load $n drop", fields=memory)
    refused_body("type mismatch", "i32.const 0 i32.load $m drop", fields=memory)
    refused_body("type mismatch", "i64.const 0 i32.load $n drop", fields=memory)
    accepted_body("i64.const 0 i32.const 0 i32.const 0 memory.copy $m $n", fields=memory)
    refused_body("type mismatch", "i64.const 0 i32.const 0 i64.const 0 memory.copy $m $n", fields=memory)
    accepted_body("i64.const 0 i64.const 0 i64.const 0 memory.copy $m $m", fields=memory)
    accepted_body("i64.const 0 i32.const 0 i32.const 0 memory.init $m $d", fields=memory)
    accepted_body("i64.const 0 table.get $t drop", fields=memory)
    accepted_body("i64.const 0 i32.const 0 i32.const 0 table.init $t $e", fields=memory)
    accepted("(module (memory i64 281474976710656))")
    assert refusal("(module (memory i64 281474976710657))").message.startswith("memory size")
    accepted("(module (table i64 18446744073709551615 funcref))")
    refused_body("unknown memory 5", "i32.const 0 i32.load 5 drop", fields=memory)


def test_each_table_needs_its_own_value() -> None:
    tables = '(import "m" "t" (table 1 funcref)) (table 1 funcref) (table 1 (ref func))'
    assert refusal(f"(module {tables})").message.startswith("type mismatch: a table of (ref func)")
    accepted(f"(module {tables[:-1]} (ref.func $f)) (func $f))")
