"""Random code that works on memory through a few pointers: every engine leaves the same behind.

What is known of memory, kept addresses, functions in place of calls and bulk loops meet here: stores overlap,
pointers move, ways part and meet again.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from pywasmvm import Instance, Module, Store, StoreLimits, Trap

POINTERS, VALUES, LONGS = ("$p", "$q", "$r"), ("$x", "$y", "$z"), ("$a", "$b")
SMALL_FUNCTIONS = """
  (func $swap (param $p i32) (param $q i32) (local $t i32)
    (local.set $t (i32.load (local.get $p)))
    (i32.store (local.get $p) (i32.load (local.get $q)))
    (i32.store (local.get $q) (local.get $t)))
  (func $next (param $p i32) (result i32)
    (i32.store offset=4 (local.get $p) (i32.add (i32.load offset=4 (local.get $p)) (i32.const 1)))
    (if (i32.and (i32.load offset=4 (local.get $p)) (i32.const 1)) (then (return (local.get $p))))
    (i32.and (i32.add (local.get $p) (i32.const 8)) (i32.const 0xfff)))
  (func $sum (param $p i32) (param $n i32) (result i32) (local $s i32)
    (if (i32.eqz (local.get $n)) (then (return (i32.const 0))))
    (loop $l
      (local.set $s (i32.add (local.get $s) (i32.load8_u (local.get $p))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $s))"""


class Writer:
    """Writes statements."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.labels = 0

    def pick(self, *options: Any) -> Any:
        return self.source.choice(options)

    def value(self, depth: int = 2) -> str:
        kind = self.source.randrange(9 if depth else 3)
        if kind == 0:
            return f"(i32.const {self.pick(0, 1, 3, 255, 65_535, -1, 1 << 30, self.source.getrandbits(32))})"
        if kind < 3:
            return f"(local.get {self.pick(*VALUES)})"
        if kind < 6:
            return self.load()
        if kind == 6:
            return f"(i32.wrap_i64 (local.get {self.pick(*LONGS)}))"
        operation = self.pick("add", "sub", "xor", "and", "or", "mul", "shl", "shr_u", "lt_s", "ge_u", "rotl")
        return f"(i32.{operation} {self.value(depth - 1)} {self.value(depth - 1)})"

    def address(self) -> str:
        pointer = self.pick(*POINTERS)
        if self.source.random() < 0.2:
            index = f"(i32.and (local.get {self.pick(*VALUES)}) (i32.const 7))"
            return f"(i32.add (local.get {pointer}) (i32.shl {index} (i32.const {self.pick(1, 2, 3)})))"
        return f"(local.get {pointer})"

    def offset(self) -> str:
        return f"offset={self.pick(0, 0, 1, 2, 4, 4, 6, 8, 12)}"

    def load(self) -> str:
        kind = self.pick("load", "load", "load", "load8_u", "load8_s", "load16_u", "load16_s")
        return f"(i32.{kind} {self.offset()} {self.address()})"

    def long(self) -> str:
        kind = self.source.randrange(4)
        if kind == 0:
            load = self.pick("load", "load", "load32_u", "load32_s", "load8_u")
            return f"(i64.{load} {self.offset()} {self.address()})"
        if kind == 1:
            return f"(i64.extend_i32_{self.pick('u', 's')} {self.value(1)})"
        operation = self.pick("add", "mul", "xor", "shr_u", "and")
        return f"(i64.{operation} (local.get {self.pick(*LONGS)}) (local.get {self.pick(*LONGS)}))"

    def statement(self, depth: int) -> str:
        kind = self.source.randrange(16 if depth else 12)
        if kind < 4:
            store = self.pick("store", "store", "store", "store8", "store16")
            return f"(i32.{store} {self.offset()} {self.address()} {self.value()})"
        if kind == 4:
            return f"(i64.{self.pick('store', 'store32')} {self.offset()} {self.address()} {self.long()})"
        if kind < 7:
            return f"(local.set {self.pick(*VALUES)} {self.value()})"
        if kind == 7:
            return f"(local.set {self.pick(*LONGS)} {self.long()})"
        if kind == 8:
            pointer, step = self.pick(*POINTERS), self.pick(1, 2, 4, 8, -4)
            moved = f"(i32.add (local.get {pointer}) (i32.const {step}))"
            return f"(local.set {self.pick(pointer, *POINTERS)} (i32.and {moved} (i32.const 0xffff)))"
        if kind == 9:
            return f"(call $swap {self.address()} (local.get {self.pick(*POINTERS)}))"
        if kind == 10:
            return f"(local.set {self.pick(*POINTERS)} (call $next (local.get {self.pick(*POINTERS)})))"
        if kind == 11:
            return f"(local.set $x (call $sum {self.address()} (i32.and {self.value(1)} (i32.const 31))))"
        if kind < 15:
            return f"(if {self.value(1)} (then {self.block(depth - 1)}) (else {self.block(depth - 1)}))"
        self.labels += 1
        label, counter = f"$l{self.labels}", f"$n{self.labels}"
        return f"""(local.set {counter} (i32.const {self.pick(1, 2, 9, 20)}))
          (loop {label} {self.block(depth - 1)}
            (br_if {label} (local.tee {counter} (i32.sub (local.get {counter}) (i32.const 1)))))"""

    def block(self, depth: int) -> str:
        return "\n".join(self.statement(depth) for _ in range(self.source.randrange(1, 6)))

    def module(self) -> Module:
        body = "\n".join(self.block(2) for _ in range(3))
        locals_ = "".join(f"(local $n{i} i32)" for i in range(1, self.labels + 1))
        results = " ".join(f"(local.get {name})" for name in (*POINTERS, *VALUES, *LONGS))
        return Module(f"""(module (memory (export "m") 1 1) {SMALL_FUNCTIONS}
          (func (export "f") (param $p i32) (param $q i32) (param $r i32) (param $x i32) (param $y i32)
            (result i32 i32 i32 i32 i32 i32 i64 i64) (local $z i32) (local $a i64) (local $b i64) {locals_}
            {body} {results}))""")


def outcome(module: Module, engine: str, args: tuple[int, ...], fuel: int | None = None) -> Any:
    store = Store(StoreLimits(fuel=fuel), engine=engine)
    instance = Instance(module, store=store)
    memory = instance.exports["m"]
    memory.data[:] = [(i * 7 + (i >> 8)) & 0xFF for i in range(memory.nbytes)]
    try:
        found: Any = instance.exports["f"].raw(*args)
    except Trap as trap:
        found = trap.kind, trap.frames
    return found, bytes(memory.data), store.fuel_left


@pytest.mark.parametrize("seed", range(40))
def test_every_engine_leaves_the_same(seed: int) -> None:
    writer = Writer(seed)
    module = writer.module()
    for _ in range(3):
        near = writer.pick(0, 16, 1000, 4092, 65_520)
        args = (
            near,
            near + writer.pick(0, 1, 2, 4, 8, 100),
            writer.pick(near, 3, 64, 65_535, 70_000, 2**32 - 4),
            writer.source.getrandbits(32),
            writer.pick(0, 5, 2**31),
        )
        wanted = outcome(module, "interp", args)
        for engine in ("translate", "translate-flat", "auto"):
            assert outcome(module, engine, args) == wanted, (engine, args)
        if not isinstance(wanted[0][0], int):
            continue  # what a straight way has cost by a trap is not paid
        used = [outcome(module, engine, args, 10**7)[2] for engine in ("interp", "translate")]
        assert used[0] == used[1]
