"""Every proposal can be switched off: a module that uses it is then refused, and is told why and where."""

from __future__ import annotations

import pytest

from pywasmvm import InvalidError, MalformedError, Module
from pywasmvm import features as names
from pywasmvm.binary.decode import decode
from pywasmvm.binary.encode import encode
from pywasmvm.isa import ROWS
from pywasmvm.text.parser import parse_module
from pywasmvm.valid.features import _TYPED, Use, features_used, refuse, uses
from tests.support import binary as b

#: Fields of modules by the feature that they use beyond those that it implies.
USES: dict[str, list[str]] = {
    names.MUTABLE_GLOBALS: [
        '(import "m" "g" (global (mut i32)))',
        '(global (export "g") (mut i32) (i32.const 0))',
    ],
    names.SIGN_EXTENSION: ["(func (drop (i32.extend8_s (i32.const 0))))"],
    names.SATURATING: ["(func (drop (i32.trunc_sat_f32_s (f32.const 0))))"],
    names.MULTI_VALUE: [
        "(type (func (result i32 i32)))",
        "(func (i32.const 1) (block (param i32) (drop)))",
        "(func (drop (drop (loop (result i32 i64) (i32.const 0) (i64.const 0)))))",
    ],
    names.BULK_MEMORY: [
        "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        '(data "passive")',
        "(func) (elem func 0)",
    ],
    names.REFERENCE_TYPES: [
        "(table 1 externref)",
        "(table 1 funcref) (table 1 funcref)",
        "(func (param funcref))",
        "(func (result externref) (unreachable))",
        "(func (local funcref))",
        "(func (drop (block (result externref) (unreachable))))",
        "(func (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 3))))",
        "(func (drop (ref.null func)))",
        "(func) (elem declare func 0)",
        "(func) (table 1 funcref) (elem (i32.const 0) funcref (ref.func 0))",
        "(table 1 funcref) (elem (i32.const 0) funcref)",
        "(global externref (ref.null extern))",
        '(import "m" "g" (global externref))',
        '(import "m" "t" (table 1 externref))',
    ],
    names.SIMD: [
        "(func (param v128))",
        "(type (func (result v128)))",
        "(func (local v128))",
        "(func (drop (block (result v128) (unreachable))))",
        "(func (drop (v128.const i32x4 1 2 3 4)))",
        "(global v128 (v128.const i64x2 0 0))",
        '(import "m" "g" (global v128))',
        "(func (drop (select (result v128) (unreachable))))",
    ],
    names.RELAXED_SIMD: ["(func (drop (i8x16.relaxed_swizzle (unreachable))))"],
    names.TAIL_CALL: [
        "(func (return_call 0))",
        "(table 1 funcref) (func (return_call_indirect (i32.const 0)))",
    ],
    names.EXTENDED_CONST: [
        "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
        '(memory 1) (data (i32.mul (i32.const 1) (i32.const 2)) "x")',
        "(table 1 funcref) (func) (elem (i32.sub (i32.const 1) (i32.const 1)) func 0)",
    ],
    names.EXCEPTIONS: [
        "(tag)",
        '(import "m" "t" (tag))',
        "(func (local exnref))",
        "(func (param (ref null noexn)))",
        "(func (drop (ref.null exn)))",
        "(func (try_table))",
        "(func (throw_ref (unreachable)))",
    ],
    names.FUNCTION_REFERENCES: [
        "(func (param (ref func)))",
        "(type $f (func)) (func (local (ref null $f)))",
        "(type $f (func)) (func (drop (ref.null $f)))",
        "(type $f (func)) (func (call_ref $f (unreachable)))",
        "(func (block (br_on_null 0 (unreachable)) (drop)))",
        "(func $f) (table 1 (ref func) (ref.func $f))",
        "(table 1 funcref (ref.null func))",
        "(func) (elem (ref func) (ref.func 0))",
    ],
    names.GC: [
        "(type (struct))",
        "(type (array i8))",
        "(type (sub (func)))",
        "(rec (type (func)) (type (func)))",
        "(func (param anyref))",
        "(func (local i31ref))",
        "(global nullfuncref (ref.null nofunc))",
        "(func (drop (ref.null none)))",
        "(func (drop (ref.i31 (i32.const 0))))",
        "(func (drop (block (result eqref) (unreachable))))",
        "(global i32 (i32.const 1)) (global i32 (global.get 0))",
    ],
    names.MULTI_MEMORY: ["(memory 1) (memory 1)", '(import "m" "m" (memory 1)) (memory 1)'],
    names.MEMORY64: [
        "(memory i64 1)",
        "(table i64 1 funcref)",
        '(import "m" "m" (memory i64 1))',
        '(import "m" "t" (table i64 1 funcref))',
    ],
}

CASES = [(feature, fields) for feature, every in USES.items() for fields in every]


def without(feature: str) -> list[str]:
    """All features but this one and those that cannot be without it."""
    return [name for name in names.DEFAULT if name != feature and feature not in names.IMPLIES.get(name, ())]


def test_there_is_a_case_for_every_feature() -> None:
    assert set(USES) == names.DEFAULT - {names.MVP}


@pytest.mark.parametrize(("feature", "fields"), CASES)
def test_a_module_passes_with_the_feature_and_is_refused_without(feature: str, fields: str) -> None:
    data = encode(parse_module(f"(module {fields})"))
    Module(data)
    assert feature in features_used(decode(data))
    with pytest.raises((InvalidError, MalformedError)) as caught:
        Module(data, features=without(feature))
    if isinstance(caught.value, InvalidError):
        assert f"needs the feature {feature}, which is switched off" in caught.value.message
    else:  # the instructions of a feature that is off do not exist
        assert str(caught.value).startswith("illegal opcode")


@pytest.mark.parametrize(("feature", "fields"), CASES)
def test_text_is_refused_like_the_binary(feature: str, fields: str) -> None:
    text = f"(module {fields})"
    assert feature in features_used(parse_module(text))
    with pytest.raises((InvalidError, MalformedError)) as caught:
        Module.from_text(text, features=without(feature))
    if isinstance(caught.value, MalformedError):
        assert str(caught.value).startswith("unknown operator")


@pytest.mark.parametrize(("feature", "fields"), CASES)
def test_no_more_is_needed_than_what_is_used(feature: str, fields: str) -> None:
    used = features_used(parse_module(f"(module {fields})"))
    Module.from_text(f"(module {fields})", features=used)


FIRST_VERSION = """(module
  (import "m" "f" (func $f (param i32) (result f64))) (import "m" "g" (global $g i64))
  (table 1 funcref) (memory 1 2) (global (mut f32) (f32.const 1)) (global i64 (global.get $g))
  (export "f" (func $f)) (export "m" (memory 0)) (start 1) (elem (i32.const 0) func $f)
  (data (i32.const 0) "abc")
  (func (local i32 i64) (drop (block (result i32) (i32.add (i32.const 1) (i32.load (i32.const 0)))))
    (drop (call_indirect (param i32) (result f64) (i32.const 0) (i32.const 0)))
    (drop (select (i32.const 0) (i32.const 0) (i32.const 0)))))"""


def test_version_one_uses_no_proposal() -> None:
    assert uses(parse_module(FIRST_VERSION)) == []
    assert features_used(decode(encode(parse_module(FIRST_VERSION)))) == [names.MVP]
    Module.from_text(FIRST_VERSION, features=[])


def test_each_thing_once_with_its_first_place() -> None:
    text = """(module
      (func (param i32))
      (func (param v128) (drop (i32x4.add (local.get 0) (local.get 0))) (drop (i32x4.add (local.get 0)
        (local.get 0)))))"""
    assert uses(parse_module(text)) == [
        Use(names.SIMD, "a parameter of type v128", "type 1"),
        Use(names.SIMD, "i32x4.add", "function 1", text.index("i32x4.add"), 1, count=2),
    ]
    data = encode(parse_module(text))
    assert uses(decode(data))[1] == Use(
        names.SIMD, "i32x4.add", "function 1", data.index(b"\xfd\xae\x01"), 1, count=2
    )
    assert str(uses(decode(data))[0]) == "simd: a parameter of type v128 (type 1)"


def test_every_instruction_of_a_proposal_is_one_of_its_uses() -> None:
    """From the table: what has a feature in its row is reported under that feature."""
    simple = [row for row in ROWS if row.plain and row.feature != names.MVP]
    body = " ".join(f"unreachable {row.name}" for row in simple)
    found = {(use.feature, use.what) for use in uses(parse_module(f"(module (func {body}))"))}
    assert found == {(row.feature, row.name) for row in simple}
    assert len(simple) > 200


def test_the_refusal_says_where() -> None:
    module = decode(encode(parse_module("(module (func) (func (local externref)))")), features=[names.SIMD])
    with pytest.raises(InvalidError) as caught:
        refuse(module)
    assert caught.value.function == 1
    assert caught.value.message == (
        "a local of type externref in function 1 needs the feature reference-types, which is switched off"
    )


def test_a_type_is_said_to_belong_to_the_block_or_to_the_instruction() -> None:
    text = """(module (func (drop (block (result v128) (unreachable)))
      (drop (select (result v128) (unreachable) (unreachable) (i32.const 0)))))"""
    said = {use.what for use in uses(parse_module(text)) if use.feature == "simd"}
    assert said == {"a block of type v128", "select of type v128"}


def test_only_instructions_that_can_say_something_are_looked_at() -> None:
    """A body is mostly arithmetic: those rows are passed over at once."""
    assert {opcode.name for opcode in _TYPED} == {
        "block", "loop", "if", "try_table", "select", "ref.null", "ref.test", "ref.cast",
        "br_on_cast", "br_on_cast_fail",
    }  # fmt: skip


def test_a_count_of_data_segments_came_with_bulk_memory() -> None:
    data = b.module(b.section(12, b.u32(0)))
    Module(data)
    with pytest.raises(InvalidError, match="a count of data segments in data count section"):
        Module(data, features=without(names.BULK_MEMORY))
