"""The linker: names, decorators with annotations, callers, stand-ins, modules under a name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pywasmvm import (
    Caller,
    FuncType,
    Instance,
    Linker,
    LinkError,
    Module,
    Trap,
    TrapKind,
    export,
    f32,
    f64,
    host_module,
    i32,
    i64,
    u32,
    u64,
)
from pywasmvm.runtime.func import HostFunc
from tests.support.wat import wat


def linked(linker: Linker, text: str) -> Instance:
    return linker.instantiate(Module(wat(text)))


def test_the_signature_is_the_annotations() -> None:
    linker = Linker()
    seen: list[object] = []

    @linker.func("env")
    def everything(a: i32, b: u32, c: i64, d: u64, e: f32, f: f64) -> i64:
        seen.extend((a, b, c, d, e, f))
        return -1

    guest = linked(linker, """(module
      (import "env" "everything" (func $e (param i32 i32 i64 i64 f32 f64) (result i64)))
      (func (export "f") (result i64)
        i32.const -1 i32.const -1 i64.const -1 i64.const -1
        f32.const 0.5 f64.const 0.25 call $e))""")  # fmt: skip
    assert guest.exports.f() == -1
    assert seen == [-1, 2**32 - 1, -1, 2**64 - 1, 0.5, 0.25]
    assert everything(1, 2, 3, 4, 5, 6) == -1  # still a plain function


def test_results_are_converted_and_checked() -> None:
    linker = Linker()
    returned: list[object] = [None]

    @linker.func("env", name="h")
    def give() -> f32:
        return returned[0]  # type: ignore[return-value]

    guest = linked(
        linker, '(module (import "env" "h" (func $h (result f32))) (func (export "f") (result f32) call $h))'
    )
    returned[0] = 0.1
    assert guest.exports.f() == 0.10000000149011612
    returned[0] = 1e300
    assert guest.exports.f() == math.inf
    for wrong in (None, "x"):
        returned[0] = wrong
        with pytest.raises(TypeError):
            guest.exports.f()


def test_several_results_are_a_tuple() -> None:
    linker = Linker()

    @linker.func("env")
    def pair(a: i32) -> tuple[i32, f64]:
        return a + 1, 0.5

    guest = linked(linker, """(module (import "env" "pair" (func $p (param i32) (result i32 f64)))
      (func (export "f") (result i32 f64) i32.const 5 call $p))""")  # fmt: skip
    assert guest.exports.f() == (6, 0.5)


def test_the_caller_is_passed_when_asked_for() -> None:
    linker = Linker()
    printed: list[str] = []

    @linker.func("env")
    def log(caller: Caller, ptr: i32, length: i32) -> None:
        printed.append(caller.memory.read_string(ptr, length))
        assert caller.exports is caller.instance.exports

    guest = linked(linker, """(module (import "env" "log" (func $log (param i32 i32)))
      (memory (export "memory") 1) (data (i32.const 4) "hello")
      (func (export "f") i32.const 4 i32.const 5 call $log))""")  # fmt: skip
    guest.exports.f()
    assert printed == ["hello"]


def test_a_caller_without_memory_or_without_guest() -> None:
    linker = Linker()

    @linker.func("env")
    def peek(caller: Caller) -> None:
        caller.memory.read(0, 1)

    guest = linked(linker, '(module (import "env" "peek" (func $p)) (func (export "f") call $p))')
    with pytest.raises(Trap, match="exports no memory"):
        guest.exports.f()
    host = linker.get("env", "peek")
    assert isinstance(host, HostFunc)
    with pytest.raises(RuntimeError, match="called by the host"):
        host()


def test_functions_without_annotations_need_a_type_from_somewhere() -> None:
    linker = Linker()
    with pytest.raises(TypeError, match="annotate every parameter"):
        linker.define("env", "f", lambda a: a)

    def half(a: i32, b) -> None:
        pass

    with pytest.raises(TypeError, match="annotate every parameter and result of half"):
        linker.define("env", "f", half)


def test_a_name_is_defined_once_unless_allowed() -> None:
    linker = Linker()
    linker.define_func("env", "f", FuncType.parse("-> i32"), lambda: 1)
    with pytest.raises(LinkError, match=r"import defined twice: env\.f"):
        linker.define_func("env", "f", FuncType.parse("-> i32"), lambda: 2)
    lenient = Linker(allow_shadowing=True)
    lenient.define_func("env", "f", FuncType.parse("-> i32"), lambda: 1)
    lenient.define_func("env", "f", FuncType.parse("-> i32"), lambda: 2)
    text = '(module (import "env" "f" (func $f (result i32))) (func (export "g") (result i32) call $f))'
    assert linked(linker, text).exports.g() == 1
    assert linked(lenient, text).exports.g() == 2
    assert linker.get("env", "nothing") is None


def test_a_host_function_can_be_rebound() -> None:
    linker = Linker()
    host = linker.define_func("env", "f", FuncType.parse("-> i32"), lambda: 1)
    text = '(module (import "env" "f" (func $f (result i32))) (func (export "g") (result i32) call $f))'
    guest = linked(linker, text)
    assert guest.exports.g() == 1
    before = host.callable
    host.rebind(lambda: 2)
    assert guest.exports.g() == 2
    host.rebind(before)
    assert guest.exports.g() == 1


def test_an_annotated_host_function_can_be_rebound() -> None:
    linker = Linker()

    @linker.func("env")
    def f(x: i32, y: u32, z: i64) -> i32:
        seen.append((x, y, z))
        return x

    seen: list[tuple[int, int, int]] = []
    host = linker.get("env", "f")
    assert isinstance(host, HostFunc)
    text = """(module (import "env" "f" (func $f (param i32 i32 i64) (result i32)))
      (func (export "g") (param i32 i32 i64) (result i32)
        (call $f (local.get 0) (local.get 1) (local.get 2))))"""
    guest = linked(linker, text)
    values = [0, 7, 2**30, 2**31 - 1, 2**31, 2**32 - 1]
    assert [guest.exports.g(x, x, x) for x in values] == [0, 7, 2**30, 2**31 - 1, -(2**31), -1]
    assert seen == [(x - 2**32 if x >= 2**31 else x, x, x) for x in values]
    assert guest.exports.g(0, 0, 2**63) == 0
    assert seen.pop() == (0, 0, -(2**63))
    before = host.callable
    host.rebind(lambda x, y, z: y + 1)
    assert guest.exports.g(1, 2, 3) == 3
    assert len(seen) == len(values)
    host.rebind(before)
    assert guest.exports.g(4, 5, 6) == 4
    assert seen[-1] == (4, 5, 6)


def test_what_an_annotated_host_function_gives_is_checked() -> None:
    linker = Linker()
    answers: list[Any] = [True, -1, 2**32 - 1, 2**30, "x", None, 1.0]

    @linker.func("env")
    def f() -> i32:
        return answers.pop(0)

    text = '(module (import "env" "f" (func $f (result i32))) (func (export "g") (result i32) call $f))'
    guest = linked(linker, text)
    found = [guest.exports.g() for _ in range(4)]
    assert found == [1, -1, -1, 2**30]
    assert type(found[0]) is int
    for _ in range(3):
        with pytest.raises(TypeError):
            guest.exports.g()


def test_a_way_in_takes_as_many_arguments_as_there_are() -> None:
    params = "i32 i64 f64"
    text = f'(module (func (export "f") (param {params}) (result i32) (local.get 0)))'
    f = linked(Linker(), text).exports.f
    many = linked(Linker(), f'(module (func (export "f") (param {"i32 " * 9}) (result i32) (local.get 8)))')
    assert f(-5, 2**64 - 1, 1) == -5
    assert f(True, False, 0.5) == 1
    assert type(f(True, 0, 0.5)) is int
    assert many.exports.f(*range(9)) == 8
    for wrong in ((), (1,), (1, 2), (1, 2, 3.0, 4)):
        with pytest.raises(TypeError, match=rf"takes 3 arguments .* got {len(wrong)}$"):
            f(*wrong)
    for count in (8, 10):
        with pytest.raises(TypeError, match=rf"takes 9 arguments .* got {count}$"):
            many.exports.f(*range(count))
    for bad in (2**32, -(2**31) - 1, 1.5, None, "1"):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            f(bad, 0, 0.0)


def test_unknown_functions_may_trap_when_called() -> None:
    text = """(module (import "env" "missing" (func $m)) (func (export "f") call $m)
      (func (export "ok") (result i32) i32.const 1))"""
    with pytest.raises(LinkError, match="unknown import"):
        linked(Linker(), text)
    guest = linked(Linker(unknown_imports="trap"), text)
    assert guest.exports.ok() == 1
    with pytest.raises(Trap, match=r"^unknown import called env\.missing") as caught:
        guest.exports.f()
    assert caught.value.kind is TrapKind.UNKNOWN_IMPORT
    with pytest.raises(LinkError, match=r"unknown import: env\.m"):
        linked(Linker(unknown_imports="trap"), '(module (memory (import "env" "m") 1))')


def test_a_module_under_a_name() -> None:
    linker = Linker()
    helpers = Module(
        wat('(module (func (export "seven") (result i32) i32.const 7) (memory (export "mem") 1))')
    )
    provider = linker.module("helpers", helpers)
    text = """(module (import "helpers" "seven" (func $s (result i32))) (import "helpers" "mem" (memory 1))
      (func (export "f") (result i32) call $s))"""
    guest = linked(linker, text)
    assert guest.exports.f() == 7
    assert guest.store is provider.store
    other = Linker()
    other.instance("helpers", provider)
    assert linked(other, text).exports.f() == 7


def test_a_class_of_host_functions() -> None:
    @host_module("env")
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        @export
        def add(self, n: i32) -> i32:
            self.count += n
            return self.count

        def helper(self) -> None:
            raise AssertionError("not exported")

    counter = Counter()
    linker = Linker()
    linker.host_module(counter)
    text = """(module (import "env" "add" (func $a (param i32) (result i32)))
      (func (export "f") (param i32) (result i32) local.get 0 call $a))"""
    guest = linked(linker, text)
    assert [guest.exports.f(2), guest.exports.f(3)] == [2, 5]
    assert counter.count == 5
    assert linker.get("env", "helper") is None
    with pytest.raises(TypeError, match="object is not decorated"):
        linker.host_module(object())


def test_the_same_name_may_be_asked_for_with_two_types() -> None:
    # An import is identified by its place, not by its name.
    linker = Linker(unknown_imports="trap")
    guest = linked(linker, """(module
      (import "env" "x" (func $a (param i32))) (import "env" "x" (func $b (result i64)))
      (func (export "f") i32.const 0 call $a) (func (export "g") (result i64) call $b))""")  # fmt: skip
    for name in "fg":
        with pytest.raises(Trap, match=r"unknown import called env\.x"):
            guest.exports[name]()
