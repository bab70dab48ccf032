"""Whether two modules are the same: every difference is found, and named; what does not count does not."""

from __future__ import annotations

import pytest

from pywasmvm.binary.decode import decode
from pywasmvm.comparison import same
from pywasmvm.text.parser import parse_module
from tests.support import binary as b

BASE = """(module
  (type (func)) (import "m" "f" (func (type 0))) (table 1 funcref) (memory 1) (tag (type 0))
  (global i32 (i32.const 1))
  (export "f" (func 0)) (start 0) (elem (i32.const 0) func 0) (data (i32.const 0) "abc")
  (func (type 0) (local i32) f64.const 0 drop f32.const nan drop))"""


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("(type (func))", "(type (sub (func)))", "types: [0]: "),
        ("(type (func))", "(rec (type (func)))(type (func))", "types: 1 entries and 2"),
        ('"m" "f"', '"m" "g"', "imports: [0]: "),
        ("(table 1", "(table 2", "tables: [0][0]: "),
        ("(table 1 funcref", "(table 1 funcref (ref.null func)", "tables: [0][1]: None and "),
        ("(memory 1", "(memory i64 1", "memories: [0]: "),
        ("(tag (type 0))", "", "tags: 1 entries and 0"),
        ("(i32.const 1)", "(i32.const 2)", "globals: [0][1][2][0]: 1 and 2"),
        ('"f" (func 0)', '"f" (func 1)', "exports: [0]: "),
        ("(start 0)", "(start 1)", "start: 0 and 1"),
        ("(elem (i32.const 0)", "(elem (i32.const 3)", "element segments: [0][3][2][0]: 0 and 3"),
        ("func 0) (data", "func 1) (data", "element segments: [0][4][0]: 0 and 1"),
        ("(elem (i32.const 0)", "(elem declare", "element segments: [0][1]: 'active' and 'declarative'"),
        ('"abc"', '"abd"', "data segments: [0][2]: b'abc' and b'abd'"),
        ("(local i32)", "(local i64)", "function 1: [0][0][0]: i32 and i64"),
        ("f64.const 0", "f64.const -0", "function 1: [2][0][1]: 0 and 9223372036854775808"),
        ("f32.const nan", "f32.const -nan", "function 1: [2][2]"),
        ("drop))", "))", "function 1: [1]: 5 entries and 4"),
        ("(func (type 0) (local", "(func) (func (type 0) (local", "functions: 1 entries and 2"),
        ("(module", "(module $named", "custom sections: 0 entries and 1"),
    ],
)
def test_differences_have_names(old: str, new: str, difference: str) -> None:
    assert BASE.count(old) == 1, "the case must change one thing"
    found = same(parse_module(BASE), parse_module(BASE.replace(old, new)))
    assert found is not None
    assert found.startswith(difference)


def test_positions_do_not_count() -> None:
    assert same(parse_module(BASE), parse_module(";; a comment\n" + BASE)) is None


def test_recursion_groups_count() -> None:
    alone, group = "(type (func)) (type (func))", "(rec (type (func)) (type (func)))"
    found = same(parse_module(f"(module {alone})"), parse_module(f"(module {group})"))
    assert found == "recursion groups: 2 entries and 1"


def with_body(locals_: bytes) -> bytes:
    return b.module(b.types(b.functype()), b.functions(0), b.code(b.body(b"", locals_)))


def test_runs_of_locals_may_be_cut_up() -> None:
    whole = decode(with_body(b.vec([b"\3" + b.I32, b"\1" + b.I64])))
    cut = decode(with_body(b.vec([b"\1" + b.I32, b"\2" + b.I32, b"\0" + b.F32, b"\1" + b.I64])))
    other = decode(with_body(b.vec([b"\2" + b.I32, b"\2" + b.I64])))
    assert same(whole, cut) is None
    assert same(whole, other) == "function 0: [0][0][1]: 3 and 2"


def test_the_order_of_custom_sections_counts_only_among_those_of_one_name() -> None:
    a, other, last = b.custom("a", b"1"), b.custom("b", b"2"), b.custom("a", b"3")
    assert same(decode(b.module(a, other, last)), decode(b.module(other, a, last))) is None
    assert same(decode(b.module(a, last)), decode(b.module(last, a))) is not None


def test_nans_are_equal_when_their_bits_are() -> None:
    text = "(module (func f32.const nan:0x200000 drop f64.const -nan:0x1 drop))"
    assert same(parse_module(text), parse_module(text)) is None
    assert same(parse_module(text), parse_module(text.replace("0x200000", "0x200001"))) is not None
