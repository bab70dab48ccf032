"""Choices between a test and a constant, as compilers write `&&` and `||`: the code tests without a variable,
what a way carries goes to its local at once, and everything is as the interpreter has it.
"""

from __future__ import annotations

import itertools

import pytest

from pywasmvm import Instance, Module, Store, StoreLimits, Trap
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options

MODULE = Module("""(module (memory (export "memory") 1)
  (func (export "and") (param $a i32) (param $b i32) (param $c i32) (result i32)
    (if (result i32)
      (if (result i32) (if (result i32) (local.get $a) (then (local.get $b)) (else (i32.const 0)))
        (then (i32.load (local.get $c))) (else (i32.const 0)))
      (then (i32.const 11)) (else (i32.const 22))))
  (func (export "nor") (param $a i32) (param $b i32) (param $c i32) (result i32)
    (block $out
      (br_if $out (i32.eqz (if (result i32) (local.get $a) (then (i32.const 7))
        (else (i32.eq (local.get $b) (local.get $c))))))
      (return (local.get $b)))
    (i32.const -1))
  (func (export "loop") (param $a i32) (param $b i32) (param $c i32) (result i32) (local $n i32)
    (block $out
      (loop $again
        (br_if $out (i32.eqz (if (result i32) (i32.lt_u (local.get $n) (local.get $a))
          (then (i32.ne (i32.load8_u (i32.add (local.get $n) (local.get $c))) (local.get $b)))
          (else (i32.const 0)))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br $again)))
    (local.get $n))
  (func (export "both") (param $a i32) (param $b i32) (param $c i32) (result i32)
    (loop $again
      (br_if $again (if (result i32) (i32.gt_s (local.tee $a (i32.sub (local.get $a) (i32.const 1)))
          (local.get $b))
        (then (i32.const 1)) (else (i32.load8_u (local.tee $c (i32.sub (local.get $c) (i32.const 1))))))))
    (i32.add (local.get $a) (local.get $c)))
  (func (export "goal") (param $a i32) (param $b i32) (param $c i32) (result i32) (local $x i32)
    (local.set $x (i32.const 5))
    (i32.store (i32.const 64) (local.get $x))
    (local.set $x (block (result i32)
      (drop (br_if 0 (i32.add (local.get $x) (i32.const 1)) (local.get $a)))
      (drop (br_if 0 (i32.load (local.get $c)) (local.get $b)))
      (i32.add (local.get $x) (i32.load (i32.const 64)))))
    (i32.add (i32.mul (local.get $x) (i32.const 3)) (i32.load (i32.const 64))))
  (func (export "tee") (param $a i32) (param $b i32) (param $c i32) (result i32)
    (if (result i32) (local.get $a)
      (then (if (result i32) (local.get $b) (then (i32.sub (local.get $a) (local.get $c)))
        (else (i32.const 4))))
      (else (local.get $c)))
    (local.tee $a)
    (i32.add (local.get $a)))
  (func (export "under") (param $a i32) (param $b i32) (param $c i32) (result i32)
    (local.get $a)
    (if (result i32) (local.get $b) (then (local.get $c)) (else (i32.const 9)))
    (local.set $a)
    (i32.sub (local.get $a)))
  (func (export "wide") (param $a i32) (param $b i32) (param $c i32) (result i32)
    (i32.wrap_i64 (i64.shr_u (call $wide (local.get $a) (local.get $b)) (i64.extend_i32_u (local.get $c)))))
  (func $wide (param $a i32) (param $b i32) (result i64) (local $x i64)
    (if (result i64) (local.get $a) (then (i64.const -1)) (else (i64.extend_i32_s (local.get $b))))
    (local.set $x)
    (local.get $x)))""")

NAMES = ["and", "nor", "loop", "both", "goal", "tee", "under", "wide"]
VALUES = (0, 1, 5, 65_533, 2**31, 2**32 - 1)


def outcome(engine: str, name: str, args: tuple[int, int, int], fuel: int | None) -> object:
    store = Store(StoreLimits(fuel=fuel), engine=engine)
    instance = Instance(MODULE, store=store)
    instance.exports["memory"].write(0, bytes(range(256)) * 256)
    try:
        found: object = instance.exports[name](*args)
    except Trap as trap:
        return trap.kind, [frame.offset for frame in trap.frames]
    return found, store.fuel_left, instance.exports["memory"].read(0, 256)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fuel", [None, 10_000_000])
def test_as_the_interpreter(name: str, fuel: int | None) -> None:
    first = (3, 9) if name == "both" else VALUES  # it counts down from there
    for args in itertools.product(first, (0, 4) if name == "both" else VALUES, VALUES):
        expected = outcome("interp", name, args, fuel)
        for engine in ("translate", "translate-flat"):
            assert outcome(engine, name, args, fuel) == expected, args


@pytest.mark.parametrize("name", ["and", "nor", "loop", "goal", "tee", "wide"])
def test_there_is_no_variable_between(name: str) -> None:
    index = NAMES.index(name) + (name == "wide")
    assert "s0" not in (source_of(MODULE, index, Options()) or "")


def test_an_operand_below_keeps_its_value() -> None:
    assert "s1" in (source_of(MODULE, NAMES.index("under"), Options()) or "")


def test_pointers_that_move_by_different_steps_stay_aligned() -> None:
    module = Module("""(module (memory 1)
      (func (param $p i32) (param $end i32) (result i32) (local $n i32)
        (block $out (loop $l
          (br_if $out (i32.ge_u (local.get $p) (local.get $end)))
          (if (i32.eq (i32.load16_u (local.get $p)) (i32.const 7))
            (then (local.set $p (i32.add (local.get $p) (i32.const 4))) (br $l)))
          (local.set $n (i32.add (local.get $n) (i32.load16_u offset=2 (local.get $p))))
          (local.set $p (i32.add (local.get $p) (i32.const 2)))
          (br $l)))
        (local.get $n)))""")
    text = source_of(module, 0, Options(small=True)) or ""
    assert "m0H[" in text
    assert text.count("load_u16") == 2  # of the slow copy


def test_a_function_that_only_passes_its_pointers_on_is_not_copied() -> None:
    module = Module("""(module (memory 1) (func $f (param i32) (result i32) (local.get 0))
      (func (param $p i32) (result i32)
        (local.set $p (call $f (local.get $p)))
        (i32.add (i32.load (local.get $p)) (i32.add (i32.load offset=4 (local.get $p)) (i32.load offset=8
          (local.get $p)))))
      (func (param $p i32) (result i32)
        (local.set $p (i32.add (i32.load (local.get $p)) (i32.load offset=4 (local.get $p))))
        (i32.load offset=4 (local.get $p))))""")
    assert "m0I" not in (source_of(module, 1, Options(small=True)) or "")
    assert "m0I" in (source_of(module, 2, Options(small=True)) or "")


def test_a_switch_returns_where_it_stands() -> None:
    module = Module("""(module (memory 1) (func (export "f") (param i32) (result i32)
      (block $c (block $b (block $a (br_table $a $b $a $c $a $b $a (local.get 0)))
        (return (i32.const 5))) (return (i32.add (local.get 0) (i32.const 1))))
      (i32.load (local.get 0))))""")
    text = source_of(module, 0, Options()) or ""
    assert text.count("return 5") > 1
    assert "p0" not in text
    functions = [Instance(module, store=Store(engine=e)).exports["f"] for e in ("interp", "translate")]
    for selector in (*range(9), 65_530):
        first, second = (f(selector) for f in functions)
        assert first == second


def test_what_is_not_zero_and_aligned_is_at_least_the_alignment() -> None:
    module = Module("""(module (memory 1) (func (param $p i32) (result i32)
      (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
      (i32.add (i32.load (i32.sub (local.get $p) (i32.const 4)))
        (i32.add (i32.load (local.get $p)) (i32.load offset=4 (local.get $p))))))""")
    text = source_of(module, 0, Options(small=True)) or ""
    assert "m0I[t0-1]+m0I[t0]" in text.replace("(", "").replace(")", "")
