"""Module-level rules: limits, segments, start, exports, declared functions, order of index spaces."""

from __future__ import annotations

from array import array

import pytest

from pywasmvm.errors import InvalidError
from pywasmvm.features import DEFAULT
from pywasmvm.isa import op
from pywasmvm.syntax import Code, DataSegments, ModuleSyntax, Table
from pywasmvm.types import FUNCREF, I64, HeapType, Limits, MemoryType, TableType
from pywasmvm.valid.module import validate_module
from tests.support import binary as b
from tests.support.validation import accepted, refusal
from tests.support.wat import wat


def message(module: str | bytes) -> str:
    return refusal(module).message


def memory(flags: int, *limits: int) -> bytes:
    return b.module(b.section(5, b.vec([bytes([flags]) + b"".join(map(b.u32, limits))])))


def table(flags: int, *limits: int) -> bytes:
    return b.module(b.section(4, b.vec([b.FUNCREF + bytes([flags]) + b"".join(map(b.u32, limits))])))


def test_memory_limits() -> None:
    accepted(memory(0, 65536))
    accepted(memory(1, 0, 65536))
    accepted(memory(1, 7, 7))
    assert message(memory(0, 65537)).startswith("memory size must be at most 65536 pages (4GiB)")
    assert message(memory(1, 0, 65537)).startswith("memory size")
    assert message(memory(0, 0xFFFFFFFF)).startswith("memory size")
    assert message(memory(1, 8, 7)) == "size minimum must not be greater than maximum"
    assert message('(module (import "m" "m" (memory 65537)))').startswith("memory size")
    assert message('(module (import "m" "m" (memory 2 1)))').startswith("size minimum")


def test_table_limits() -> None:
    accepted(table(0, 0xFFFFFFFF))
    accepted(table(1, 0, 0xFFFFFFFF))
    accepted(table(1, 7, 7))
    assert message(table(1, 8, 7)) == "size minimum must not be greater than maximum"
    assert message('(module (import "m" "t" (table 2 1 funcref)))').startswith("size minimum")


def test_sizes_beyond_the_format_are_refused_too() -> None:
    for limits in (Limits(2**32), Limits(0, 2**32)):
        with pytest.raises(InvalidError, match="table size must be at most"):
            validate_module(ModuleSyntax(b"", DEFAULT, tables=[Table(TableType(FUNCREF, limits))]))


def test_any_number_of_memories() -> None:
    accepted("(module (memory 1) (memory 1))")
    accepted('(module (import "m" "m" (memory 1)) (memory 1) (memory i64 1))')


def test_types_of_functions_must_exist() -> None:
    assert message(b.module(b.functions(0), b.code(b.body(b"")))) == "unknown type 0"
    assert message(b.module(b.types(b.functype()), b.functions(1), b.code(b.body(b"")))) == "unknown type 1"
    assert message(b.module(b.section(2, b.vec([b.name("m") + b.name("f") + b"\0\3"])))) == "unknown type 3"


def test_start() -> None:
    accepted("(module (func) (start 0))")
    accepted('(module (import "m" "f" (func)) (start 0))')
    assert message("(module (func (param i32)) (start 0))").startswith("start function")
    assert message("(module (func (result i32) i32.const 0) (start 0))").startswith("start function")
    assert message("(module (func) (start 1))") == "unknown function 1"


@pytest.mark.parametrize("kind", ["func", "table", "memory", "global"])
def test_exports_name_something_that_exists(kind: str) -> None:
    assert message(f'(module (export "x" ({kind} 0)))').startswith(
        f"unknown {kind.replace('func', 'function')} 0"
    )


def test_exports_have_distinct_names() -> None:
    accepted('(module (func (export "a") (export "b")) (memory (export "c") 0))')
    accepted('(module (func (export "a")) (func (export "A")))')
    assert message('(module (func (export "a") (export "a")))').startswith("duplicate export name")
    assert message('(module (func (export "a")) (memory (export "a") 0))').startswith("duplicate export name")


class TestElements:
    def test_active(self) -> None:
        accepted("(module (table 1 funcref) (func) (elem (i32.const 0) 0))")
        accepted("(module (table 1 externref) (elem (table 0) (i32.const 0) externref (ref.null extern)))")
        accepted('(module (import "m" "g" (global i32)) (table 1 funcref) (elem (global.get 0) func))')
        assert message("(module (func) (elem (i32.const 0) 0))") == "unknown table 0"
        assert message("(module (table 1 funcref) (elem (table 1) (i32.const 0) func))") == "unknown table 1"
        assert message("(module (table 1 funcref) (elem (i64.const 0) func))").startswith("type mismatch")
        assert message("(module (table 1 funcref) (elem (nop) func))").startswith(
            "constant expression required"
        )
        assert message("(module (table 1 externref) (func) (elem (i32.const 0) func 0))").startswith(
            "type mismatch"
        )

    def test_the_table_and_the_segment_have_one_type(self) -> None:
        text = "(module (table 1 funcref) (elem (table 0) (i32.const 0) externref (ref.null extern)))"
        assert message(text).startswith("type mismatch")

    @pytest.mark.parametrize("mode", ["", "declare"])
    def test_functions_must_exist(self, mode: str) -> None:
        accepted(f"(module (func) (elem {mode} func 0))")
        error = refusal(f"(module (func) (elem {mode} func 0 1))")
        assert error.message == "unknown function 1"
        assert error.offset is not None
        assert message(f"(module (elem {mode} funcref (ref.func 3)))") == "unknown function 3"

    def test_an_error_in_an_item_is_placed_at_the_instruction(self) -> None:
        data = wat("(module (elem externref (ref.null extern) (i32.const 0)))")
        error = refusal(data)
        assert error.offset is not None
        assert data[error.offset - 2 : error.offset + 1] == b"\x41\0\x0b"

    def test_expressions_have_the_type_of_the_segment(self) -> None:
        accepted("(module (elem funcref (ref.null func)))")
        assert message("(module (elem funcref (ref.null extern)))").startswith("type mismatch")
        assert message("(module (elem externref (i32.const 0)))").startswith("type mismatch")
        error = refusal("(module (func) (elem funcref (item ref.func 0 ref.func 0)))")
        assert error.message.startswith("type mismatch")
        assert error.instruction == "end"


class TestData:
    def test_active(self) -> None:
        accepted('(module (memory 1) (data (i32.const 0) "a"))')
        accepted('(module (import "m" "g" (global i32)) (memory 1) (data (global.get 0) "a"))')
        accepted('(module (data "passive"))')
        assert message('(module (data (i32.const 0) "a"))') == "unknown memory 0"
        assert message(b.module(b.section(11, b.vec([b"\2\1\x41\0\x0b\0"])))) == "unknown memory 1"
        assert message('(module (memory 1) (data (i64.const 0) "a"))').startswith("type mismatch")
        assert message('(module (memory 1) (data (offset) "a"))').startswith("type mismatch")
        assert message('(module (memory 1) (data (offset i32.const 0 i32.const 0) "a"))').startswith(
            "type mismatch"
        )
        assert message('(module (memory 1) (data (i32.ctz (i32.const 0)) "a"))').startswith(
            "constant expression"
        )
        assert message('(module (memory 1) (data (global.get 0) "a"))') == "unknown global 0"

    def test_memory_init_and_data_drop_name_a_segment(self) -> None:
        def module(index: int) -> str:
            text = f"i32.const 0 i32.const 0 i32.const 0 memory.init {index} data.drop {index}"
            return f'(module (memory 1) (func {text}) (data "a"))'

        accepted(module(0))
        assert message(module(1)) == "unknown data segment 1"

    def test_the_data_count_says_which_segments_there_are(self) -> None:
        drop = b"\xfc\x09\1"
        body = b.code(b.body(drop))
        head = (b.types(b.functype()), b.functions(0))
        data = b.section(11, b.vec([b"\1\0", b"\1\0"]))
        accepted(b.module(*head, b.section(12, b"\2"), body, data))
        one = b.section(11, b.vec([b"\1\0"]))
        assert message(b.module(*head, b.section(12, b"\1"), body, one)) == "unknown data segment 1"


def test_an_offset_in_a_64_bit_memory_is_an_i64() -> None:
    data = DataSegments(memory=[0], offset=[5], start=[3], length=[0])
    syntax = ModuleSyntax(b"", DEFAULT, memories=[MemoryType(Limits(1), I64)], data=data)
    with pytest.raises(InvalidError, match="type mismatch: expected i64, found i32") as caught:
        validate_module(syntax)
    assert caught.value.offset == 3


@pytest.mark.parametrize(("name", "immediate", "message"), [
    ("ref.null", HeapType.EXTERN, "type mismatch"),
    ("i32.const", 0, "type mismatch"),
    ("ref.func", 0, "unknown function 0"),
    ("global.get", 0, "unknown global 0"),
])  # fmt: skip
def test_the_initial_element_of_a_table_is_constant(name: str, immediate: object, message: str) -> None:
    def syntax(name: str, immediate: object) -> ModuleSyntax:
        init = Code((), [op(name), op("end")], [immediate, None], array("Q", [0, 1]))
        return ModuleSyntax(b"", DEFAULT, tables=[Table(TableType(FUNCREF, Limits(1)), init)])

    validate_module(syntax("ref.null", HeapType.FUNC))
    with pytest.raises(InvalidError, match=message):
        validate_module(syntax(name, immediate))


class TestDeclaredFunctions:
    """`ref.func` in code names only functions that occur outside of bodies."""

    BODY = "(func (result funcref) ref.func 0)"

    @pytest.mark.parametrize(
        "where",
        [
            '(export "f" (func 0))',
            "(elem declare func 0)",
            "(elem func 0)",
            "(elem funcref (ref.func 0))",
            "(global funcref (ref.func 0))",
            "(table 1 funcref) (elem (i32.const 0) 0)",
        ],
    )
    def test_declared(self, where: str) -> None:
        accepted(f"(module {self.BODY} {where})")

    @pytest.mark.parametrize(
        "where", ["", "(global i32 (i32.const 0))", '(export "m" (memory 0)) (memory 1)', "(start 1) (func)"]
    )
    def test_undeclared(self, where: str) -> None:
        assert message(f"(module {self.BODY} {where})") == "undeclared function reference"

    def test_other_exports_declare_nothing(self) -> None:
        assert (
            message(f'(module {self.BODY} (table (export "t") 1 funcref))') == "undeclared function reference"
        )

    def test_other_functions_are_not_declared_along(self) -> None:
        assert (
            message("(module (func) (func ref.func 1 drop) (elem func 0))") == "undeclared function reference"
        )


def test_types_have_bounded_sizes() -> None:
    """The limits that all engines share: exactly so many, and not one more."""
    for kind, most in (("param i32", 1_000), ("result i32", 1_000), ("field i32", 10_000)):

        def text(count: int, kind: str = kind) -> str:
            word = "struct" if kind.startswith("field") else "func"
            return f"(module (type ({word} {f'({kind})' * count})))"

        accepted(text(most))
        assert message(text(most + 1)) == (
            f"type 0 has {most + 1} parameters, results or fields: more than {most}"
        )
    accepted(f"(module (type (array i32)) (type (func (param {'i32 ' * 999}))))")
