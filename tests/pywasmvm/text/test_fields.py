"""Fields of modules: each abbreviation is what the specification says it stands for."""

from __future__ import annotations

import pytest

from pywasmvm.binary.decode import decode
from pywasmvm.comparison import same
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import Export
from pywasmvm.text.parser import parse_module
from pywasmvm.types import FUNCREF, I64, GlobalType, Limits, MemoryType, TableType
from tests.support.wat import assembled

#: What stands for what; the longer form says it all.
SHORT_AND_LONG = [
    ('(func (export "a") (export "b"))', '(func) (export "a" (func 0)) (export "b" (func 0))'),
    ('(func $f (import "m" "n") (param i32))', '(import "m" "n" (func $f (param i32)))'),
    (
        '(func $f (export "e") (import "m" "n") (type 0)) (type (func))',
        '(import "m" "n" (func $f (type 0))) (export "e" (func $f)) (type (func))',
    ),
    ('(table (import "m" "n") i64 1 funcref)', '(import "m" "n" (table i64 1 funcref))'),
    ('(memory (export "e") (import "m" "n") 1 2)', '(import "m" "n" (memory 1 2)) (export "e" (memory 0))'),
    ('(global (import "m" "n") (mut i32))', '(import "m" "n" (global (mut i32)))'),
    (
        '(tag (export "e") (import "m" "n") (param i32))',
        '(import "m" "n" (tag (param i32))) (export "e" (tag 0))',
    ),
    ("(memory (data))", "(memory 0 0) (data (memory 0) (offset (i32.const 0)))"),
    ('(memory (data "a" "\\00"))', '(memory 1 1) (data (i32.const 0) "a\\00")'),
    ('(memory i64 (data "x"))', '(memory i64 1 1) (data (offset i64.const 0) "x")'),
    (
        '(memory 1) (memory $m (export "e") (data "x"))',
        '(memory 1) (memory $m 1 1) (export "e" (memory 1)) (data (memory $m) (i32.const 0) "x")',
    ),
    (f'(memory (data "{"x" * 65537}"))', f'(memory 2 2) (data (i32.const 0) "{"x" * 65537}")'),
    (
        "(func) (table funcref (elem 0 0))",
        "(func) (table 2 2 funcref) (elem (table 0) (offset (i32.const 0)) func 0 0)",
    ),
    (
        "(func) (table $t i64 funcref (elem (ref.func 0) (item ref.null func)))",
        "(func) (table $t i64 2 2 funcref)"
        " (elem (table $t) (i64.const 0) funcref (item (ref.func 0)) (item (ref.null func)))",
    ),
    (
        "(type $f (func)) (func) (table (ref null $f) (elem 0))",
        "(type $f (func)) (func) (table 1 1 (ref null $f))"
        " (elem (i32.const 0) (ref null $f) (item ref.func 0))",
    ),
    ("(table funcref (elem))", "(table 0 0 funcref) (elem (i32.const 0) func)"),
    (
        "(table externref (elem (ref.null extern)))",
        "(table 1 1 externref) (elem (i32.const 0) externref (ref.null extern))",
    ),
    ("(table i32 1 funcref) (memory i32 1)", "(table 1 funcref) (memory 1)"),
    ("(table 1 funcref (ref.null func))", "(table 1 funcref ref.null func)"),
    ("(func) (elem (i32.const 0) 0)", "(func) (elem (offset i32.const 0) func 0)"),
    ("(elem (i32.const 0))", "(elem (table 0) (offset (i32.const 0)) func)"),
    (
        "(elem (i32.const 0) funcref (ref.null func))",
        "(elem (table 0) (offset (i32.const 0)) funcref (item ref.null func))",
    ),
    ("(data (i32.const 0))", '(data (memory 0) (offset (i32.const 0)) "" "")'),
    (
        '(data (i32.add (i32.const 1) (i32.const 2)) "a")',
        '(data (offset i32.const 1 i32.const 2 i32.add) "a")',
    ),
    ("(global i32 (i32.add (i32.const 1) (i32.const 2)))", "(global i32 i32.const 1 i32.const 2 i32.add)"),
    ("(type (func (param i32 i32)))", "(rec (type (sub final (func (param i32) (param i32)))))"),
]


@pytest.mark.parametrize(("short", "long"), SHORT_AND_LONG)
def test_abbreviations(short: str, long: str) -> None:
    assert same(parse_module(short), parse_module(long)) is None


@pytest.mark.parametrize("text", [text for pair in SHORT_AND_LONG for text in pair if len(text) < 1000])
def test_another_parser_reads_the_same(text: str) -> None:
    try:
        theirs = decode(assembled(f"(module {text})"))
    except ValueError:
        with pytest.raises(MalformedError):
            parse_module(text)
    else:
        assert same(parse_module(text), theirs) is None


def test_types_of_imports() -> None:
    module = parse_module(
        '(import "m" "t" (table $t 1 2 funcref)) (import "m" "m" (memory i64 3))'
        '(import "m" "g" (global (mut i64)))'
    )
    assert [entry.type for entry in module.imports] == [
        TableType(FUNCREF, Limits(1, 2)),
        MemoryType(Limits(3), I64),
        GlobalType(I64, True),
    ]


def test_exports_keep_their_order() -> None:
    module = parse_module(
        '(export "z" (func 0)) (func (export "a")) (export "" (memory 0)) (memory (export "é") 1)'
    )
    assert module.exports == [
        Export("z", "func", 0),
        Export("a", "func", 0),
        Export("", "memory", 0),
        Export("é", "memory", 0),
    ]


def test_modes_of_element_segments() -> None:
    module = parse_module(
        "(func) (table 1 funcref) (elem func 0) (elem declare func 0) (elem (i32.const 0) 0) (elem funcref)"
        "(elem (ref null func) (ref.null func)) (elem declare externref)"
        "(elem (table 0) (i32.const 0) anyref)"
    )
    assert [elem.mode for elem in module.elems] == [
        "passive",
        "declarative",
        "active",
        "passive",
        "passive",
        "declarative",
        "active",
    ]


def test_data_segments() -> None:
    module = parse_module(
        '(memory 1) (memory 1) (data "a\\ff" "b") (data (memory 1) (i32.const -1) "c") (data (nop))'
    )
    data = module.data
    assert data.memory == [-1, 1, 0]
    assert data.offset[:2] == [None, 0xFFFFFFFF]
    found = [
        module.source[start : start + length] for start, length in zip(data.start, data.length, strict=True)
    ]
    assert found == [b"a\xffb", b"c", b""]


@pytest.mark.parametrize(
    "text",
    [
        "(memory (data a))",
        '(memory 1 (data "a"))',
        '(memory (data "a") (data "b"))',
        "(table funcref)",
        "(table funcref (elem) (elem))",
        "(table funcref (elem 0 (ref.func 0)))",
        "(table funcref (elem func 0))",
        "(table 1 funcref (elem 0))",
        "(table i64 (elem 0))",
        "(elem)",
        "(elem 0)",
        "(elem $e 0)",
        "(elem (table 0) func 0)",
        "(elem (table 0) (i32.const 0) 0)",
        "(elem declare 0)",
        "(elem declare)",
        "(elem func (ref.func 0))",
        "(elem funcref 0)",
        "(elem funcref (item))x",
        "(elem i32)",
        "(elem (offset (i32.const 0) func 0)",
        '(data (memory 0) "a")',
        '(data (memory $m) (i32.const 0) "a")',
        "(data (i32.const 0) a)",
        '(data "a" (i32.const 0))',
        '(data i32.const 0 "a")',
        "(data (memory) (i32.const 0))",
        '(global i32 (i32.const 0) (export "a"))',
        '(global (export "a") (mut i32 (i32.const 0)))',
        "(func (export))",
        "(func (export a))",
        '(func (import "a"))',
        '(func (import "a" "b") (import "c" "d"))',
        "(func $f $g)",
        "(tag (result $x i32))",
        "(tag i32)",
        "(start 0 (func))",
    ],
)
def test_what_is_no_field(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_module(text)
    with pytest.raises(ValueError):  # noqa: PT011
        assembled(f"(module {text})")
