"""Rows of the numeric instructions (spec: Structure, Numeric Instructions)."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row


def _group(first: int, sig: str, names: str, feature: str = features.MVP) -> list[Opcode]:
    """Rows with consecutive codes and one signature."""
    return [row(first + i, name, sig, feature=feature) for i, name in enumerate(names.split())]


def _conversions(first: int, table: str) -> list[Opcode]:
    """Rows with consecutive codes; each word is a name and its operand type."""
    rows = []
    for i, line in enumerate(table.split()):
        name, operand = line.split("<")
        rows.append(row(first + i, name, f"{operand} -> {name[:3]}"))
    return rows


_INT_COMPARE = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"
_FLOAT_COMPARE = "eq ne lt gt le ge"
_INT_BINARY = "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr"
_FLOAT_UNARY = "abs neg ceil floor trunc nearest sqrt"
_FLOAT_BINARY = "add sub mul div min max copysign"


def _named(prefix: str, names: str) -> str:
    return " ".join(f"{prefix}.{name}" for name in names.split())


ROWS: list[Opcode] = [
    row(0x41, "i32.const", "-> i32", "i32"),
    row(0x42, "i64.const", "-> i64", "i64"),
    row(0x43, "f32.const", "-> f32", "f32"),
    row(0x44, "f64.const", "-> f64", "f64"),
    row(0x45, "i32.eqz", "i32 -> i32"),
    *_group(0x46, "i32 i32 -> i32", _named("i32", _INT_COMPARE)),
    row(0x50, "i64.eqz", "i64 -> i32"),
    *_group(0x51, "i64 i64 -> i32", _named("i64", _INT_COMPARE)),
    *_group(0x5B, "f32 f32 -> i32", _named("f32", _FLOAT_COMPARE)),
    *_group(0x61, "f64 f64 -> i32", _named("f64", _FLOAT_COMPARE)),
    *_group(0x67, "i32 -> i32", "i32.clz i32.ctz i32.popcnt"),
    *_group(0x6A, "i32 i32 -> i32", _named("i32", _INT_BINARY)),
    *_group(0x79, "i64 -> i64", "i64.clz i64.ctz i64.popcnt"),
    *_group(0x7C, "i64 i64 -> i64", _named("i64", _INT_BINARY)),
    *_group(0x8B, "f32 -> f32", _named("f32", _FLOAT_UNARY)),
    *_group(0x92, "f32 f32 -> f32", _named("f32", _FLOAT_BINARY)),
    *_group(0x99, "f64 -> f64", _named("f64", _FLOAT_UNARY)),
    *_group(0xA0, "f64 f64 -> f64", _named("f64", _FLOAT_BINARY)),
    *_conversions(
        0xA7,
        "i32.wrap_i64<i64 "
        "i32.trunc_f32_s<f32 i32.trunc_f32_u<f32 i32.trunc_f64_s<f64 i32.trunc_f64_u<f64 "
        "i64.extend_i32_s<i32 i64.extend_i32_u<i32 "
        "i64.trunc_f32_s<f32 i64.trunc_f32_u<f32 i64.trunc_f64_s<f64 i64.trunc_f64_u<f64 "
        "f32.convert_i32_s<i32 f32.convert_i32_u<i32 f32.convert_i64_s<i64 f32.convert_i64_u<i64 "
        "f32.demote_f64<f64 "
        "f64.convert_i32_s<i32 f64.convert_i32_u<i32 f64.convert_i64_s<i64 f64.convert_i64_u<i64 "
        "f64.promote_f32<f32 "
        "i32.reinterpret_f32<f32 i64.reinterpret_f64<f64 f32.reinterpret_i32<i32 f64.reinterpret_i64<i64",
    ),
    *_group(0xC0, "i32 -> i32", "i32.extend8_s i32.extend16_s", features.SIGN_EXTENSION),
    *_group(0xC2, "i64 -> i64", "i64.extend8_s i64.extend16_s i64.extend32_s", features.SIGN_EXTENSION),
    *(
        row(
            i,
            f"{result}.trunc_sat_{operand}_{sign}",
            f"{operand} -> {result}",
            prefix=0xFC,
            feature=features.SATURATING,
        )
        for i, (result, operand, sign) in enumerate(
            (result, operand, sign)
            for result in ("i32", "i64")
            for operand in ("f32", "f64")
            for sign in ("s", "u")
        )
    ),
]
