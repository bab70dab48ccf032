"""Rows of the vector instructions, relaxed ones included (spec: Structure, Vector Instructions)."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row


def _row(code: int, name: str, sig: str, imm: str = "", access: str | None = None) -> Opcode:
    feature = features.RELAXED_SIMD if code >= 0x100 else features.SIMD
    return row(code, name, sig, imm, prefix=0xFD, feature=feature, access=access)


def _group(first: int, sig: str, shape: str, names: str) -> list[Opcode]:
    """Rows with consecutive codes, one signature and one shape; a dash leaves a code out."""
    return [_row(first + i, f"{shape}.{name}", sig) for i, name in enumerate(names.split()) if name != "-"]


def _loads(first: int, table: str) -> list[Opcode]:
    """Loads with consecutive codes; each word is a name and its access."""
    return [
        _row(first + i, f"v128.{name}", "addr -> v128", "memarg", access)
        for i, (name, access) in enumerate(word.split("=") for word in table.split())
    ]


def _lanes(first: int, table: str) -> list[Opcode]:
    """extract_lane and replace_lane, for each shape and the type of its lanes."""
    rows: list[Opcode] = []
    for word in table.split():
        shape, type_ = word.split("=")
        ways = ("extract_lane_s", "extract_lane_u") if shape in ("i8x16", "i16x8") else ("extract_lane",)
        for way in ways:
            rows.append(_row(first + len(rows), f"{shape}.{way}", f"v128 -> {type_}", "lane"))
        name = f"{shape}.replace_lane"
        rows.append(_row(first + len(rows), name, f"v128 {type_} -> v128", "lane"))
    return rows


_UNARY, _BINARY, _TERNARY = "v128 -> v128", "v128 v128 -> v128", "v128 v128 v128 -> v128"
_TEST, _SHIFT = "v128 -> i32", "v128 i32 -> v128"
_COMPARE = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"
_FLOAT_COMPARE = "eq ne lt gt le ge"

ROWS: list[Opcode] = [
    *_loads(
        0x00,
        "load=v128 load8x8_s=s8x8 load8x8_u=u8x8 load16x4_s=s16x4 load16x4_u=u16x4 load32x2_s=s32x2 "
        "load32x2_u=u32x2 load8_splat=splat8 load16_splat=splat16 load32_splat=splat32 load64_splat=splat64",
    ),
    _row(0x0B, "v128.store", "addr v128 ->", "memarg", "v128"),
    _row(0x0C, "v128.const", "-> v128", "v128"),
    _row(0x0D, "i8x16.shuffle", _BINARY, "lanes"),
    _row(0x0E, "i8x16.swizzle", _BINARY),
    *(
        _row(0x0F + i, f"{shape}.splat", f"{lane} -> v128")
        for i, (shape, lane) in enumerate(
            [
                ("i8x16", "i32"),
                ("i16x8", "i32"),
                ("i32x4", "i32"),
                ("i64x2", "i64"),
                ("f32x4", "f32"),
                ("f64x2", "f64"),
            ]
        )
    ),
    *_lanes(0x15, "i8x16=i32 i16x8=i32 i32x4=i32 i64x2=i64 f32x4=f32 f64x2=f64"),
    *_group(0x23, _BINARY, "i8x16", _COMPARE),
    *_group(0x2D, _BINARY, "i16x8", _COMPARE),
    *_group(0x37, _BINARY, "i32x4", _COMPARE),
    *_group(0x41, _BINARY, "f32x4", _FLOAT_COMPARE),
    *_group(0x47, _BINARY, "f64x2", _FLOAT_COMPARE),
    _row(0x4D, "v128.not", _UNARY),
    *_group(0x4E, _BINARY, "v128", "and andnot or xor"),
    _row(0x52, "v128.bitselect", _TERNARY),
    _row(0x53, "v128.any_true", _TEST),
    *(
        _row(0x54 + i, f"v128.load{8 << i}_lane", "addr v128 -> v128", "memarg lane", f"lane{8 << i}")
        for i in range(4)
    ),
    *(
        _row(0x58 + i, f"v128.store{8 << i}_lane", "addr v128 ->", "memarg lane", f"lane{8 << i}")
        for i in range(4)
    ),
    *_loads(0x5C, "load32_zero=zero32 load64_zero=zero64"),
    _row(0x5E, "f32x4.demote_f64x2_zero", _UNARY),
    _row(0x5F, "f64x2.promote_low_f32x4", _UNARY),
    # The codes of the integer shapes run in parallel; gaps in them hold what only one shape has.
    *_group(0x60, _UNARY, "i8x16", "abs neg popcnt"),
    *_group(0x63, _TEST, "i8x16", "all_true bitmask"),
    *_group(0x65, _BINARY, "i8x16", "narrow_i16x8_s narrow_i16x8_u"),
    *_group(0x67, _UNARY, "f32x4", "ceil floor trunc nearest"),
    *_group(0x6B, _SHIFT, "i8x16", "shl shr_s shr_u"),
    *_group(0x6E, _BINARY, "i8x16", "add add_sat_s add_sat_u sub sub_sat_s sub_sat_u"),
    *_group(0x74, _UNARY, "f64x2", "ceil floor"),
    *_group(0x76, _BINARY, "i8x16", "min_s min_u max_s max_u"),
    _row(0x7A, "f64x2.trunc", _UNARY),
    _row(0x7B, "i8x16.avgr_u", _BINARY),
    *_group(0x7C, _UNARY, "i16x8", "extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u"),
    *_group(0x7E, _UNARY, "i32x4", "extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u"),
    *_group(0x80, _UNARY, "i16x8", "abs neg"),
    _row(0x82, "i16x8.q15mulr_sat_s", _BINARY),
    *_group(0x83, _TEST, "i16x8", "all_true bitmask"),
    *_group(0x85, _BINARY, "i16x8", "narrow_i32x4_s narrow_i32x4_u"),
    *_group(
        0x87, _UNARY, "i16x8", "extend_low_i8x16_s extend_high_i8x16_s extend_low_i8x16_u extend_high_i8x16_u"
    ),
    *_group(0x8B, _SHIFT, "i16x8", "shl shr_s shr_u"),
    *_group(0x8E, _BINARY, "i16x8", "add add_sat_s add_sat_u sub sub_sat_s sub_sat_u"),
    _row(0x94, "f64x2.nearest", _UNARY),
    *_group(0x95, _BINARY, "i16x8", "mul min_s min_u max_s max_u - avgr_u"),
    *_group(
        0x9C,
        _BINARY,
        "i16x8",
        "extmul_low_i8x16_s extmul_high_i8x16_s extmul_low_i8x16_u extmul_high_i8x16_u",
    ),
    *_group(0xA0, _UNARY, "i32x4", "abs neg"),
    *_group(0xA3, _TEST, "i32x4", "all_true bitmask"),
    *_group(
        0xA7, _UNARY, "i32x4", "extend_low_i16x8_s extend_high_i16x8_s extend_low_i16x8_u extend_high_i16x8_u"
    ),
    *_group(0xAB, _SHIFT, "i32x4", "shl shr_s shr_u"),
    _row(0xAE, "i32x4.add", _BINARY),
    _row(0xB1, "i32x4.sub", _BINARY),
    *_group(0xB5, _BINARY, "i32x4", "mul min_s min_u max_s max_u dot_i16x8_s"),
    *_group(
        0xBC,
        _BINARY,
        "i32x4",
        "extmul_low_i16x8_s extmul_high_i16x8_s extmul_low_i16x8_u extmul_high_i16x8_u",
    ),
    *_group(0xC0, _UNARY, "i64x2", "abs neg"),
    *_group(0xC3, _TEST, "i64x2", "all_true bitmask"),
    *_group(
        0xC7, _UNARY, "i64x2", "extend_low_i32x4_s extend_high_i32x4_s extend_low_i32x4_u extend_high_i32x4_u"
    ),
    *_group(0xCB, _SHIFT, "i64x2", "shl shr_s shr_u"),
    _row(0xCE, "i64x2.add", _BINARY),
    _row(0xD1, "i64x2.sub", _BINARY),
    _row(0xD5, "i64x2.mul", _BINARY),
    *_group(0xD6, _BINARY, "i64x2", "eq ne lt_s gt_s le_s ge_s"),
    *_group(
        0xDC,
        _BINARY,
        "i64x2",
        "extmul_low_i32x4_s extmul_high_i32x4_s extmul_low_i32x4_u extmul_high_i32x4_u",
    ),
    *_group(0xE0, _UNARY, "f32x4", "abs neg - sqrt"),
    *_group(0xE4, _BINARY, "f32x4", "add sub mul div min max pmin pmax"),
    *_group(0xEC, _UNARY, "f64x2", "abs neg - sqrt"),
    *_group(0xF0, _BINARY, "f64x2", "add sub mul div min max pmin pmax"),
    *_group(0xF8, _UNARY, "i32x4", "trunc_sat_f32x4_s trunc_sat_f32x4_u"),
    *_group(0xFA, _UNARY, "f32x4", "convert_i32x4_s convert_i32x4_u"),
    *_group(0xFC, _UNARY, "i32x4", "trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero"),
    *_group(0xFE, _UNARY, "f64x2", "convert_low_i32x4_s convert_low_i32x4_u"),
    _row(0x100, "i8x16.relaxed_swizzle", _BINARY),
    *_group(
        0x101,
        _UNARY,
        "i32x4",
        "relaxed_trunc_f32x4_s relaxed_trunc_f32x4_u relaxed_trunc_f64x2_s_zero relaxed_trunc_f64x2_u_zero",
    ),
    *_group(0x105, _TERNARY, "f32x4", "relaxed_madd relaxed_nmadd"),
    *_group(0x107, _TERNARY, "f64x2", "relaxed_madd relaxed_nmadd"),
    *(
        _row(0x109 + i, f"{shape}.relaxed_laneselect", _TERNARY)
        for i, shape in enumerate(["i8x16", "i16x8", "i32x4", "i64x2"])
    ),
    *_group(0x10D, _BINARY, "f32x4", "relaxed_min relaxed_max"),
    *_group(0x10F, _BINARY, "f64x2", "relaxed_min relaxed_max"),
    _row(0x111, "i16x8.relaxed_q15mulr_s", _BINARY),
    _row(0x112, "i16x8.relaxed_dot_i8x16_i7x16_s", _BINARY),
    _row(0x113, "i32x4.relaxed_dot_i8x16_i7x16_add_s", _TERNARY),
]
