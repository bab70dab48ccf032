"""Tail calls: constant stack, into other instances and the host, limits and traces."""

from __future__ import annotations

import pytest

from pywasmvm import Store, StoreLimits, Trap, TrapKind
from tests.support.instances import instance, trap

LOOPS = """(module
  (type $t (func (param i64) (result i64)))
  (table funcref (elem $through_table)) (elem declare func $through_ref)
  (func $direct (export "direct") (param i64) (result i64)
    (if (i64.eqz (local.get 0)) (then (return (i64.const 42))))
    (return_call $other (i64.sub (local.get 0) (i64.const 1))))
  (func $other (param i64) (result i64) (return_call $direct (local.get 0)))
  (func $through_table (export "table") (type $t)
    (if (i64.eqz (local.get 0)) (then (return (i64.const 43))))
    (return_call_indirect (type $t) (i64.sub (local.get 0) (i64.const 1)) (i32.const 0)))
  (func $through_ref (export "ref") (type $t)
    (if (i64.eqz (local.get 0)) (then (return (i64.const 44))))
    (return_call_ref $t (i64.sub (local.get 0) (i64.const 1)) (ref.func $through_ref)))
  (func (export "null") (type $t) (return_call_ref $t (i64.const 0) (ref.null $t))))"""


@pytest.mark.parametrize(("name", "result"), [("direct", 42), ("table", 43), ("ref", 44)])
def test_any_number_of_tail_calls_needs_one_frame(name: str, result: int) -> None:
    run = instance(LOOPS, call_depth=1).exports[name]
    assert run(20_000) == result


def test_null_is_a_trap() -> None:
    assert trap(lambda: instance(LOOPS).exports.null(1)) is TrapKind.NULL_FUNCTION_REFERENCE


def test_endless_tail_calls_meet_fuel_and_deadline() -> None:
    text = '(module (func $f (export "f") (return_call $f)))'
    assert trap(instance(text, fuel=10_000).exports.f) is TrapKind.OUT_OF_FUEL
    assert trap(instance(text, seconds=0.05).exports.f) is TrapKind.DEADLINE_EXCEEDED


def test_a_frame_with_many_locals_is_given_up_each_time() -> None:
    locals_ = "(local " + "i64 " * 2_000 + ")"
    text = f"""(module (func $f (export "f") (param i32) {locals_}
      (if (local.get 0) (then (return_call $f (i32.sub (local.get 0) (i32.const 1)))))))"""
    store = Store(StoreLimits(call_depth=3))
    assert instance(text, store=store).exports.f(10_000) is None


HOST = """(module
  (import "m" "host" (func $host (param i32) (result i32 i64)))
  (func $tail (export "tail") (param i32) (result i32 i64) (return_call $host (local.get 0)))
  (func (export "inner") (param i32) (result i64)
    i64.const 1000 (call $tail (local.get 0)) drop drop))"""


def test_into_the_host() -> None:
    run = instance(
        HOST,
        {"m": {"host": lambda n: (n, n * 2)}},
    ).exports
    assert run.tail(7) == (7, 14)
    assert run.inner(7) == 1000


def test_the_caller_that_left_is_not_in_the_trace() -> None:
    run = instance("""(module (func $end (unreachable))
      (func $middle (return_call $end)) (func (export "f") (call $middle)))""").exports.f
    with pytest.raises(Trap) as caught:
        run()
    assert [frame.index for frame in caught.value.frames] == [0, 2]


def test_into_another_instance_and_back() -> None:
    store = Store()
    text = '(module (memory (export "m") 1) (func (export "size") (result i32) (memory.size)))'
    other = instance(text, store=store)
    run = instance(
        """(module (import "o" "size" (func $size (result i32))) (memory 3)
      (func $tail (result i32) (return_call $size))
      (func (export "f") (result i32) (i32.add (i32.mul (call $tail) (i32.const 10)) (memory.size))))""",
        {"o": {"size": other.exports.size}},
        store=store,
    ).exports.f
    assert run() == 13
