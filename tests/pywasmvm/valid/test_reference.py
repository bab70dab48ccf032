"""Typing of the reference instructions."""

from __future__ import annotations

from array import array

import pytest

from pywasmvm.features import DEFAULT
from pywasmvm.isa import op
from pywasmvm.syntax import Code, ModuleSyntax
from pywasmvm.types import HeapType, ref
from pywasmvm.valid.code import CodeValidator
from pywasmvm.valid.context import Context
from tests.support.validation import accepted, accepted_body, refusal, refused_body


@pytest.mark.parametrize("heap", ["func", "extern"])
def test_null_and_its_test(heap: str) -> None:
    other = "extern" if heap == "func" else "func"
    accepted_body(f"ref.null {heap}", f"(result {heap}ref)")
    refused_body("type mismatch", f"ref.null {heap}", f"(result {other}ref)")
    accepted_body(f"ref.null {heap} ref.is_null i32.eqz drop")
    refused_body("type mismatch", f"ref.null {heap} i32.eqz drop")
    refused_body("type mismatch", f"ref.null {heap} ref.is_null ref.is_null drop")


@pytest.mark.parametrize("type_", ["i32", "i64", "f32", "f64"])
def test_numbers_are_never_null(type_: str) -> None:
    refused_body("type mismatch: expected a reference", f"{type_}.const 0 ref.is_null drop")


def test_null_test_of_nothing() -> None:
    refused_body("type mismatch", "ref.is_null drop")
    accepted_body("unreachable ref.is_null i32.eqz drop")
    refused_body("type mismatch", "unreachable ref.is_null f32.neg drop")


def test_null_has_the_nullable_type() -> None:
    for heap in HeapType:
        checker = CodeValidator(Context(ModuleSyntax(b"", DEFAULT)), (), ())
        checker.run(Code((), [op("ref.null")], [heap], array("Q", [0])), ())
        assert checker.stack == [ref(True, heap)]


def test_function_references() -> None:
    accepted("(module (func (result funcref) ref.func 0) (elem declare func 0))")
    assert refusal("(module (func (result externref) ref.func 0) (elem declare func 0))").message.startswith(
        "type mismatch"
    )
    error = refusal("(module (func ref.func 1 drop))")
    assert error.message == "unknown function 1"
    assert error.function == 0
