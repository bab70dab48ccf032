"""Rows of the memory instructions: loads, stores, size, growth and bulk operations."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row


def _load(code: int, name: str, access: str) -> Opcode:
    return row(code, name, f"addr -> {name[:3]}", "memarg", access=access)


def _store(code: int, name: str, access: str) -> Opcode:
    return row(code, name, f"addr {name[:3]} ->", "memarg", access=access)


ROWS: list[Opcode] = [
    _load(0x28, "i32.load", "u32"),
    _load(0x29, "i64.load", "u64"),
    _load(0x2A, "f32.load", "f32"),
    _load(0x2B, "f64.load", "f64"),
    _load(0x2C, "i32.load8_s", "s8"),
    _load(0x2D, "i32.load8_u", "u8"),
    _load(0x2E, "i32.load16_s", "s16"),
    _load(0x2F, "i32.load16_u", "u16"),
    _load(0x30, "i64.load8_s", "s8"),
    _load(0x31, "i64.load8_u", "u8"),
    _load(0x32, "i64.load16_s", "s16"),
    _load(0x33, "i64.load16_u", "u16"),
    _load(0x34, "i64.load32_s", "s32"),
    _load(0x35, "i64.load32_u", "u32"),
    _store(0x36, "i32.store", "u32"),
    _store(0x37, "i64.store", "u64"),
    _store(0x38, "f32.store", "f32"),
    _store(0x39, "f64.store", "f64"),
    _store(0x3A, "i32.store8", "u8"),
    _store(0x3B, "i32.store16", "u16"),
    _store(0x3C, "i64.store8", "u8"),
    _store(0x3D, "i64.store16", "u16"),
    _store(0x3E, "i64.store32", "u32"),
    row(0x3F, "memory.size", "-> addr", "memory"),
    row(0x40, "memory.grow", "addr -> addr", "memory"),
    row(8, "memory.init", "addr i32 i32 ->", "data memory", prefix=0xFC, feature=features.BULK_MEMORY),
    row(9, "data.drop", "->", "data", prefix=0xFC, feature=features.BULK_MEMORY),
    # Two memories may have different address types, so this row needs a rule.
    row(10, "memory.copy", None, "memory memory", prefix=0xFC, feature=features.BULK_MEMORY),
    row(11, "memory.fill", "addr i32 addr ->", "memory", prefix=0xFC, feature=features.BULK_MEMORY),
]
