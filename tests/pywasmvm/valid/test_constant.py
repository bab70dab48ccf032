"""Constant expressions: what they may be made of, which globals they may read, and their type."""

from __future__ import annotations

import pytest

from tests.support.validation import accepted, refusal


@pytest.mark.parametrize(
    ("type_", "expression"),
    [
        ("i32", "i32.const 1"),
        ("i64", "i64.const 1"),
        ("f32", "f32.const 1"),
        ("f64", "f64.const 1"),
        ("funcref", "ref.null func"),
        ("externref", "ref.null extern"),
        ("funcref", "ref.func 0"),
        ("i32", "global.get 0"),
        ("funcref", "global.get 1"),
    ],
)
def test_constant(type_: str, expression: str) -> None:
    imports = '(import "m" "g" (global i32)) (import "m" "h" (global funcref))'
    accepted(f"(module {imports} (global {type_} {expression}) (func))")
    other = "f32" if type_ != "f32" else "f64"
    error = refusal(f"(module {imports} (global {other} {expression}) (func))")
    assert error.message.startswith("type mismatch")


@pytest.mark.parametrize(
    ("expression", "instruction"),
    [
        ("nop i32.const 0", "nop"),
        ("i32.const 0 i32.const 1 i32.and", "i32.and"),
        ("i32.const 0 i32.eqz", "i32.eqz"),
        ("call 0", "call"),
        ("memory.size", "memory.size"),
        ("unreachable", "unreachable"),
        ("i32.const 0 i32.const 0 drop", "drop"),
    ],
)
def test_not_constant(expression: str, instruction: str) -> None:
    error = refusal(f"(module (memory 1) (func (result i32) i32.const 0) (global i32 {expression}))")
    assert error.message == "constant expression required"
    assert error.instruction == instruction
    assert error.offset is not None
    assert error.function is None


@pytest.mark.parametrize("expression", ["", "i32.const 0 i32.const 0", "i64.const 0"])
def test_exactly_one_value(expression: str) -> None:
    assert refusal(f"(module (global i32 {expression}))").message.startswith("type mismatch")


def test_a_mutable_global_is_not_constant() -> None:
    error = refusal('(module (import "m" "g" (global (mut i32))) (global i32 (global.get 0)))')
    assert error.message == "constant expression required"
    assert error.instruction == "global.get"


def test_only_earlier_globals_are_known() -> None:
    accepted("(module (global i32 (i32.const 1)) (global i32 (global.get 0)))")
    assert refusal("(module (global i32 (global.get 0)))").message == "unknown global 0"
    text = "(module (global i32 (global.get 1)) (global i32 (i32.const 1)))"
    assert refusal(text).message == "unknown global 1"
    assert (
        refusal("(module (global i32 (i32.const 0)) (global i32 (global.get 1)))").message
        == "unknown global 1"
    )


def test_segments_know_all_globals() -> None:
    accepted("(module (table 1 funcref) (global i32 (i32.const 0)) (elem (global.get 0) func))")
    accepted('(module (memory 1) (global i32 (i32.const 0)) (data (global.get 0) ""))')
    accepted("(module (global funcref (ref.null func)) (elem funcref (global.get 0)))")
    text = '(module (memory 1) (global (mut i32) (i32.const 0)) (data (global.get 0) ""))'
    assert refusal(text).message == "constant expression required"
    assert refusal('(module (memory 1) (global i32 (i32.const 0)) (data (global.get 1) ""))').message == (
        "unknown global 1"
    )


def test_functions_must_exist() -> None:
    assert refusal("(module (global funcref (ref.func 0)))").message == "unknown function 0"
