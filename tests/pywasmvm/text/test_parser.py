"""Modules as a whole: identifiers before their definition, order of fields, errors with their place."""

from __future__ import annotations

import pytest

from pywasmvm import features
from pywasmvm.binary import custom
from pywasmvm.binary.decode import decode
from pywasmvm.comparison import same
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import Export
from pywasmvm.text.lexer import tokenize
from pywasmvm.text.parser import parse_module, parse_module_fields
from tests.support.wat import assembled


def refused(text: str | bytes) -> MalformedError:
    """The error that a text is refused with."""
    with pytest.raises(MalformedError) as caught:
        parse_module(text)
    return caught.value


@pytest.mark.parametrize("text", ["", "(module)", "(module $m)", "(@a) ((@a) module (@a))", ";; nothing"])
def test_empty_modules(text: str) -> None:
    module = parse_module(text)
    assert (module.functions, module.types, module.exports) == ([], [], [])


def test_the_word_module_may_be_left_out() -> None:
    fields = '(func $f (export "f")) (memory 1)'
    assert same(parse_module(fields), parse_module(f"(module {fields})")) is None
    assert same(parse_module(fields), parse_module(f"(module {fields})".encode())) is None


def test_identifiers_may_be_used_before_they_are_bound() -> None:
    module = parse_module(
        """
        (export "f" (func $f)) (start $f) (elem (table $t) (i32.const 0) func $f $g)
        (data (memory $m) (global.get $i) "x")
        (func $g (type $late) call $f global.get $i drop throw $e)
        (func $f memory.size $m drop table.size $t drop data.drop $d elem.drop $p)
        (data $d "") (elem $p funcref)
        (tag $e) (table $t 2 funcref) (memory $m 1) (global $i i32 (i32.const 0)) (type $late (func))
        """
    )
    assert module.exports == [Export("f", "func", 1)]
    assert module.start == 1
    assert module.elems[0].items == [1, 0]
    assert module.types[module.functions[0]] is module.types[0]


def test_imports_come_first_in_their_index_space() -> None:
    module = parse_module(
        '(import "m" "f" (func $a)) (func $b (import "m" "g")) (func $c) (export "a" (func $a))'
        '(export "b" (func $b)) (export "c" (func $c)) (export "0" (func 0))'
    )
    assert [export.index for export in module.exports] == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("field", "called"),
    [
        ("(func)", "function"),
        ("(table 1 funcref)", "table"),
        ("(memory 1)", "memory"),
        ("(global i32 i32.const 0)", "global"),
        ("(tag)", "tag"),
    ],
)
@pytest.mark.parametrize(
    "late", ['(import "" "" (func))', '(memory (import "" "") 1)', '(tag (import "" ""))']
)
def test_no_import_after_a_definition(field: str, called: str, late: str) -> None:
    assert refused(field + late).message == f"import after {called}"
    for other in ('(export "a" (func 0))', "(type (func))", "(start 0)", "(elem func)", '(data "")'):
        parse_module(other + late)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(func $a) (func $a)", "func"),
        ('(import "" "" (func $a)) (func $a)', "func"),
        ("(table $a 0 funcref) (table $a 0 funcref)", "table"),
        ("(memory $a 0) (memory $a 0)", "memory"),
        ("(global $a i32 i32.const 0) (global $a i32 i32.const 0)", "global"),
        ("(tag $a) (tag $a)", "tag"),
        ("(type $a (func)) (rec (type $a (func)))", "type"),
        ("(elem $a func) (elem $a func)", "elem"),
        ('(data $a "") (data $a "")', "data"),
        ("(func (param $a i32) (local $a i32))", "local"),
        ("(type (struct (field $a i32) (field $a i32)))", "field"),
        (r'(func $a) (func $"\61")', "func"),
    ],
)
def test_a_name_is_bound_once(text: str, what: str) -> None:
    assert refused(text).message.startswith(f"duplicate {what}")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(start $x)", "func"),
        ("(func call $x)", "func"),
        ("(func (type $x))", "type"),
        ("(func local.get $x)", "local"),
        ("(func global.get $x)", "global"),
        ("(func br $x)", "label"),
        ("(func block $x end br $x)", "label"),
        ("(func (drop (block $x (result i32) (i32.const 1))) (br $x))", "label"),
        ("(func try_table $x (catch_all $x) end)", "label"),
        ("(func throw $x)", "tag"),
        ("(func i32.load $x)", "memory"),
        ("(func data.drop $x)", "data"),
        ("(func elem.drop $x)", "elem"),
        ("(func table.get $x)", "table"),
        ("(type $s (struct (field $y i32))) (func struct.get $s $x)", "field"),
        ("(type (sub $x (func)))", "type"),
        ("(global (ref $x) ref.null func)", "type"),
        ('(export "" (memory $x))', "memory"),
    ],
)
def test_a_name_that_nobody_bound(text: str, what: str) -> None:
    assert refused(text).message.startswith(f"unknown {what}")


@pytest.mark.parametrize(
    "text",
    [
        "(start 9)",
        "(func call 9)",
        "(func (type 9))",
        "(func br 9)",
        "(func local.get 9)",
        '(export "" (tag 9))',
    ],
)
def test_numbers_are_left_to_validation(text: str) -> None:
    parse_module(text)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("(module\n  (func\n    i32.konst 1))", 3, 5),
        ("(module (funk))", 1, 10),
        ("(module (func (drop (i32.const 99999999999))))", 1, 32),
        ("(module (func)", 1, 1),
        ("(module) )", 1, 10),
        ("(module) (module)", 1, 10),
        ("(func) func", 1, 8),
        ("(func\n(@a é))", 2, 5),
        ('(export "é" (func $x))', 1, 19),
        ("(func (param $x i32) (param $x i32))", 1, 29),
        ("(func block $a\nend $b)", 2, 5),
        (b"\n \xff", 2, 2),
        (";; \xff".encode("latin-1"), 1, 4),
    ],
)
def test_errors_say_where(text: str | bytes, line: int, column: int) -> None:
    error = refused(text)
    assert (error.line, error.column) == (line, column)
    assert str(error).endswith(f"(line {line}, column {column})")


@pytest.mark.parametrize(
    "text",
    [
        "(module (module))",
        "(module $a $b)",
        "(module 1)",
        "()",
        "(func) $x",
        '"text"',
        "(start)",
        "(start $f) (start $f) (func $f)",
        "(start 0 0)",
        '(export "a")',
        '(export "a" (func))',
        '(export "a" (func 0) (func 0))',
        '(export "\\ff" (func 0))',
        "(export a (func 0))",
        '(import "a" (func))',
        '(import "a" "b" (type (func)))',
        '(import "a" "b" (func) (func))',
        '(import "a" "b" (global i32 (i32.const 1)))',
        '(func (import "a" "b") (nop))',
        '(func (import "a" "b") (export "c"))',
        '(memory (import "a" "b") (data ""))',
        '(import "a" "b" (func (export "c")))',
        "(type)",
        "(rec (func))",
        "(type (func) (func))",
    ],
)
def test_what_is_no_field(text: str) -> None:
    refused(text)


def test_rows_of_features_that_are_off_are_unknown() -> None:
    some = features.DEFAULT - {features.SIMD, features.RELAXED_SIMD, features.TAIL_CALL, features.GC}
    for text in ("(func v128.const i32x4 0 0 0 0)", "(func (return_call 0))", "(func i32.const 1 ref.i31)"):
        parse_module(text)
        with pytest.raises(MalformedError, match=r"^unknown operator"):
            parse_module(text, features=some)


def test_modules_inside_of_a_larger_source() -> None:
    source = b'(assert (module $x (func $f (export "f"))) (module (@name "y")) (module (func $g)))'
    tokens = tokenize(source)
    begin = source.index(b"(func $f")
    first = parse_module_fields(
        tokens, tokens.starts.index(begin), tokens.close(tokens.starts.index(begin)) + 1, name="x"
    )
    assert custom.names(first).module == "x"
    assert custom.names(first).functions == {0: "f"}
    assert first.bodies is not None
    assert list(first.bodies[0].offsets) == [source.index(b")) (module (@")]
    second = tokens.starts.index(source.index(b"(func $g"))
    assert custom.names(parse_module_fields(tokens, second, len(tokens) - 2)).functions == {0: "g"}
    third = tokens.starts.index(source.index(b") (module (func $g"))
    assert custom.names(parse_module_fields(tokens, third, third)).module == "y"


def test_offsets_are_those_of_the_keywords() -> None:
    text = "(func (if (i32.const 1) (then (drop (i32.const 2))) (else nop)) block $l end $l)"
    module = parse_module(text)
    assert module.text == text.encode()
    assert module.bodies is not None
    code = module.bodies[0]
    for opcode, offset in zip(code.ops, code.offsets, strict=True):
        assert text[offset:].startswith((opcode.name, ")"))


def test_names_are_those_that_other_tools_write() -> None:
    """All index spaces, locals, labels and fields; quoted identifiers too."""
    text = r"""
        (module $the
          (type $t (func (param i32 i32))) (type $s (struct (field $x i32) (field i32) (field $y i32)))
          (import "" "" (func $imported (param $p i32)))
          (table $tab 1 funcref) (memory $mem 1) (tag $tag) (global $glob i32 (i32.const 0))
          (func $f (type $t) (local $l i64) (local i32) (local $m i32)
            (block (block $inner (if $cond (block $early (result i32) (i32.const 1)) (then (loop $late))))))
          (func $"two words" (param i32) (param $q i32) (block $a (block $a)))
          (elem $seg func) (data $bytes ""))
        """
    assert same(parse_module(text), decode(assembled(text))) is None


def test_no_identifiers_no_name_section() -> None:
    assert parse_module("(func (param i32) (block)) (type (struct (field i32)))").customs == []


def test_segments_are_counted_where_code_names_one() -> None:
    for text in (
        '(data "") (func data.drop 0)',
        '(data "") (func i32.const 0 i32.const 0 array.new_data 0 0)',
    ):
        assert parse_module(text).data_count == 1
    assert parse_module('(data "") (func (memory.init 0 (nop) (nop) (nop)))').data_count == 1
    assert parse_module('(data "") (func)').data_count is None
