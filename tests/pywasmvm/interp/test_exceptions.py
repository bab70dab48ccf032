"""Exceptions: handlers, identity of tags, passage through the host, what an uncaught one tells."""

from __future__ import annotations

import pytest

from pywasmvm import Instance, Linker, Module, Store, Trap, TrapKind, WasmException
from pywasmvm.runtime.tag import Exn, Tag
from pywasmvm.types import I32, FuncType
from tests.support.instances import instance, trap
from tests.support.wat import wat

THROWER = """(module
  (tag $t (export "t") (param i32)) (tag $u (export "u"))
  (func $throw (export "throw") (param i32) (throw $t (local.get 0)))
  (func (export "throw u") (throw $u))
  (func (export "deep") (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (i32.add (i32.const 1) (call 2 (i32.sub (local.get 0) (i32.const 1)))))
      (else (call $throw (i32.const 7)) (unreachable)))))"""


def test_an_uncaught_exception_tells_its_tag_its_values_and_where() -> None:
    thrower = instance(THROWER)
    with pytest.raises(WasmException) as caught:
        thrower.exports.deep(3)
    error = caught.value
    assert error.tag is thrower.exports.t
    assert error.values == (7,)
    assert isinstance(error.exn, Exn)
    note = "\n".join(error.__notes__)
    assert note.count("deep") == 4
    assert "throw" in note
    with pytest.raises(WasmException) as other:
        thrower.exports["throw u"]()
    assert (other.value.tag, other.value.values) == (thrower.exports.u, ())
    assert thrower.exports.deep.type == FuncType((I32,), (I32,))


def test_the_innermost_fitting_clause_takes_it_and_the_operands_below_stay() -> None:
    run = instance("""(module (tag $t (param i32)) (tag $u)
      (func $f (param i32) (throw $t (i32.mul (local.get 0) (i32.const 2))))
      (func (export "f") (param i32) (result i32)
        i32.const 1000
        (block $outer (result i32)
          (try_table (catch $t $outer)
            (block $inner
              (try_table (catch $u $inner)
                (drop (i32.const 5)) (call $f (local.get 0)))))
          (i32.const -1))
        i32.add))""").exports.f
    assert run(4) == 1008


def test_a_reference_is_thrown_again_as_the_same_exception() -> None:
    run = instance("""(module (tag $t (param i64))
      (func (export "f") (result i64)
        (block $h (result i64)
          (try_table (catch $t $h)
            (throw_ref (block $r (result exnref)
              (try_table (catch_all_ref $r) (throw $t (i64.const 5)))
              (unreachable))))
          (unreachable)))
      (func (export "null") (throw_ref (ref.null exn))))""").exports
    assert run.f() == 5
    assert trap(run.null) is TrapKind.NULL_EXCEPTION_REFERENCE


def test_traps_are_not_caught() -> None:
    run = instance("""(module (func (export "f")
      (block $h (try_table (catch_all $h) (unreachable)))))""").exports.f
    assert trap(run) is TrapKind.UNREACHABLE


CATCHER = """(module
  (import "m" "t" (tag $t (param i32))) (import "m" "again" (tag $again (param i32)))
  (import "m" "run" (func $run))
  (func (export "f") (result i32)
    (block $one (result i32)
      (return (i32.add (i32.const 100) (block $two (result i32)
        (try_table (catch $t $one) (catch $again $two) (call $run)) (i32.const -1)))))))"""


def test_the_instance_of_a_tag_decides_not_its_type() -> None:
    store = Store()
    thrower = instance(THROWER, store=store)
    other = Tag(FuncType((I32,)), store)

    def link(first: Tag, second: Tag, tag: Tag) -> Instance:
        def run() -> None:
            raise WasmException(tag, (9,))

        return instance(CATCHER, {"m": {"t": first, "again": second, "run": run}}, store=store)

    assert link(thrower.exports.t, other, thrower.exports.t).exports.f() == 9
    assert link(thrower.exports.t, other, other).exports.f() == 109
    assert link(other, other, other).exports.f() == 9
    with pytest.raises(WasmException):
        link(other, other, thrower.exports.t).exports.f()


def test_an_exception_passes_through_the_host_and_can_be_caught_there() -> None:
    store = Store()
    thrower = instance(THROWER, store=store)
    seen = []

    def run() -> None:
        try:
            thrower.exports.throw(5)
        except WasmException as error:
            seen.append(error.values)
            raise

    tags = {"t": thrower.exports.t, "again": thrower.exports.t}
    catcher = instance(CATCHER, {"m": {**tags, "run": run}}, store=store)
    assert catcher.exports.f() == 5
    assert seen == [(5,)]


def test_a_host_can_be_told_which_exception_it_was() -> None:
    tag = Tag(FuncType())

    def throw() -> None:
        raise WasmException(tag, ())

    text = """(module (import "m" "run" (func $run))
      (func (export "f") (result exnref)
        (block $h (result exnref) (try_table (catch_all_ref $h) (call $run)) (unreachable))))"""
    found = instance(text, {"m": {"run": throw}}).exports.f()
    assert isinstance(found, Exn)
    assert found.tag is tag


def test_other_python_errors_are_no_exceptions_of_the_guest() -> None:
    def run() -> None:
        raise ValueError("the host's own")

    text = """(module (import "m" "run" (func $run))
      (func (export "f") (block $h (try_table (catch_all $h) (call $run)))))"""
    with pytest.raises(ValueError, match="the host's own"):
        instance(text, {"m": {"run": run}}).exports.f()


def test_tags_are_imported_by_their_exact_type() -> None:
    thrower = Module(wat(THROWER))
    linker = Linker()
    made = linker.module("m", thrower)
    assert isinstance(made.exports.t, Tag)
    assert "<Tag (i32,)>" in repr(made.exports.t)
    linker.instantiate(Module('(module (import "m" "t" (tag (param i32))))'), made.store)
    with pytest.raises(Exception, match="incompatible import type"):
        linker.instantiate(Module('(module (import "m" "t" (tag (param i64))))'), made.store)


def test_exceptions_in_a_loop_use_no_stack() -> None:
    run = instance(
        """(module (tag $t (param i32))
      (func $throw (param i32) (throw $t (local.get 0)))
      (func (export "f") (param $n i32) (result i32) (local $sum i32)
        (loop $again
          (block $h (result i32)
            (try_table (catch $t $h) (call $throw (i32.const 3)))
            (i32.const 0))
          (local.set $sum (i32.add (local.get $sum)))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (local.get $sum)))""",
        call_depth=5,
    ).exports.f
    assert run(2_000) == 6_000


def test_a_trap_after_a_caught_exception_has_the_right_frames() -> None:
    run = instance("""(module (tag $t) (func $throw (throw $t))
      (func (export "f") (block $h (try_table (catch_all $h) (call $throw))) (unreachable)))""").exports.f
    with pytest.raises(Trap) as caught:
        run()
    assert [frame.func for frame in caught.value.frames] == ["f"]
