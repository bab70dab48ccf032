"""The linker: names, decorators with annotations, callers, stand-ins, modules under a name."""

from __future__ import annotations

import math

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
