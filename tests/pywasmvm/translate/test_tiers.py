"""What gets hot moves to translated code, and nobody can tell but by the clock."""

from __future__ import annotations

from typing import Any

import pytest

from pywasmvm import Exhaustion, Instance, Module, Store, StoreLimits, Trap, TrapKind
from pywasmvm.runtime.func import WasmFunc
from pywasmvm.translate import tiers
from pywasmvm.translate.tiers import Policy, Tiered

TEXT = """(module (memory 1)
  (func $sum (export "sum") (param $n i32) (result i32) (local $s i32)
    (loop $l (local.set $s (i32.rotl (i32.add (local.get $s) (local.get $n)) (i32.const 7)))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $s))
  (func $inner (param i32) (result i32) (i32.add (call $sum (local.get 0)) (i32.const 1)))
  (func (export "deep") (param i32) (result i32) (i32.mul (call $inner (local.get 0)) (i32.const 3)))
  (func $leaf (export "leaf") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
  (func (export "nested") (param $n i32) (result i32) (local $i i32) (local $s i32)
    (loop $o
      (local.set $i (i32.const 50))
      (block $skip
        (br_if $skip (i32.and (local.get $n) (i32.const 1)))
        (loop $l
          (local.set $s (i32.add (i32.mul (local.get $s) (i32.const 3)) (local.get $i)))
          (br_if $o (i32.eq (local.tee $n (i32.sub (local.get $n) (i32.const 1))) (i32.const 77)))
          (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1))))))
      (br_if $o (i32.gt_s (local.tee $n (i32.sub (local.get $n) (i32.const 1))) (i32.const 0))))
    (local.get $s))
  (func (export "trap") (param $n i32) (local $i i32)
    (loop $l
      (i32.store (local.get $i) (local.get $n))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $l))))"""


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The (function, loop) that were entered in the middle of a call."""
    found: list[tuple[int, int]] = []
    original = tiers.entered

    def note(instance: Any, index: int, loop: int, translator: Any) -> Any:
        made = original(instance, index, loop, translator)
        if made is not None:
            found.append((index, loop))
        return made

    monkeypatch.setattr(tiers, "entered", note)
    return found


def made(policy: Policy | None = None, **limits: Any) -> Instance:
    store = Store(StoreLimits(**limits))
    store.engine = Tiered(policy)
    return Instance(Module(TEXT), store=store)


def plain(name: str, *args: int) -> Any:
    return Instance(Module(TEXT), store=Store(engine="interp")).exports[name](*args)


def test_auto_is_the_default() -> None:
    assert isinstance(Store().engine, Tiered)


def test_a_function_moves_when_it_was_called_often() -> None:
    leaf = made(Policy(calls=3)).exports["leaf"]
    assert isinstance(leaf, WasmFunc)
    assert [leaf(i) for i in range(3)] == [1, 2, 3]
    assert leaf.fast is None
    assert [leaf(i) for i in range(3)] == [1, 2, 3]
    assert leaf.fast is not None


def test_quick_code_gives_way_to_the_best() -> None:
    instance = made(Policy(calls=2, again=5))
    leaf = instance.exports["leaf"]
    assert isinstance(leaf, WasmFunc)
    seen = []
    for i in range(12):
        assert leaf(i) == i + 1
        seen.append(leaf.fast)
    kinds = list(dict.fromkeys(seen))
    assert kinds[0] is None
    assert len(kinds) == 3  # interpreted, quick and counted, the best
    assert kinds[2] is not None
    assert kinds[2].__code__.co_filename.startswith("<wasm ")


def test_traps_are_the_same_in_every_tier() -> None:
    module = Module("""(module (memory 1)
      (func $inner (param i32 i32) (result i32) (i32.add (i32.load (local.get 0))
        (i32.div_u (i32.const 9) (i32.load offset=4 (local.get 1)))))
      (func (export "outer") (param i32 i32) (result i32)
        (i32.sub (call $inner (local.get 0) (local.get 1)) (i32.const 1))))""")
    for arguments in ((0, 65_532), (65_533, 0), (0, 0)):
        seen = set()
        codes = set()
        store = Store()
        store.engine = Tiered(Policy(calls=2, again=4))
        outer = Instance(module, store=store).exports["outer"]
        assert isinstance(outer, WasmFunc)
        for _ in range(12):
            with pytest.raises(Trap) as caught:
                outer(*arguments)
            frames = [(frame.index, frame.offset) for frame in caught.value.frames]
            seen.add((caught.value.kind, tuple(frames)))
            codes.add(outer.fast)
        assert len(seen) == 1
        assert len(codes) == 3  # each tier had its turn


def test_what_is_part_of_every_request_moves_early() -> None:
    text = """(module (func $inner (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
      (func (export "once") (param i32) (result i32) (call $inner (local.get 0)))
      (func (export "often") (param $n i32) (result i32)
        (loop $l (br_if $l (local.tee $n (i32.sub (call $inner (local.get $n)) (i32.const 2)))))
        (local.get $n)))"""

    def inner(policy: Policy, name: str, argument: int, calls: int) -> Any:
        store = Store()
        store.engine = Tiered(policy)
        instance = Instance(Module(text), store=store)
        for _ in range(calls):
            instance.exports[name](argument)
        return instance.funcs[0].fast  # type: ignore[union-attr]

    policy = Policy(calls=1000, turns=4)
    assert inner(policy, "once", 1, 3) is None
    assert inner(policy, "once", 1, 6) is not None
    assert inner(policy, "often", 300, 1) is None


@pytest.mark.parametrize("engine", ["interp", "auto", "translate"])
def test_deep_recursion_fits_while_code_moves(engine: str) -> None:
    def step(name: str, following: str) -> str:
        deeper = f"(i32.add (i32.const 1) (call {following} (i32.sub (local.get 0) (i32.const 1))))"
        return f"""(func {name} (param i32) (result i32)
          (if (result i32) (local.get 0) (then {deeper}) (else (i32.const 0))))"""

    text = f'(module {step("$a", "$b")} {step("$b", "$c")} {step("$c", "$a")} (export "f" (func $a)))'
    exports = Instance(Module(text), store=Store(engine=engine)).exports
    assert exports["f"](9_900) == 9_900
    with pytest.raises(Exhaustion, match="call stack exhausted"):
        exports["f"](1_000_000)


def test_what_runs_once_stays() -> None:
    instance = made()
    assert instance.exports["nested"](10) == plain("nested", 10)
    assert instance.exports["nested"].fast is None


@pytest.mark.parametrize(("name", "n"), [("sum", 50_000), ("deep", 50_000), ("nested", 60_000)])
def test_a_running_loop_moves(name: str, n: int, entered: list[tuple[int, int]]) -> None:
    assert made().exports[name](n) == plain(name, n)
    assert entered


def test_fuel_is_the_same_whoever_runs(entered: list[tuple[int, int]]) -> None:
    used = []
    for engine in ("interp", "translate", "auto"):
        store = Store(StoreLimits(fuel=10_000_000), engine=engine)
        exports = Instance(Module(TEXT), store=store).exports
        for name, n in (("sum", 30_000), ("deep", 30_000), ("nested", 30_000)):
            exports[name](n)
        used.append(store.fuel_left)
    assert used[0] == used[1] == used[2]
    assert entered


def test_a_trap_after_the_move_has_the_same_frames(entered: list[tuple[int, int]]) -> None:
    frames = []
    for engine in ("interp", "translate", "auto"):
        with pytest.raises(Trap, match="out of bounds memory access") as caught:
            Instance(Module(TEXT), store=Store(engine=engine)).exports["trap"](5)
        frames.append(caught.value.frames)
    assert frames[0] == frames[1] == frames[2]
    assert entered


def test_an_endless_loop_is_stopped_after_the_move() -> None:
    text = (
        '(module (func (export "f") (local i32) loop local.get 0 i32.const 1 i32.add local.set 0 br 0 end))'
    )
    instance = Instance(Module(text), store=Store(StoreLimits(seconds=0.1)))
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        instance.exports["f"]()
    with pytest.raises(Exhaustion, match="out of fuel"):
        Instance(Module(text), store=Store(StoreLimits(fuel=100_000))).exports["f"]()


def test_a_loop_with_two_ways_in_is_not_entered() -> None:
    """Entered at the inner loop, the outer one could go on from two places: it stays on the interpreter."""
    text = """(module (func (export "f") (param $n i32) (result i32) (local $s i32) (local $i i32)
      (loop $o
        (block $mid
          (br_if $mid (i32.and (local.get $n) (i32.const 2)))
          (local.set $i (i32.const 9))
          (loop $l
            (local.set $s (i32.add (local.get $s) (local.get $i)))
            (br_if $o (i32.eq (local.tee $n (i32.sub (local.get $n) (i32.const 1))) (i32.const 100)))
            (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1))))))
        (local.set $s (i32.mul (local.get $s) (i32.const 5)))
        (loop $m
          (local.set $s (i32.rotl (local.get $s) (i32.const 3)))
          (br_if $m (i32.and (local.tee $n (i32.sub (local.get $n) (i32.const 1))) (i32.const 3))))
        (br_if $o (i32.gt_s (local.tee $n (i32.sub (local.get $n) (i32.const 1))) (i32.const 0))))
      (local.get $s)))"""
    results = {Instance(Module(text), store=Store(engine=e)).exports["f"](40_000) for e in ("interp", "auto")}
    assert len(results) == 1


def test_two_tiers_calling_each_other_end() -> None:
    text = """(module (func $a (export "a") (param i32) (result i32)
        (i32.add (call $b (local.get 0)) (i32.const 1)))
      (func $b (param i32) (result i32) (call $a (i32.add (local.get 0) (i32.const 1)))))"""
    for _ in range(3):
        with pytest.raises(Exhaustion) as caught:
            Instance(Module(text)).exports["a"](0)
        assert caught.value.kind is TrapKind.CALL_STACK_EXHAUSTED
