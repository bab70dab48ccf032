"""Fuel, time, call depth and memory: a guest gets what it was given, and the instance stays usable."""

from __future__ import annotations

import time

import pytest

from pywasmvm import Exhaustion, Store, StoreLimits, TrapKind
from pywasmvm.runtime.limits import QUANTUM
from tests.support import binary as b
from tests.support.instances import instance, trap

LOOPS = """(module
  (func (export "forever") loop br 0 end)
  (func (export "count") (param i32) (result i32) (local i32)
    loop
      local.get 1 i32.const 1 i32.add local.tee 1
      local.get 0 i32.lt_u br_if 0
    end
    local.get 1)
  (func $down (export "down") (param i32) (result i32)
    local.get 0 if (result i32) local.get 0 i32.const 1 i32.sub call $down i32.const 1 i32.add
    else i32.const 0 end)
  (func $runaway (export "runaway") call $runaway)
  (func $mutual (export "mutual") call $other) (func $other call $mutual)
  (func $tree (export "tree") (param i32)
    local.get 0 if
      local.get 0 i32.const 1 i32.sub call $tree
      local.get 0 i32.const 1 i32.sub call $tree end))"""


class TestFuel:
    def test_runs_out_and_can_be_refilled(self) -> None:
        store = Store(limits=StoreLimits(fuel=1000))
        exports = instance(LOOPS, store=store).exports
        assert exports.count(10) == 10
        assert store.fuel_left is not None
        assert 0 < store.fuel_left < 1000
        with pytest.raises(Exhaustion, match="out of fuel") as caught:
            exports.forever()
        assert caught.value.kind is TrapKind.OUT_OF_FUEL
        assert caught.value.frames[0].func == "forever"
        assert store.fuel_left == 0
        assert trap(lambda: exports.count(1)) is TrapKind.OUT_OF_FUEL
        store.refuel(500)
        assert exports.count(5) == 5

    def test_what_is_not_used_is_given_back(self) -> None:
        store = Store(limits=StoreLimits(fuel=10 * QUANTUM))
        exports = instance(LOOPS, store=store).exports
        used = []
        for count in (1, 2, 3, 10_003, 10_004):
            before = store.fuel_left
            exports.count(count)
            used.append((before or 0) - (store.fuel_left or 0))
        assert used[1] - used[0] == used[2] - used[1] == used[4] - used[3] == 7
        assert used[3] - used[0] == 7 * 10_002

    def test_is_charged_in_calls_and_recursion(self) -> None:
        store = Store(limits=StoreLimits(fuel=10_000))
        exports = instance(LOOPS, store=store).exports
        assert trap(lambda: exports.tree(60)) is TrapKind.OUT_OF_FUEL
        assert store.fuel_left == 0

    @pytest.mark.parametrize("size", [0, 1, 50])
    @pytest.mark.parametrize(
        ("body", "fixed"),
        [
            ("i32.const 0 i32.const 1 local.get 0 memory.fill", 5),
            ("i32.const 0 i32.const 9 local.get 0 memory.copy", 5),
            ("i32.const 0 i32.const 0 local.get 0 memory.init $d", 5),
            ("local.get 0 memory.grow drop", 3),
            ("i32.const 0 ref.null func local.get 0 table.fill", 5),
            ("i32.const 0 i32.const 0 local.get 0 table.copy", 5),
            ("i32.const 0 i32.const 0 local.get 0 table.init $e", 5),
            ("ref.null func local.get 0 table.grow drop", 4),
        ],
    )
    def test_bulk_operations_pay_for_their_size(self, body: str, fixed: int, size: int) -> None:
        elements = "0 " * 50
        text = f"""(module (memory 1 51) (table 50 100 funcref)
          (data $d "{"a" * 50}") (elem $e func {elements})
          (func (export "f") (param i32) {body}))"""
        store = Store(limits=StoreLimits(fuel=1000))
        run = instance(text, store=store).exports["f"]
        run(size)
        assert store.fuel_left == 1000 - fixed - size
        if "grow" in body:
            run(1000)  # growth that fails is not paid for
            assert store.fuel_left == 1000 - 2 * fixed - size

    def test_a_bulk_operation_may_use_up_the_fuel(self) -> None:
        store = Store(limits=StoreLimits(fuel=100))
        text = '(module (memory 1) (func (export "f") i32.const 0 i32.const 1 i32.const 200 memory.fill))'
        exports = instance(text, store=store).exports
        assert trap(exports.f) is TrapKind.OUT_OF_FUEL
        assert store.fuel_left == 0

    def test_unlimited_by_default(self) -> None:
        store = Store()
        assert store.fuel_left is None
        with pytest.raises(ValueError, match="no fuel limit"):
            store.refuel(1)

    def test_fuel_used_by_a_trap_is_gone(self) -> None:
        store = Store(limits=StoreLimits(fuel=100))
        exports = instance('(module (func (export "f") i32.const 0 drop unreachable))', store=store).exports
        for _ in range(3):
            assert trap(lambda: exports.f()) is TrapKind.UNREACHABLE
        assert store.fuel_left is not None
        assert 80 < store.fuel_left < 100

    def test_new_limits_fill_up(self) -> None:
        store = Store(limits=StoreLimits(fuel=10))
        exports = instance(LOOPS, store=store).exports
        assert trap(lambda: exports.count(100)) is TrapKind.OUT_OF_FUEL
        store.limits = StoreLimits(fuel=10_000)
        assert exports.count(100) == 100


class TestTime:
    @pytest.mark.parametrize("name", ["forever", "mutual"])
    def test_an_endless_guest_is_stopped(self, name: str) -> None:
        store = Store(limits=StoreLimits(seconds=0.05, call_depth=None if name == "mutual" else 100))
        exports = instance(LOOPS, store=store).exports
        began = time.monotonic()
        # Translated code has Python's stack, which ends: a recursion without a limit may get there first.
        kinds = {TrapKind.DEADLINE_EXCEEDED}
        if name == "mutual" and store.engine.name != "interp":
            kinds.add(TrapKind.CALL_STACK_EXHAUSTED)
        assert trap(exports[name]) in kinds
        assert time.monotonic() - began < 20
        assert exports.count(3) == 3

    def test_exponential_recursion_is_stopped(self) -> None:
        exports = instance(LOOPS, seconds=0.05).exports
        assert trap(lambda: exports.tree(70)) is TrapKind.DEADLINE_EXCEEDED

    def test_a_huge_fill_is_stopped(self) -> None:
        text = """(module (memory 8192) (func (export "f")
          loop i32.const 0 i32.const 1 i32.const 0x20000000 memory.fill br 0 end))"""
        exports = instance(text, seconds=0.05).exports
        assert trap(exports.f) is TrapKind.DEADLINE_EXCEEDED

    def test_each_call_from_the_host_has_its_own_time(self) -> None:
        exports = instance(LOOPS, seconds=0.3).exports
        for _ in range(3):
            time.sleep(0.15)
            assert exports.count(10) == 10

    def test_time_spent_in_the_host_counts(self) -> None:
        text = """(module (import "env" "h" (func $h)) (func (export "f") loop call $h br 0 end))"""
        from pywasmvm import FuncType, Linker, Module
        from tests.support.wat import wat

        linker = Linker()
        linker.define_func("env", "h", FuncType.parse("->"), lambda: time.sleep(0.0005))
        guest = linker.instantiate(Module(wat(text)), Store(limits=StoreLimits(seconds=0.05)))
        assert trap(guest.exports.f) is TrapKind.DEADLINE_EXCEEDED


class TestDepth:
    def test_a_runaway_guest_is_exhaustion(self) -> None:
        exports = instance(LOOPS).exports
        for name in ("runaway", "mutual"):
            with pytest.raises(Exhaustion, match=r"^call stack exhausted"):
                exports[name]()
        assert exports.down(500) == 500

    def test_the_limit_is_exact(self) -> None:
        exports = instance(LOOPS, call_depth=100).exports
        assert exports.down(99) == 99
        assert trap(lambda: exports.down(100)) is TrapKind.CALL_STACK_EXHAUSTED
        assert exports.down(99) == 99

    def test_deep_recursion_does_not_use_the_python_stack(self) -> None:
        assert instance(LOOPS, call_depth=None).exports.down(50_000) == 50_000

    def test_no_depth_at_all(self) -> None:
        exports = instance(LOOPS, call_depth=0).exports
        assert trap(lambda: exports.count(1)) is TrapKind.CALL_STACK_EXHAUSTED

    def test_frames_that_wait_in_the_host_count(self) -> None:
        text = """(module (import "env" "h" (func $h (param i32)))
          (func $f (export "f") (param i32) local.get 0 i32.const 3 i32.and if
            local.get 0 i32.const 1 i32.sub call $f else local.get 0 call $h end))"""
        deepest: list[int] = []

        def host(n: int) -> None:
            deepest.append(n)
            made[0].exports.f(n - 1)

        from pywasmvm import FuncType, Linker, Module
        from tests.support.wat import wat

        linker = Linker()
        linker.define_func("env", "h", FuncType.parse("i32 ->"), host)
        made = [linker.instantiate(Module(wat(text)), Store(limits=StoreLimits(call_depth=40)))]
        assert trap(lambda: made[0].exports.f(2**20)) is TrapKind.CALL_STACK_EXHAUSTED
        assert 8 <= len(deepest) <= 12

    @pytest.mark.interp_only  # translated code has only the variables it needs
    @pytest.mark.parametrize("kind", ["locals", "operands"])
    def test_big_frames_exhaust_the_stack_before_the_memory(self, kind: str) -> None:
        if kind == "locals":
            body = b.body(b"\x10\0", b.vec([b.u32(50_000) + b.I64]))
        else:
            body = b.body(b"\x41\1" * 100_000 + b"\x10\0" + b"\x1a" * 100_000)
        data = b.module(b.types(b.functype()), b.functions(0), b.exports(b.export("f", 0, 0)), b.code(body))
        run = instance(data).exports["f"]
        with pytest.raises(Exhaustion, match=r"^call stack exhausted") as caught:
            run()
        assert 10 < len(caught.value.frames) < 1_000


class TestMemory:
    GROW = """(module (memory (export "memory") 1) (table $t (export "table") 1 externref)
      (func (export "pages") (param i32) (result i32) local.get 0 memory.grow)
      (func (export "elements") (param i32) (result i32) ref.null extern local.get 0 table.grow $t))"""

    def test_growth_beyond_the_limit_fails(self) -> None:
        exports = instance(self.GROW, memory_pages=10, table_elements=5).exports
        assert exports.pages(9) == 1
        assert exports.pages(1) == -1
        assert exports.elements(4) == 1
        assert exports.elements(1) == -1
        with pytest.raises(MemoryError, match="cannot grow by 1"):
            exports.memory.grow(1)
        with pytest.raises(MemoryError, match="cannot grow by 1"):
            exports.table.grow(1)

    def test_all_memories_of_a_store_count_together(self) -> None:
        store = Store(limits=StoreLimits(memory_pages=3, table_elements=3))
        first, second = instance(self.GROW, store=store).exports, instance(self.GROW, store=store).exports
        assert first.pages(1) == 1
        assert second.pages(1) == -1
        assert first.elements(1) == 1
        assert second.elements(1) == -1

    def test_a_declared_minimum_beyond_the_limit_is_a_memory_error(self) -> None:
        with pytest.raises(MemoryError, match="20 pages"):
            instance("(module (memory 20))", memory_pages=19)
        with pytest.raises(MemoryError, match="20 table elements"):
            instance("(module (table 20 funcref))", table_elements=19)

    def test_a_declared_maximum_costs_nothing(self) -> None:
        instance("(module (memory 0 65536) (table 0 0xffffffff funcref))", memory_pages=1, table_elements=1)


def test_limits_are_not_negative() -> None:
    with pytest.raises(ValueError, match="fuel cannot be negative: -1"):
        StoreLimits(fuel=-1)


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown engine 'jit'"):
        Store(engine="jit")
    assert Store(engine="interp").engine.name == "interp"
