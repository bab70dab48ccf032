"""Scripts to commands: forms, names, lines, constants, and what breaks the grammar."""

from __future__ import annotations

import pytest

from pywasmvm import MalformedError
from pywasmvm.numerics.bits import F32NaN
from pywasmvm.script.commands import (
    AssertFailure,
    AssertReturn,
    BinaryModule,
    Command,
    Define,
    Get,
    Instantiate,
    Invoke,
    QuotedModule,
    Register,
    TextModule,
    Unreadable,
)
from pywasmvm.script.match import Either, Exact, Host, HostRef, Lanes, NaN, Null, Reference
from pywasmvm.script.parse import parse_script
from pywasmvm.types import F32, F64, I32, I64, V128, HeapType, ref


def commands(text: str) -> list[Command]:
    return parse_script(text.encode()).commands


def command(text: str) -> Command:
    (only,) = commands(text)
    return only


def test_modules_in_all_forms() -> None:
    text, named, binary, quoted, definition = commands(
        """(module (func))
        (module $m)
        (module $b binary "\\00asm" "\\01\\00\\00\\00")
        (module quote "(func" ")")
        (module definition $d (memory 1))"""
    )
    assert text == Define(1, TextModule(1, None, 2, 5), True)
    assert isinstance(named, Define)
    assert (named.line, named.source.name, named.kind) == (2, "m", "module")
    assert binary == Define(3, BinaryModule(3, "b", b"\0asm\1\0\0\0"), True)
    assert quoted == Define(4, QuotedModule(4, None, b"(func)"), True)
    assert isinstance(definition, Define)
    assert (definition.source.name, definition.kind) == ("d", "module definition")


def test_the_tokens_of_a_text_module_parse() -> None:
    script = parse_script(b'(register "x") ((@note) module (@a) $m (func $f) (func (call $f)))')
    module = script.commands[1]
    assert isinstance(module, Define)
    assert isinstance(module.source, TextModule)
    assert module.source.name == "m"
    assert len(script.parse(module.source).functions) == 2


def test_a_script_may_be_the_fields_of_one_module() -> None:
    script = parse_script(b"(func) (memory 0)")
    (module,) = script.commands
    assert isinstance(module, Define)
    assert isinstance(module.source, TextModule)
    assert len(script.parse(module.source).memories) == 1


def test_no_commands() -> None:
    assert commands("") == []
    assert commands(";; nothing\n(; at all ;) (@note)") == []


def test_instances_and_registering() -> None:
    assert command("(module instance)") == Instantiate(1, None, None)
    assert command("(module instance $i $d)") == Instantiate(1, "i", "d")
    assert command('(register "M" $i)') == Register(1, "M", "i")
    assert command('(register "\\u{e9}")') == Register(1, "é", None)


def test_actions() -> None:
    assert command('(get $m "g")') == Get(1, "m", "g")
    assert command('(invoke "f")') == Invoke(1, None, "f", (), ())
    found = command('(invoke $"m n" "f" (i32.const -1) (i64.const 0x10) (f32.const 0.5) (f64.const -inf))')
    assert found == Invoke(1, "m n", "f", (0xFFFFFFFF, 16, 0.5, float("-inf")), (I32, I64, F32, F64))


def test_constants_are_exact() -> None:
    found = command('(invoke "f" (f32.const -nan:0x200000) (v128.const i16x8 1 -1 0 0 0 0 0 0x8000))')
    assert isinstance(found, Invoke)
    nan, vector = found.arguments
    assert isinstance(nan, F32NaN)
    assert nan.bits == 0xFFA00000
    assert vector == 0x8000_0000_0000_0000_0000_0000_FFFF_0001
    assert found.types == (F32, V128)


def test_references_as_arguments() -> None:
    found = command('(invoke "f" (ref.null extern) (ref.extern 1) (ref.host 2) (ref.null exn))')
    assert isinstance(found, Invoke)
    assert found.arguments == (None, HostRef(1), HostRef(2), None)
    wanted = [(True, HeapType.EXTERN), (False, HeapType.EXTERN), (False, HeapType.ANY), (True, HeapType.EXN)]
    assert found.types == tuple(ref(*t) for t in wanted)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("(i32.const 7)", Exact(I32, 7)),
        ("(f64.const -0)", Exact(F64, 1 << 63)),
        ("(f32.const nan:canonical)", NaN(F32, "nan:canonical")),
        ("(f64.const nan:arithmetic)", NaN(F64, "nan:arithmetic")),
        ("(v128.const i64x2 1 2)", Exact(V128, 2 << 64 | 1)),
        ("(v128.const f32x4 0 0 0 1)", Exact(V128, 0x3F800000 << 96)),
        ("(v128.const f64x2 nan:canonical 0)", Lanes(64, ("nan:canonical", 0))),
        ("(either (i32.const 1) (i32.const 2))", Either((Exact(I32, 1), Exact(I32, 2)))),
        ("(ref.null)", Null(None)),
        ("(ref.null func)", Null(HeapType.FUNC)),
        ("(ref.func)", Reference("func")),
        ("(ref.struct)", Reference("struct")),
        ("(ref.extern)", Reference("extern")),
        ("(ref.extern 3)", Host(3, True)),
        ("(ref.host 3)", Host(3, False)),
    ],
)
def test_patterns(text: str, pattern: object) -> None:
    found = command(f'(assert_return (invoke "f") {text} {text})')
    assert isinstance(found, AssertReturn)
    assert found.patterns == (pattern, pattern)
    assert found.kind == "assert_return"


def test_failures_are_about_actions_or_modules() -> None:
    trap = command('(assert_trap (invoke "f") "unreachable")')
    assert trap == AssertFailure(1, "assert_trap", Invoke(1, None, "f", (), ()), "unreachable")
    start = command('(assert_trap (module quote "x") "unreachable")')
    assert isinstance(start, AssertFailure)
    assert start.subject == QuotedModule(1, None, b"x")
    thrown = command('(assert_exception (get "g"))')
    assert thrown == AssertFailure(1, "assert_exception", Get(1, None, "g"), None)


def test_lines() -> None:
    found = commands('(module)\n\n(; one\n two ;)\n(invoke "a")\r\n  (assert_return\n (invoke "b"))')
    assert [c.line for c in found] == [1, 5, 6]


@pytest.mark.parametrize(
    "text",
    [
        "(assert_return)",
        '(assert_return (invoke "f") (i32.const))',
        '(assert_return (invoke "f") (i32.const 1 2))',
        '(assert_return (invoke "f") (i32.const 4294967296))',
        '(assert_return (invoke "f") (i31.const 1))',
        '(assert_return (invoke "f") (v128.const i32x4 1 2 3))',
        '(assert_return (invoke "f") (v128.const i32x4 1 2 3 4 5))',
        '(assert_return (invoke "f") (v128.const i32x3 1 2 3))',
        '(assert_return (invoke "f") (ref.nothing))',
        '(invoke "f" (f32.const nan:canonical))',
        '(invoke "f" (v128.const f32x4 0 0 0 nan:arithmetic))',
        '(invoke "f" (ref.null $t))',
        '(invoke "f" (either (i32.const 1)))',
        "(invoke f)",
        '(invoke "\\ff")',
        '(assert_trap (invoke "f"))',
        '(assert_trap (fetch "f") "x")',
        '(assert_invalid (invoke "f") "type mismatch")',
        '(assert_exhaustion (module) "call stack exhausted")',
        "(register)",
        "(register $m)",
        "(module instance $a $b $c)",
        '(module binary "\\00asm" x)',
        "(module) (thread)",
    ],
)
def test_what_breaks_the_grammar_costs_one_command(text: str) -> None:
    found = commands(f'{text} (register "still here")')
    assert isinstance(found[-2], Unreadable)
    assert found[-2].reason
    assert found[-1] == Register(1, "still here", None)


@pytest.mark.parametrize(
    "text", ["(module", "(module))", "module", '(module quote "', '"\\x"', "(; never closed"]
)
def test_what_is_no_sequence_of_commands(text: str) -> None:
    with pytest.raises(MalformedError):
        commands(text)
