"""Small functions in place of their calls: results, traps, frames and fuel are as if they were called."""

from __future__ import annotations

from typing import Any

import pytest

from pywasmvm import Exhaustion, Instance, InvalidError, Module, Store, StoreLimits, Trap
from pywasmvm.binary.encode import encode
from pywasmvm.text.parser import parse_module
from pywasmvm.translate import engine as engines
from pywasmvm.translate import inline
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options

TEXT = """(module (memory (export "m") 1) (global $g (mut i32) (i32.const 3)) (table funcref (elem $plain))
  (func $plain (param i32 i32) (result i32) (i32.sub (local.get 0) (local.get 1)))
  (func $early (param $a i32) (result i32)
    (if (i32.eqz (local.get $a)) (then (return (i32.const -7))))
    (block (br_if 0 (i32.eq (local.get $a) (i32.const 1))) (br_if 1 (i32.const 40) (local.get $a)) (drop))
    (i32.mul (local.get $a) (i32.const 3)))
  (func $counts (param $a i32) (result i32) (local $n i32) (local $x i64)
    (if (local.get $a) (then (local.set $n (i32.const 5))))
    (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (local.get $a))))
    (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (i32.add (local.get $n) (i32.wrap_i64 (local.get $x))))
  (func $writes (param $a i32) (param $v i32)
    (local.set $a (i32.shl (local.get $a) (i32.const 2)))
    (i32.store (local.get $a) (i32.add (local.get $v) (i32.load (local.get $a)))))
  (func $bumps (result i32) (global.set $g (i32.add (global.get $g) (i32.const 1))) (global.get $g))
  (func $picks (param i32) (result f64)
    (block $c (block $b (block $a (br_table $a $b $c (local.get 0))) (return (f64.const 1.5)))
      (return (f64.const -2)))
    (f64.const nan:0x4000000000001))
  (func $wraps (param i32) (result i32) (call $early (call $counts (local.get 0))))
  (func $divides (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func $deeper (param i32 i32) (result i32) (call $divides (local.get 1) (local.get 0)))

  (func (export "args") (param $a i32) (param $b i32) (result i32)
    (call $plain (local.get $a) (local.get $b))
    (call $plain (local.tee $a (i32.add (local.get $b) (i32.const 1))) (local.get $a))
    (call $plain) (call $plain (call $bumps) (call $bumps)) (i32.xor))
  (func (export "early") (param i32) (result i32)
    (i32.add (call $early (local.get 0)) (call $early (i32.const 0))))
  (func (export "loops") (param $n i32) (result i32) (local $s i32)
    (loop $l
      (local.set $s (i32.add (local.get $s)
        (call $counts (i32.and (local.get $n) (i32.const 1)))))
      (call $writes (i32.and (local.get $n) (i32.const 15)) (local.get $s))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $s))
  (func (export "picks") (param i32) (result f64)
    (f64.add (call $picks (local.get 0)) (call $picks (i32.const 1))))
  (func (export "wraps") (param i32) (result i32) (call $wraps (local.get 0)))
  (func (export "divides") (param i32 i32) (result i32)
    (i32.add (i32.const 1) (call $deeper (local.get 1) (local.get 0))))
  (func (export "outside") (param i32 i32) (result i32)
    (call $writes (local.get 0) (local.get 1)) (i32.const 1))
  (func (export "drops") (param i32) (drop (call $early (local.get 0)))))"""

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    *(("args", (a, b)) for a in (0, 5, 2**31, 2**32 - 1) for b in (0, 7)),
    *((name, (a,)) for name in ("early", "loops", "picks", "wraps", "drops") for a in (1, 2, 3, 9)),
    ("early", (0,)),
    ("divides", (7, 2)),
    ("divides", (7, 0)),
    ("divides", (2**31, 2**32 - 1)),
    ("outside", (5, 6)),
    ("outside", (20_000, 6)),
    ("loops", (30_000,)),
]


@pytest.fixture(autouse=True)
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bigger functions than usual are put in place, and more of them."""
    monkeypatch.setattr(inline, "MOST_IN_CALLEE", 48)
    monkeypatch.setattr(inline, "MOST_ADDED", 240)


def outcome(engine: str, name: str, args: tuple[Any, ...], **limits: Any) -> Any:
    store = Store(StoreLimits(**limits), engine=engine)
    instance = Instance(Module(TEXT), store=store)
    function = instance.exports[name]
    found: Any
    try:
        found = function.raw(*args)
    except Trap as trap:
        found = trap.kind, trap.frames
    return repr(found), bytes(instance.exports["m"].data)


@pytest.mark.parametrize(("name", "args"), CALLS)
@pytest.mark.parametrize("engine", ["translate", "translate-flat", "auto"])
def test_nothing_is_different(engine: str, name: str, args: tuple[Any, ...]) -> None:
    assert outcome(engine, name, args) == outcome("interp", name, args)


def test_the_functions_are_in_place() -> None:
    module = Module(TEXT)
    for export in ("args", "early", "loops", "wraps", "divides", "drops"):
        index = next(e.index for e in module.syntax.exports if e.name == export)
        source = source_of(module, index, Options(small=True, inline=True))
        assert source is not None
        assert " f" not in source.replace(" def F", "").replace("  for ", ""), source
        assert " f" in (source_of(module, index, Options(small=True)) or "").replace(" def F", "")


@pytest.mark.parametrize(("name", "args"), [(name, args) for name, args in CALLS if name != "divides"])
def test_fuel_is_the_same(name: str, args: tuple[Any, ...]) -> None:
    left = []
    for engine in ("interp", "translate"):
        store = Store(StoreLimits(fuel=10_000_000), engine=engine)
        try:
            Instance(Module(TEXT), store=store).exports[name].raw(*args)
        except Trap:
            return  # what a straight way has cost by then is not paid
        left.append(store.fuel_left)
    assert left[0] == left[1]


def test_a_trap_has_the_frames_it_would_have_had() -> None:
    with pytest.raises(Trap, match="integer divide by zero") as caught:
        Instance(Module(TEXT), store=Store(engine="translate")).exports["divides"](7, 0)
    assert [frame.func for frame in caught.value.frames] == ["divides", "deeper", "divides"]
    assert [frame.instruction for frame in caught.value.frames] == ["i32.div_s", "call", "call"]


def test_calls_that_are_counted_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = engines.Translator.options

    def options(self: Any, instance: Any) -> Options:
        seen.append(original(self, instance))
        return seen[-1]

    monkeypatch.setattr(engines.Translator, "options", options)
    for depth, fits in ((2, False), (4, True)):
        instance = Instance(Module(TEXT), store=Store(StoreLimits(call_depth=depth), engine="translate"))
        if fits:
            assert instance.exports["wraps"](2) == outcome_of("wraps", 2)
        else:
            with pytest.raises(Exhaustion):
                instance.exports["wraps"](2)
    assert seen
    assert not any(found.inline for found in seen)


def outcome_of(name: str, *args: int) -> Any:
    return Instance(Module(TEXT), store=Store(engine="interp")).exports[name](*args)


def test_functions_that_call_each_other_still_stop() -> None:
    text = """(module
      (func $a (param i32) (result i32) (call $b (i32.add (local.get 0) (i32.const 1))))
      (func $b (param i32) (result i32) (call $c (local.get 0)))
      (func $c (param i32) (result i32) (call $a (local.get 0)))
      (func $x (param i32) (call $y (local.get 0)) (call $y (local.get 0)))
      (func $y (param i32)
        (if (i32.lt_u (local.get 0) (i32.const 64)) (then (call $x (i32.add (local.get 0) (i32.const 1))))))
      (export "recursion" (func $a)) (export "exponential" (func $x)))"""
    instance = Instance(Module(text), store=Store(StoreLimits(seconds=0.2), engine="translate"))
    with pytest.raises(Exhaustion, match="call stack exhausted"):
        instance.exports["recursion"](1)
    with pytest.raises(Exhaustion, match="deadline exceeded"):
        instance.exports["exponential"](0)


def test_an_invalid_function_is_told_of_when_it_is_called() -> None:
    text = """(module (func $bad (param i32) (result i32) (i64.const 1))
      (func (export "f") (param i32) (result i32)
        (if (local.get 0) (then (return (call $bad (i32.const 1))))) (i32.const 2)))"""
    module = Module(encode(parse_module(text)), validate="lazy")
    exports = Instance(module, store=Store(engine="translate")).exports
    assert exports["f"](0) == 2
    with pytest.raises(InvalidError, match="type mismatch"):
        exports["f"](1)


def test_functions_that_are_no_more_than_their_calls_are_always_put_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inline, "MOST_ADDED", 10)
    calls = "(call $tiny (local.get 0)) (call $small (local.get 0))" * 6
    module = Module(f"""(module (global $g (mut i32) (i32.const 0)) (func $host)
      (func $tiny (param i32) (if (i32.gt_u (local.get 0) (i32.const 7)) (then (call $host))))
      (func $small (param i32) (global.set $g (i32.add (global.get $g) (i32.mul (local.get 0)
        (i32.sub (local.get 0) (i32.add (i32.const 3) (local.get 0)))))))
      (func (param i32) {calls}))""")
    text = source_of(module, 3, Options(inline=True)) or ""
    assert "f1(" not in text
    assert text.count("f2(") == 5
    monkeypatch.setattr(inline, "MOST_TINY", 14)
    text = source_of(module, 3, Options(inline=True)) or ""
    assert text.count("f1(") == 4
