"""Calls: direct, indirect, between instances, into the host and back, and what a trap tells about them."""

from __future__ import annotations

import pytest

from pywasmvm import Exhaustion, Func, FuncType, Instance, Linker, Module, Store, Trap, TrapKind
from tests.support.instances import instance, trap
from tests.support.wat import wat


def test_multiple_parameters_and_results() -> None:
    exports = instance("""(module
      (func $swap (param i32 f64) (result f64 i32) local.get 1 local.get 0)
      (func (export "f") (param i32 f64) (result i32 f64 i32)
        local.get 0 local.get 0 local.get 1 call $swap
        local.set 0 local.get 0))""").exports
    assert exports.f(4, 2.5) == (4, 2.5, 4)


def test_operands_below_the_arguments_stay() -> None:
    text = """(module (func $id (param i32) (result i32) local.get 0)
      (func (export "f") (result i32)
        i32.const 100 i32.const 20 i32.const 3 call $id i32.add i32.add))"""
    run = instance(text).exports.f
    assert run() == 123


INDIRECT = """(module
  (type $unary (func (param i32) (result i32)))
  (type $same (func (param i32) (result i32)))
  (type $nullary (func (result i32)))
  (table (export "t") 5 funcref)
  (func $inc (type $unary) local.get 0 i32.const 1 i32.add)
  (func $dec (type $same) local.get 0 i32.const 1 i32.sub)
  (func $seven (type $nullary) i32.const 7)
  (elem (i32.const 0) $inc $dec $seven)
  (func (export "call") (param i32 i32) (result i32) local.get 1 local.get 0 call_indirect (type $unary))
  (func (export "other") (param i32) (result i32) local.get 0 call_indirect (type $nullary)))"""


def test_indirect_calls() -> None:
    exports = instance(INDIRECT).exports
    assert exports.call(0, 10) == 11
    assert exports.call(1, 10) == 9  # equal types are the same type, whatever their index
    assert exports.other(2) == 7


def test_indirect_calls_check_index_null_and_type() -> None:
    exports = instance(INDIRECT).exports
    assert trap(lambda: exports.call(5, 0)) is TrapKind.UNDEFINED_ELEMENT
    assert trap(lambda: exports.call(-1, 0)) is TrapKind.UNDEFINED_ELEMENT
    with pytest.raises(Trap, match=r"^uninitialized element 3"):
        exports.call(3, 0)
    assert trap(lambda: exports.call(2, 0)) is TrapKind.INDIRECT_CALL_TYPE_MISMATCH
    assert trap(lambda: exports.other(0)) is TrapKind.INDIRECT_CALL_TYPE_MISMATCH
    assert exports.call(0, 1) == 2  # usable after each trap


def test_an_indirect_call_into_another_instance_and_into_the_host() -> None:
    store = Store()
    owner = instance(INDIRECT, store=store)
    text = """(module (import "m" "t" (table 5 funcref))
      (memory 1) (data (i32.const 0) "\\2a")
      (func $mine (param i32) (result i32) local.get 0 i32.load8_u)
      (elem (i32.const 3) $mine))"""
    Instance(Module(wat(text)), {"m": {"t": owner.exports.t}}, store=store)
    assert owner.exports.call(3, 0) == 0x2A  # it reads the memory of its own instance
    linker = Linker()
    linker.define_func("env", "double", FuncType.parse("i32 -> i32"), lambda a: 2 * a)
    owner.exports.t[4] = linker.get("env", "double")
    assert owner.exports.call(4, 21) == 42


def test_other_tables() -> None:
    run = instance("""(module (type $t (func (result i32)))
      (table $a 1 funcref) (table $b 2 funcref)
      (func $one (result i32) i32.const 1) (func $two (result i32) i32.const 2)
      (elem (table $a) (i32.const 0) func $one) (elem (table $b) (i32.const 1) func $two)
      (func (export "f") (param i32) (result i32) local.get 0 call_indirect $b (type $t))
      (func (export "g") (param i32) (result i32) local.get 0 call_indirect $a (type $t)))""").exports
    assert run.f(1) == 2
    assert run.g(0) == 1
    assert trap(lambda: run.f(0)) is TrapKind.UNINITIALIZED_ELEMENT


class TestHostFunctions:
    TEXT = """(module
      (import "env" "h" (func $h (param i32 i64 f32 f64) (result i64)))
      (func (export "f") (param i32 i64 f32 f64) (result i64)
        i64.const 5 local.get 0 local.get 1 local.get 2 local.get 3 call $h i64.add))"""

    def test_arguments_are_canonical_and_results_taken_modulo(self) -> None:
        seen: list[object] = []

        def host(*args: object) -> int:
            seen.extend(args)
            return -7

        linker = Linker()
        linker.define_func("env", "h", FuncType.parse("i32 i64 f32 f64 -> i64"), host)
        run = linker.instantiate(Module(wat(self.TEXT))).exports.f
        assert run(-1, -2, 0.5, 0.25) == -2
        assert seen == [2**32 - 1, 2**64 - 2, 0.5, 0.25]

    def test_an_exception_goes_through_unchanged_with_a_note(self) -> None:
        error = KeyError("mine")

        def host(*args: object) -> int:
            raise error

        guest = instance(self.TEXT, {"env": {"h": _raw("i32 i64 f32 f64 -> i64", host)}})
        with pytest.raises(KeyError) as caught:
            guest.exports.f(0, 0, 0, 0)
        assert caught.value is error
        assert "wasm backtrace" in error.__notes__[0]
        assert "call" in error.__notes__[0]

    @pytest.mark.parametrize("exception", [IndexError, OverflowError, ZeroDivisionError, MemoryError])
    def test_an_exception_of_the_host_is_never_taken_for_a_trap(self, exception: type[Exception]) -> None:
        def host(*args: object) -> int:
            raise exception("host")

        guest = instance(self.TEXT, {"env": {"h": _raw("i32 i64 f32 f64 -> i64", host)}})
        with pytest.raises(exception, match="host"):
            guest.exports.f(0, 0, 0, 0)

    def test_a_result_that_does_not_fit_is_a_type_error(self) -> None:
        for wrong in (None, "7", 7.5):
            guest = instance(self.TEXT, {"env": {"h": _raw("i32 i64 f32 f64 -> i64", lambda *a, w=wrong: w)}})
            with pytest.raises(TypeError, match="returned"):
                guest.exports.f(0, 0, 0, 0)

    def test_float_results_are_floats_of_their_width(self) -> None:
        text = """(module (import "env" "h" (func $h (result f32 f64)))
          (func (export "f") (result f32 f64) call $h))"""
        guest = instance(text, {"env": {"h": _raw("-> f32 f64", lambda: (0.1, 3))}})
        assert guest.exports.f() == (0.10000000149011612, 3.0)
        for wrong in ((None, 1.0), (1.0, None), (1.0, "1")):
            guest = instance(text, {"env": {"h": _raw("-> f32 f64", lambda w=wrong: w)}})
            with pytest.raises(TypeError, match="returned"):
                guest.exports.f()

    def test_several_results(self) -> None:
        text = """(module (import "env" "h" (func $h (result i32 f64)))
          (func (export "f") (result i32 f64) call $h))"""
        assert instance(text, {"env": {"h": _raw("-> i32 f64", lambda: (-1, 2.5))}}).exports.f() == (-1, 2.5)
        for wrong in ((1,), (1, 2, 3), 5, None):
            guest = instance(text, {"env": {"h": _raw("-> i32 f64", lambda w=wrong: w)}})
            with pytest.raises(TypeError, match="must return 2 values"):
                guest.exports.f()

    def test_a_result_is_dropped_where_none_is_declared(self) -> None:
        text = '(module (import "env" "h" (func $h)) (func (export "f") call $h))'
        assert instance(text, {"env": {"h": _raw("->", lambda: 5)}}).exports.f() is None

    def test_host_and_guest_call_each_other_at_any_depth(self) -> None:
        text = """(module (import "env" "h" (func $h (param i32) (result i32)))
          (func (export "f") (param i32) (result i32)
            local.get 0 if (result i32)
              local.get 0 i32.const 1 i32.sub call $h i32.const 1 i32.add
            else i32.const 0 end))"""
        made: list[Instance] = []
        made.append(instance(text, {"env": {"h": _raw("i32 -> i32", lambda n: made[0].exports.f(n))}}))
        assert made[0].exports.f(60) == 60

    def test_endless_mutual_recursion_is_exhaustion(self) -> None:
        text = """(module (import "env" "h" (func $h)) (func (export "f") call $h))"""
        made: list[Instance] = []
        made.append(instance(text, {"env": {"h": _raw("->", lambda: made[0].exports.f())}}))
        with pytest.raises(Exhaustion, match=r"^call stack exhausted") as caught:
            made[0].exports.f()
        assert caught.value.kind is TrapKind.CALL_STACK_EXHAUSTED
        assert len(caught.value.frames) > 50

    def test_the_guest_may_go_on_after_a_nested_trap(self) -> None:
        text = """(module (import "env" "h" (func $h (result i32)))
          (func (export "f") (result i32) i32.const 40 call $h i32.add)
          (func (export "boom") unreachable))"""
        made: list[Instance] = []

        def host() -> int:
            try:
                made[0].exports.boom()
            except Trap:
                return 2
            return 0

        made.append(instance(text, {"env": {"h": _raw("-> i32", host)}}))
        assert made[0].exports.f() == 42

    def test_a_host_function_may_grow_the_memory_it_was_called_from(self) -> None:
        text = """(module (import "env" "h" (func $h)) (memory (export "memory") 1)
          (func (export "f") (result i32)
            i32.const 0 i32.const 7 i32.store
            call $h
            i32.const 65536 i32.load i32.const 0 i32.load i32.add))"""
        made: list[Instance] = []

        def host() -> None:
            memory = made[0].exports.memory
            memory.grow(20)
            memory.write_u32(65536, 35)

        made.append(instance(text, {"env": {"h": _raw("->", host)}}))
        assert made[0].exports.f() == 42


def _raw(type_: str, function: object) -> Func:
    linker = Linker()
    return linker.define_func("m", "n", FuncType.parse(type_), function)  # type: ignore[arg-type]


class TestBacktraces:
    TEXT = """(module $app
      (func $average (param i32 i32) (result i32) local.get 0 local.get 1 i32.div_s)
      (func $report (param i32) (result i32) nop i32.const 10 local.get 0 call $average)
      (func (export "run") (param i32) (result i32) local.get 0 call $report))"""

    def test_frames_innermost_first(self) -> None:
        module = Module(wat(self.TEXT))
        with pytest.raises(Trap) as caught:
            Instance(module).exports.run(0)
        frames = caught.value.frames
        assert [(f.module, f.func, f.index, f.instruction) for f in frames] == [
            ("app", "average", 0, "i32.div_s"),
            ("app", "report", 1, "call"),
            ("app", "run", 2, "call"),
        ]
        source = module.syntax.source
        assert [source[f.offset] for f in frames if f.offset is not None] == [0x6D, 0x10, 0x10]
        text = str(caught.value)
        assert text.startswith(
            "integer divide by zero\nwasm backtrace (innermost first):\n  0: app!average[0] +0x"
        )
        assert "call" in text.splitlines()[3]

    def test_through_the_host(self) -> None:
        text = """(module $outer (import "env" "h" (func $h)) (func $entry (export "f") call $h)
          (func $inner (export "boom") unreachable))"""
        made: list[Instance] = []
        made.append(instance(text, {"env": {"h": _raw("->", lambda: made[0].exports.boom())}}))
        with pytest.raises(Trap) as caught:
            made[0].exports.f()
        assert [frame.func for frame in caught.value.frames] == ["inner", "entry"]

    def test_every_kind_of_instruction_is_named(self) -> None:
        exports = instance("""(module (memory 1)
          (func (export "load") i32.const -1 i32.load8_u drop)
          (func (export "store") i32.const -4 f32.const 0 f32.store)
          (func (export "fill") i32.const -1 i32.const 0 i32.const 2 memory.fill)
          (func (export "trunc") f32.const nan i32.trunc_f32_s drop))""").exports
        expected = {
            "load": "i32.load8_u",
            "store": "f32.store",
            "fill": "memory.fill",
            "trunc": "i32.trunc_f32_s",
        }
        for name, instruction in expected.items():
            with pytest.raises(Trap) as caught:
                exports[name]()
            assert caught.value.frames[0].instruction == instruction

    def test_a_very_long_one_is_shortened(self) -> None:
        run = instance('(module (func $f (export "f") call $f))', call_depth=500).exports.f
        with pytest.raises(Exhaustion) as caught:
            run()
        assert len(caught.value.frames) == 500
        text = str(caught.value)
        assert len(text.splitlines()) < 40
        assert "... 470 more ..." in text
