"""Loops as bulk operations: the same memory, locals, fuel and traps as one iteration after the other."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pywasmvm import Instance, Module, Store, StoreLimits, Trap, TrapKind
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options

DATA = "".join(chr(97 + i * 7 % 26) for i in range(400))

STORES = {1: "i32.store8", 2: "i32.store16", 4: "i32.store", 8: "i64.store"}
LOADS = {1: "i32.load8_u", 2: "i32.load16_u", 4: "i32.load", 8: "i64.load"}


def random_loop(source: random.Random) -> tuple[str, str, int]:
    """A loop of stores: its text, how it ends, how far it moves in an iteration."""
    size = source.choice([1, 2, 4, 8])
    stride = source.choice([size, size, size, 2 * size, 4 * size, -size, 3 * size])
    count = source.choice([1, 1, 2, 4])
    step = stride * (count if source.random() < 0.7 else 1)
    type_ = "i64" if size == 8 else "i32"

    def load(place: int) -> str:
        return f"({LOADS[size]} offset={source.choice([0, 0, 8, 16, 64, 1024]) + place} (local.get $s))"

    def value(place: int) -> str:
        choice = source.random()
        if choice < 0.3:
            return f"({type_}.const {source.choice([0, 1, 255, -1, 1234567])})"
        if choice < 0.6 or size == 8:
            return load(place)
        if choice < 0.7:
            return "(local.get $v)"
        if choice < 0.8:
            factor, more = source.choice([3, 7, 13]), source.choice([5, -9])
            return f"(i32.add (i32.mul (local.get $d) (i32.const {factor})) (i32.const {more}))"
        operation = source.choice(["add", "sub", "xor", "and", "or", "mul"])
        other = source.choice(["(local.get $v)", "(i32.const 77)", load(place)])
        return f"(i32.{operation} {load(place)} {other})"

    lines = []
    for place in range(0, count * abs(stride), abs(stride)):
        offset = source.choice([0, 0, 8, 16, 64, 1024]) + place
        lines.append(f"({STORES[size]} offset={offset} (local.get $d) {value(place)})")
    lines += [f"(local.set {x} (i32.add (local.get {x}) (i32.const {step})))" for x in ("$d", "$s")]
    form = source.choice(["down", "ne", "lt_u", "lt_s"])
    if form == "down":
        lines.append("(br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))")
    else:
        lines.append(f"(br_if $l (i32.{form} (local.get $d) (local.get $n)))")
    return "\n".join(lines), form, step


def module_of(body: str) -> Module:
    return Module(f"""(module (memory (export "m") 1) (data (i32.const 0) "{DATA}")
      (func (export "f") (param $d i32) (param $s i32) (param $n i32) (param $v i32) (result i32 i32 i32)
        (loop $l {body}) (local.get $d) (local.get $s) (local.get $n)))""")


def is_bulk(module: Module) -> bool:
    """Whether the function tries to make many trips at once."""
    return "if n>=" in (source_of(module, 0, Options(small=True)) or "")


def outcome(module: Module, engine: str, args: tuple[int, ...]) -> Any:
    """Results or trap, the memory, and the fuel used where the call ended."""
    store = Store(StoreLimits(fuel=100_000), engine=engine)
    instance = Instance(module, store=store)
    try:
        results = instance.exports["f"].raw(*(a & 0xFFFF_FFFF for a in args))
    except Trap as trap:
        return trap.kind, bytes(instance.exports["m"].data)
    return results, bytes(instance.exports["m"].data), store.fuel_left


@pytest.mark.parametrize("seed", range(60))
def test_random_loops_do_the_same_in_bulk(seed: int) -> None:
    source = random.Random(seed)
    body, form, step = random_loop(source)
    module = module_of(body)
    assert is_bulk(module) or (form.startswith("lt") and step < 0)  # that ends by going around
    for _ in range(8):
        target = source.choice([0, 16, 100, 1000, 65_000, 65_535, 70_000, -8])
        origin = source.choice([target, target + 1, target - 4, target + 8, target + 40, 0, 500, 65_400, -4])
        if form == "down":
            end = source.choice([1, 8, 9, 20, 100, 1000])
        else:
            end = target + step * source.choice([1, 8, 10, 50, 300]) + source.choice([0, 0, 0, 1])
        args = (target, origin, end, source.choice([0, 99, 2**31, 2**32 - 1]))
        mine, wanted = outcome(module, "translate", args), outcome(module, "interp", args)
        if wanted[0] is TrapKind.OUT_OF_FUEL:  # in the middle of the loop for one, after it for the other
            assert mine[0] == wanted[0]
        else:
            assert mine == wanted, (args, body)


#: Shapes that are in no kernel.
OWN = {
    "every third byte": """(i32.store8 (local.get $d) (i32.const 7))
        (local.set $d (i32.add (local.get $d) (i32.const 3)))
        (br_if $l (i32.lt_u (local.get $d) (local.get $n)))""",
    "backwards": """(i32.store8 (local.get $d) (i32.load8_u (local.get $s)))
        (local.set $d (i32.sub (local.get $d) (i32.const 1)))
        (local.set $s (i32.sub (local.get $s) (i32.const 1)))
        (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))""",
    "a counter times seven": """(i32.store16 (local.get $d) (i32.mul (local.get $s) (i32.const 7)))
        (local.set $s (i32.add (local.get $s) (i32.const 1)))
        (local.set $d (i32.add (local.get $d) (i32.const 2)))
        (br_if $l (i32.ne (local.get $s) (local.get $n)))""",
    "a mask over words": """(i32.store (local.get $d) (i32.xor (i32.load (local.get $d)) (local.get $v)))
        (local.set $d (i32.add (local.get $d) (i32.const 4)))
        (br_if $l (i32.lt_u (local.get $d) (local.get $n)))""",
    "widening bytes": """(i32.store (local.get $d) (i32.load8_u (local.get $s)))
        (local.set $s (i32.add (local.get $s) (i32.const 1)))
        (local.set $d (i32.add (local.get $d) (i32.const 4)))
        (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))""",
    "a step from outside": """(i32.store8 offset=2000 (local.get $d) (i32.const 0))
        (local.set $d (i32.add (local.get $d) (local.get $v)))
        (br_if $l (i32.lt_s (local.get $d) (local.get $n)))""",
}


@pytest.mark.parametrize("name", OWN)
def test_shapes_of_our_own(name: str) -> None:
    module = module_of(OWN[name])
    assert is_bulk(module)
    for args in (
        (3000, 100, 200, 5),
        (100, 100, 4000, 3),
        (60_000, 40, 70_000, 9),
        (500, 400, 300, 1),
        (3000, 100, 4000, 0),
        (8, 0, 64, 2**31),
    ):
        mine, wanted = outcome(module, "translate", args), outcome(module, "interp", args)
        if wanted[0] is TrapKind.OUT_OF_FUEL:
            assert mine[0] == wanted[0]
        else:
            assert mine == wanted, args


#: Searches: loops that go on for as long as what they load lets them. `d`, `s`, `n`, `v` as above.
SEARCHES = {
    "strlen": """(br_if $l (i32.load8_u (local.tee $d (i32.add (local.get $d) (i32.const 1)))))""",
    "memchr": """(if (i32.ne (i32.load8_u (local.get $d)) (i32.const 122)) (then
        (local.set $d (i32.add (local.get $d) (i32.const 1)))
        (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))""",
    "a character given": """(if (i32.ne (i32.load16_u (local.get $d)) (local.get $v)) (then
        (local.set $d (i32.add (local.get $d) (i32.const 2)))
        (br_if $l (i32.lt_u (local.get $d) (local.get $n)))))""",
    "memcmp": """(if (local.get $n) (then
        (if (i32.eq (i32.load8_u (local.get $d)) (i32.load8_u (local.get $s))) (then
          (local.set $d (i32.add (local.get $d) (i32.const 1)))
          (local.set $s (i32.add (local.get $s) (i32.const 1)))
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br $l)))))""",
    "words that differ": """(if (i32.lt_u (local.get $d) (local.get $n)) (then
        (if (i32.ne (i32.load (local.get $d)) (i32.load offset=4 (local.get $s))) (then
          (local.set $d (i32.add (local.get $d) (i32.const 4)))
          (local.set $s (i32.add (local.get $s) (i32.const 4)))
          (br $l)))))""",
    "eight bytes at once": """(if (i64.eq (i64.load (local.get $d)) (i64.load (local.get $s))) (then
        (local.set $d (i32.add (local.get $d) (i32.const 8)))
        (local.set $s (i32.add (local.get $s) (i32.const 8)))
        (br_if $l (i32.ne (local.get $d) (local.get $n)))))""",
    "skip what is equal": """(if (i32.eq (i32.load8_s (local.get $d)) (i32.const 97)) (then
        (local.set $d (i32.add (local.get $d) (i32.const 1))) (br $l)))""",
    "small letters, every other byte": """(if (i32.lt_u (i32.load8_u (local.get $d)) (i32.const 123)) (then
        (if (i32.ge_s (i32.load8_u (local.get $d)) (i32.const 97)) (then
          (local.set $d (i32.add (local.get $d) (i32.const 2)))
          (local.set $v (i32.add (local.get $v) (i32.const 1)))
          (br_if $l (i32.ne (local.get $d) (local.get $n)))))))""",
    "narrow while ASCII": """(if (i32.lt_u (local.get $s) (local.get $n)) (then
        (if (i32.lt_u (i32.load16_u (local.get $s)) (i32.const 128)) (then
          (i32.store8 (local.get $d) (i32.load16_u (local.get $s)))
          (local.set $d (i32.add (local.get $d) (i32.const 1)))
          (local.set $s (i32.add (local.get $s) (i32.const 2)))
          (br $l)))))""",
    "copy to the zero": """(i32.store8 (local.get $d) (i32.load8_u (local.get $s)))
        (if (i32.load8_u (local.get $s)) (then
          (local.set $d (i32.add (local.get $d) (i32.const 1)))
          (local.set $s (i32.add (local.get $s) (i32.const 1)))
          (br $l)))""",
    "down, while above": """(if (i32.gt_u (i32.load16_u offset=2 (local.get $d)) (i32.const 20)) (then
        (local.set $d (i32.sub (local.get $d) (i32.const 2)))
        (br_if $l (i32.ge_s (local.get $d) (local.get $n)))))""",
}


def searched(body: str, fill: list[tuple[int, bytes]]) -> Module:
    data = "".join(
        f'(data (i32.const {at}) "{"".join(f"{chr(92)}{b:02x}" for b in part)}")' for at, part in fill
    )
    return Module(f"""(module (memory (export "m") 1) {data}
      (func (export "f") (param $d i32) (param $s i32) (param $n i32) (param $v i32)
          (result i32 i32 i32 i32)
        (loop $l {body}) (local.get $d) (local.get $s) (local.get $n) (local.get $v)))""")


@pytest.mark.parametrize("name", SEARCHES)
def test_searches(name: str) -> None:
    source = random.Random(name)
    text = (
        b"a" * 40 + bytes(source.choices(b"abyz{", k=200)) + b"a" * 300 + b"\0\0\x80\0a\0b\0" + b"c\0" * 100
    )
    fill = [(64, text), (2048, text[:500] + b"q" + text[501:]), (65_000, b"a" * 536)]
    module = searched(SEARCHES[name], fill)
    assert is_bulk(module)
    for _ in range(60):
        target = source.choice([64, 65, 66, 200, 348, 400, 565, 2048, 65_100, 65_535, 70_000, 0, -2])
        origin = source.choice([target, 2048, 2050, 64, 348, 600, 65_400, target + 1, target - 3])
        end = source.choice(
            [0, 1, 5, 8, 77, 400, 65_536, target + 64, target + 65, origin + 128, 2**30, 2**31]
        )
        args = (target, origin, end, source.choice([0, 97, 99, 2**31, 2**32 - 1]))
        mine, wanted = outcome(module, "translate", args), outcome(module, "interp", args)
        if wanted[0] is TrapKind.OUT_OF_FUEL:
            assert mine[0] == wanted[0]
        else:
            assert mine == wanted, args
