"""Running scripts: what holds, what does not and why, and that nothing but a command is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmvm.script import Results, run_file

MODULE = """(module $m
  (global (export "g") (mut i64) (i64.const -1))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "pair") (result f32 externref) (f32.const nan) (ref.null extern))
  (func (export "trap") (unreachable))
  (func $forever (export "recurse") (call $forever))
  (tag $t) (func (export "throw") (throw $t))
  (func (export "extern") (param externref) (result anyref) (any.convert_extern (local.get 0))))
"""


def run(tmp_path: Path, text: str, **options: str) -> Results:
    path = tmp_path / "script.wast"
    path.write_text(text)
    return run_file(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "command",
    [
        '(assert_return (invoke "add" (i32.const 40) (i32.const 2)) (i32.const 42))',
        '(assert_return (invoke $m "add" (i32.const -1) (i32.const 0)) (i32.const 0xffffffff))',
        '(assert_return (invoke "pair") (f32.const nan:canonical) (ref.null extern))',
        '(assert_return (get "g") (i64.const -1))',
        '(assert_return (invoke "extern" (ref.extern 5)) (ref.host 5))',
        '(assert_trap (invoke "trap") "unreachable")',
        '(assert_trap (invoke "trap") "unr")',
        '(assert_trap (module (func $f (unreachable)) (start $f)) "unreachable")',
        '(assert_exhaustion (invoke "recurse") "call stack exhausted")',
        '(assert_exception (invoke "throw"))',
        '(assert_invalid (module (func (result i32))) "type mismatch")',
        '(assert_invalid (module quote "(func (result i32))") "type mismatch")',
        '(assert_malformed (module quote "(func") "unexpected token")',
        '(assert_malformed (module binary "\\00asm") "unexpected end")',
        '(assert_unlinkable (module (import "m" "f" (func))) "unknown import")',
        '(assert_unlinkable (module (import "spectest" "table64" (table 1 funcref))) "incompatible import")',
        '(invoke "add" (i32.const 1) (i32.const 2))',
        "(module definition (memory 65536))",
        '(module definition $d (global (export "x") i32 (i32.const 1))) (module instance $i $d)'
        '(assert_return (get $i "x") (i32.const 1))',
        '(register "again") (module (import "again" "g" (global (mut i64))))',
    ],
)
def test_what_holds(tmp_path: Path, command: str) -> None:
    results = run(tmp_path, MODULE + command)
    assert results.failures == []
    assert results.commands == sum(results.passed_by_kind.values())
    assert results.ok


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            '(assert_return (invoke "add" (i32.const 1) (i32.const 1)) (i32.const 3))',
            "got i32:2, expected i32:3",
        ),
        ('(assert_return (invoke "add" (i32.const 1) (i32.const 1)))', "got 1 results, expected 0"),
        (
            '(assert_return (invoke "add" (i32.const 1) (i32.const 1)) (i64.const 2))',
            "got i32:2, expected i64:2",
        ),
        ('(assert_return (invoke "pair") (f32.const -nan) (ref.null))', "got f32:nan (0x7fc00000), expected"),
        ('(assert_return (invoke "trap"))', "trap: unreachable"),
        ('(assert_return (invoke "add" (i32.const 1)) (i32.const 1))', "'add' takes (i32 i32 -> i32)"),
        ('(assert_return (invoke "add" (i32.const 1) (i64.const 1)) (i32.const 2))', "'add' takes"),
        ('(assert_return (invoke "g") (i64.const 1))', "there is no exported function 'g'"),
        ('(assert_return (get "add") (i64.const 1))', "there is no exported global 'add'"),
        ('(assert_return (invoke $other "add") (i32.const 1))', "the instance other is not known"),
        (
            '(assert_trap (invoke "trap") "integer overflow")',
            'expected "integer overflow", got "unreachable"',
        ),
        ('(assert_trap (invoke "throw") "unreachable")', "expected trap, got exception"),
        ('(assert_trap (invoke "recurse") "call stack exhausted")', "expected trap, got exhaustion"),
        ('(assert_trap (invoke "pair") "unreachable")', "expected trap (unreachable), nothing failed"),
        ('(assert_exhaustion (invoke "trap") "unreachable")', "expected exhaustion, got trap"),
        ('(assert_exception (invoke "trap"))', "expected exception, got trap"),
        ('(assert_invalid (module) "type mismatch")', "expected invalid (type mismatch), nothing failed"),
        ('(assert_invalid (module quote "(func") "unexpected token")', "expected invalid, got malformed"),
        (
            '(assert_malformed (module (func (result i32))) "type mismatch")',
            "expected malformed, got invalid",
        ),
        (
            '(assert_malformed (module quote "(func)") "unexpected token")',
            "expected malformed (unexpected token)",
        ),
        (
            '(assert_unlinkable (module (func (result i32))) "unknown import")',
            "expected unlinkable, got invalid",
        ),
        (
            '(assert_unlinkable (module (import "m" "f" (func))) "incompatible import type")',
            'expected "incompatible import type", got "unknown import',
        ),
        ('(register "m" $nobody)', "the instance nobody is not known"),
        ("(module instance $i $nothing)", "the definition nothing is not known"),
        ('(module (import "nowhere" "f" (func)))', "unlinkable: unknown import"),
        ('(invoke "trap")', "trap: unreachable"),
        ("(thread)", "there is no command 'thread'"),
    ],
)
def test_what_fails_and_why(tmp_path: Path, command: str, reason: str) -> None:
    results = run(tmp_path, MODULE + command)
    (failure,) = results.failures
    assert failure.reason is not None
    assert reason in failure.reason
    assert (results.failed, results.passed, results.commands, results.skipped) == (1, 0, 2, 0)
    assert not results.ok


def test_what_depends_on_a_module_that_does_not_load_fails(tmp_path: Path) -> None:
    results = run(
        tmp_path,
        MODULE
        + """(module $n (func (result i32)))
        (assert_return (invoke "add" (i32.const 1) (i32.const 1)) (i32.const 2))
        (assert_trap (invoke $n "trap") "unreachable")
        (register "n" $n)
        (assert_unlinkable (module (import "n" "f" (func))) "unknown import")
        (assert_return (invoke $m "add" (i32.const 1) (i32.const 1)) (i32.const 2))""",
    )
    assert (results.passed, results.failed, results.commands) == (1, 5, 7)
    assert [f.reason for f in results.failures][1:] == [
        "the instance before did not load",
        "the instance n did not load",
        "the instance n did not load",
        "imports from a module that did not load",
    ]


def test_the_subject_of_an_assertion_is_not_current(tmp_path: Path) -> None:
    text = '(assert_trap (module (func $f (unreachable)) (start $f) (func (export "add"))) "unreachable")'
    text += '(assert_return (invoke "add" (i32.const 1) (i32.const 1)) (i32.const 2))'
    assert run(tmp_path, MODULE + text).ok


def test_messages_of_bad_modules_are_compared_but_need_not_agree(tmp_path: Path) -> None:
    results = run(
        tmp_path,
        '(assert_invalid (module (func (result i32))) "type mismatch")'
        '(assert_invalid (module (func (result i32))) "in other words")',
    )
    assert (results.passed, results.failed, results.messages) == (2, 0, 2)
    (outcome,) = results.disagreements
    assert outcome.expected == "in other words"
    assert (outcome.found or "").startswith("type mismatch")


def test_a_crash_is_a_failure_also_where_a_failure_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: object, **options: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("pywasmvm.script.run.decode", crash)
    results = run(tmp_path, '(assert_malformed (module binary "x") "unexpected end") (module binary "")')
    assert (results.passed, results.failed) == (0, 2)
    for failure in results.failures:
        assert (failure.reason or "").startswith("IndexError: list index out of range at test_run.py")


def test_a_file_that_is_no_script_is_one_failure(tmp_path: Path) -> None:
    results = run(tmp_path, "\n(module")
    assert (results.commands, results.failed, results.passed) == (1, 1, 0)
    assert (results.failures[0].line, results.failures[0].kind) == (2, "script")


def test_spectest_is_shared_by_the_modules_of_a_script_and_fresh_for_the_next(tmp_path: Path) -> None:
    first = """(module (import "spectest" "memory" (memory 1)) (data (i32.const 0) "*"))
    (module (import "spectest" "memory" (memory 1)) (import "spectest" "global_f32" (global $f f32))
      (import "spectest" "print_f64_f64" (func $print (param f64 f64)))
      (func (export "read") (result i32) (i32.load8_u (i32.const 0)))
      (func (export "float") (result f32) (call $print (f64.const 1) (f64.const 2)) (global.get $f)))"""
    fits = '(assert_return (invoke "float") (f32.const 666.6))'
    assert run(tmp_path, first + '(assert_return (invoke "read") (i32.const 42))' + fits).ok
    empty = first.replace('(data (i32.const 0) "*")', "")
    assert run(tmp_path, empty + '(assert_return (invoke "read") (i32.const 0))').ok


@pytest.mark.parametrize("round_trip", ["binary", "text"])
def test_round_trips_change_nothing(tmp_path: Path, round_trip: str) -> None:
    text = (
        MODULE
        + """(assert_return (invoke "pair") (f32.const nan) (ref.null))
        (assert_invalid (module (func $f (param $x i32) (result i64) (local.get $x))) "type mismatch")
        (assert_malformed (module quote "(func $f (local.get $x))") "unknown local")
        (module binary "\\00asm\\01\\00\\00\\00")"""
    )
    results = run(tmp_path, text, round_trip=round_trip)
    assert results.failures == []
    assert (results.passed, results.commands) == (3, 5)


@pytest.mark.parametrize("round_trip", ["binary", "text"])
def test_a_module_that_comes_back_different_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_trip: str
) -> None:
    monkeypatch.setattr("pywasmvm.script.roundtrip.encode", lambda module: b"\0asm\1\0\0\0")
    monkeypatch.setattr("pywasmvm.script.roundtrip.print_module", lambda module: "(module)")
    results = run(tmp_path, "(module (memory 1)) (module)", round_trip=round_trip)
    (failure,) = results.failures
    assert "RoundTripError: the module came back different: memories" in (failure.reason or "")


def test_features_can_be_switched_off(tmp_path: Path) -> None:
    path = tmp_path / "script.wast"
    path.write_text("(module (func (result v128) (v128.const i64x2 0 0)))")
    assert run_file(path, features=["simd"]).ok
    assert not run_file(path, features=["mvp"]).ok


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    results = run(tmp_path, "(module)", engine="steam")
    assert "unknown engine 'steam'" in (results.failures[0].reason or "")
