"""Every plain row in line against its function in `numerics`, which says what it means.

Operands come as parameters, as constants, and as sums that are wide before they are used; so each template
sees every form of operand it may meet.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from pywasmvm import Instance, Module, Store, Trap
from pywasmvm.isa import ROWS, Opcode
from pywasmvm.numerics import function
from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from pywasmvm.translate.rules import TEMPLATES
from pywasmvm.types import F32, F64, I32, I64

INLINE = [row for row in ROWS if row.name in TEMPLATES]

EDGES: dict[Any, list[Any]] = {
    I32: [0, 1, 2, 5, 31, 32, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFF, 0xFFFF_FFFE, 255, 0xFF80],
    I64: [0, 1, 7, 63, 64, 0x7FFF_FFFF, 0x8000_0000, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 0xFF80],
    F32: [f32_from_bits(b) for b in (
        0, 0x8000_0000, 0x3F80_0000, 0xC0A0_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0xFFC0_0001,
        0x7FA0_0000, 1, 0x4F00_0000, 0x5F80_0000, 0x7F7F_FFFF, 0x3F00_0000,
    )],
    F64: [f64_from_bits(b) for b in (
        0, 1 << 63, 0x3FF0 << 48, 0xC014 << 48, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0xFFF8 << 48 | 1,
        1, 0x41E0 << 48, 0x43F0 << 48, 0x7FEF << 48 | 0xFFFF_FFFF_FFFF, 0x3FE0 << 48, 0x7FF8 << 48 | 5,
    )],
}  # fmt: skip


def bits(type_: Any, value: Any) -> Any:
    """A value by its bits: NaNs are told apart."""
    return f32_to_bits(value) if type_ is F32 else f64_to_bits(value) if type_ is F64 else value


def expected(opcode: Opcode, operands: tuple[Any, ...]) -> Any:
    assert opcode.signature is not None
    try:
        return bits(opcode.signature.results[0], function(opcode.name)(*operands))
    except Trap as trap:
        return trap.kind


def found(module: Module, opcode: Opcode, operands: tuple[Any, ...]) -> Any:
    assert opcode.signature is not None
    run = Instance(module, store=Store(engine="translate")).exports["f"]
    try:
        result = run.raw(*operands)
    except Trap as trap:
        return trap.kind
    assert type(result) is not bool
    return bits(opcode.signature.results[0], result)


def literal(type_: Any, value: Any) -> str:
    if type_ is F32:
        return (
            f"(f32.reinterpret_i32 (i32.const {f32_to_bits(value)}))"
            if value != value
            else f"(f32.const {value!r})"
        )
    if type_ is F64:
        return (
            f"(f64.reinterpret_i64 (i64.const {f64_to_bits(value)}))"
            if value != value
            else f"(f64.const {value!r})"
        )
    return f"({type_}.const {value})"


def wide(type_: Any, place: int, amount: int) -> str:
    """A sum whose last wrap is left to whoever uses it."""
    return f"({type_}.add (local.get {place}) ({type_}.const {amount}))"


def program(opcode: Opcode, operands: list[str]) -> Module:
    assert opcode.signature is not None
    params = " ".join(map(str, opcode.signature.params))
    result = opcode.signature.results[0]
    body = f"({opcode.name} {' '.join(operands)})"
    return Module(f'(module (func (export "f") (param {params}) (result {result}) {body}))')


@pytest.mark.parametrize("opcode", INLINE, ids=lambda row: row.name)
def test_a_template_computes_what_the_function_does(opcode: Opcode) -> None:
    assert opcode.signature is not None
    types = opcode.signature.params
    source = random.Random(opcode.name)
    plain = program(opcode, [f"(local.get {i})" for i in range(len(types))])
    run = Instance(plain, store=Store(engine="translate")).exports["f"]
    for _ in range(120):
        operands = tuple(source.choice(EDGES[t]) for t in types)
        try:
            result = run.raw(*operands)
            assert type(result) is not bool
            outcome: Any = bits(opcode.signature.results[0], result)
        except Trap as trap:
            outcome = trap.kind
        assert outcome == expected(opcode, operands), operands
    for place, type_ in enumerate(types):
        for _ in range(4):
            operands_ = [source.choice(EDGES[t]) for t in types]
            texts = [f"(local.get {i})" for i in range(len(types))]
            texts[place] = literal(type_, operands_[place])
            module = program(opcode, texts)
            assert found(module, opcode, tuple(operands_)) == expected(opcode, tuple(operands_)), texts
            if type_ in (I32, I64):
                size = 2**32 if type_ is I32 else 2**64
                amount = source.choice([1, -1, 77, -5, size // 2, size // 2 - 1])
                texts[place] = wide(type_, place, amount)
                moved = list(operands_)
                moved[place] = (moved[place] + amount) % size
                module = program(opcode, texts)
                assert found(module, opcode, tuple(operands_)) == expected(opcode, tuple(moved)), texts


HIGH_BITS = """(module
  (func (export "low") (param i32) (result i32) (i32.and (local.get 0) (i32.const {mask})))
  (func (export "wide") (param i32) (result i32)
    (i32.and (i32.add (local.get 0) (i32.const {step})) (i32.const {mask})))
  (func (export "equal") (param i32) (result i32)
    (i32.eq (i32.and (local.get 0) (i32.const {mask}))
      (i32.and (i32.add (local.get 0) (i32.const {step})) (i32.const {mask}))))
  (func (export "differ") (param i32) (result i32)
    (i32.ne (i32.and (i32.add (local.get 0) (i32.const {step})) (i32.const {mask}))
      (i32.and (local.get 0) (i32.const {mask}))))
  (func (export "cleared") (param i32) (result i32)
    (i32.and (i32.xor (i32.shl (i32.const 1) (local.get 0)) (i32.const -1)) (local.get 0)))
  (func (export "both") (param i32) (result i32)
    (i32.and (i32.xor (local.get 0) (i32.const -1))
      (i32.xor (i32.add (local.get 0) (i32.const {step})) (i32.const -1)))))"""


@pytest.mark.parametrize(
    "step", [1, -1, 3, -3, 4, 15, 16, -16, 17, 1 << 27, (1 << 28) - 1, 1 << 28, -(1 << 31)]
)
@pytest.mark.parametrize("mask", [0xF000_0000, 0xFFFF_FFFC, 0xFFFF_FFF0, 0x8000_0000, 0xFFFF_FFFF, 0xFFF8])
def test_masks_of_high_bits(mask: int, step: int) -> None:
    """They are written as small negative numbers, and a carry into them is asked of the low bits."""
    exports = Instance(
        Module(HIGH_BITS.format(mask=mask, step=step)), store=Store(engine="translate")
    ).exports
    edges = {0, 1, mask, ~mask, 0x0FFF_FFFF, 0x1000_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF}
    for x in sorted(edge + near & 0xFFFF_FFFF for edge in edges for near in range(-18, 19)):
        moved = x + step & 0xFFFF_FFFF
        assert exports["low"].raw(x) == x & mask
        assert exports["wide"].raw(x) == moved & mask
        assert exports["equal"].raw(x) == (x & mask == moved & mask), x
        assert exports["differ"].raw(x) == (x & mask != moved & mask), x
        assert exports["cleared"].raw(x) == x & ~(1 << x % 32)
        assert exports["both"].raw(x) == ~x & ~moved & 0xFFFF_FFFF, x


@pytest.mark.parametrize("name", ["i32.lt_s", "i32.ge_u", "i64.eq", "f64.lt", "i32.eqz", "i64.le_s"])
def test_a_comparison_in_every_place(name: str) -> None:
    """As a condition, as a number, negated twice, stored, selected and returned."""
    (opcode,) = [row for row in ROWS if row.name == name]
    assert opcode.signature is not None
    params = " ".join(map(str, opcode.signature.params))
    test = f"({name} {' '.join(f'(local.get {i})' for i in range(len(opcode.signature.params)))})"
    module = Module(f"""(module (memory 1) (global $g (mut i32) (i32.const 9))
      (func (export "f") (param {params}) (result i32) (local $t i32)
        (local.set $t {test})
        (global.set $g {test})
        (i32.store (i32.const 0) {test})
        (i32.add (i32.mul (i32.add {test} (i32.eqz (i32.eqz {test}))) (i32.const 1000))
          (i32.add (i32.add (i32.load (i32.const 0)) (global.get $g))
            (i32.add (select (i32.const 10) (i32.const 0) {test})
              (if (result i32) {test} (then (local.get $t)) (else (i32.const 0))))))))""")
    run = Instance(module, store=Store(engine="translate")).exports["f"]
    source = random.Random(name)
    for _ in range(60):
        operands = [source.choice(EDGES[t]) for t in opcode.signature.params]
        assert run.raw(*operands) == (2013 if function(name)(*operands) else 0)


def test_nans_keep_their_bits_where_they_are_only_moved() -> None:
    text = """(module (memory 1) (func (export "f") (param i64) (result i64) (local $a f64) (local $b f64)
      (i64.store (i32.const 0) (local.get 0))
      (local.set $a (f64.load (i32.const 0)))
      (local.set $b (local.get $a))
      (f64.store (i32.const 8) (select (local.get $b) (f64.const 1) (i32.const 1)))
      (i64.load (i32.const 8))))"""
    run = Instance(Module(text), store=Store(engine="translate")).exports["f"]
    for pattern in (0x7FF8_0000_0000_0005, 0xFFF8_0000_0000_0000, 0x7FF0_0000_0000_0001):
        assert run.raw(pattern) == pattern


def test_computed_nans_are_canonical_wherever_they_are_seen() -> None:
    text = """(module (memory 1) (func (export "f") (param f64) (result i64) (local $a f64)
      (local.set $a (f64.sub (local.get 0) (local.get 0)))
      (local.set $a (f64.mul (local.get $a) (f64.const -1)))
      (f64.store (i32.const 0) (local.get $a))
      (i64.load (i32.const 0))))"""
    run = Instance(Module(text), store=Store(engine="translate")).exports["f"]
    assert run.raw(float("inf")) == 0x7FF8_0000_0000_0000
    assert struct.unpack("<d", struct.pack("<Q", run.raw(2.0)))[0] == 0.0
