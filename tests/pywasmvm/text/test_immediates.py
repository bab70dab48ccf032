"""Immediates of instructions: every form they may be written in, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.binary.decode import decode
from pywasmvm.comparison import same
from pywasmvm.errors import MalformedError
from pywasmvm.isa import Imm
from pywasmvm.numerics.bits import f32_to_bits
from pywasmvm.syntax import MemArg
from pywasmvm.text.immediates import READ
from pywasmvm.text.instructions import PRINTED
from pywasmvm.text.parser import parse_module
from pywasmvm.types import EXTERNREF, FUNCREF, I32, I64, HeapType, ref
from tests.support.wat import assembled

SPACES = (
    "(type $t (func)) (type $s (struct (field $x i32) (field $y i32))) (memory $m 1) (memory $n 1)"
    "(table $a 1 funcref) (table $b 1 funcref) (global $g i32 (i32.const 0)) (elem $e func) (elem $d func)"
    '(data $p "") (data $q "")'
)


def read(text: str) -> Any:
    """The immediates of one instruction."""
    bodies = parse_module(f"{SPACES} (func {text})").bodies
    assert bodies is not None
    return bodies[0].immediates[0]


def test_every_kind_is_read_and_printed() -> None:
    assert frozenset(Imm) == READ == PRINTED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i32.load", MemArg(2, 0)),
        ("i32.load offset=0x10", MemArg(2, 16)),
        ("i32.load align=1", MemArg(0, 0)),
        ("i64.load8_u $n offset=1_0 align=0x4", MemArg(2, 10, 1)),
        ("v128.load 1", MemArg(4, 0, 1)),
        ("i32.store offset=18446744073709551615", MemArg(2, 2**64 - 1)),
        ("v128.load8_lane 3", (MemArg(0, 0), 3)),
        ("v128.load8_lane 1 3", (MemArg(0, 0, 1), 3)),
        ("v128.store64_lane $n 1", (MemArg(3, 0, 1), 1)),
        ("v128.load16_lane 1 align=1 255", (MemArg(0, 0, 1), 255)),
        ("v128.load16_lane offset=7 0", (MemArg(1, 7), 0)),
        ("memory.size", 0),
        ("memory.size $n", 1),
        ("memory.fill 1", 1),
        ("memory.copy", (0, 0)),
        ("memory.copy $m $n", (0, 1)),
        ("memory.init $q", (1, 0)),
        ("memory.init $n $p", (0, 1)),
        ("data.drop $q", 1),
        ("table.get", 0),
        ("table.grow $b", 1),
        ("table.copy", (0, 0)),
        ("table.copy 1 $a", (1, 0)),
        ("table.init $d", (1, 0)),
        ("table.init $b $e", (0, 1)),
        ("elem.drop 7", 7),
        ("call_indirect", (0, 0)),
        ("call_indirect (type $t)", (0, 0)),
        ("call_indirect $b (type $s)", (1, 1)),
        ("return_call_indirect 1 (param i32)", (2, 1)),
        ("call_ref $t", 0),
        ("br_table 0", (0,)),
        ("br_table 0 1 2", (0, 1, 2)),
        ("select", None),
        ("select (result i32)", (I32,)),
        ("select (result) (result i32 i64)", (I32, I64)),
        ("ref.null extern", HeapType.EXTERN),
        ("ref.null $s", 1),
        ("ref.test (ref any)", ref(False, HeapType.ANY)),
        ("ref.test anyref", ref(True, HeapType.ANY)),
        ("ref.cast (ref null $s)", ref(True, 1)),
        ("br_on_cast 0 anyref (ref i31)", (0, ref(True, HeapType.ANY), ref(False, HeapType.I31))),
        ("br_on_cast_fail 0 externref funcref", (0, EXTERNREF, FUNCREF)),
        ("struct.get $s $y", (1, 1)),
        ("struct.get $s 0", (1, 0)),
        ("struct.set 9 9", (9, 9)),
        ("array.new_fixed 4 3", (4, 3)),
        ("array.copy 1 2", (1, 2)),
        ("array.new_data 3 $q", (3, 1)),
        ("array.init_elem 3 $d", (3, 1)),
        ("i32.const -0x8000_0000", 0x80000000),
        ("i64.const -1", 2**64 - 1),
        ("i8x16.extract_lane_s 0xff", 255),
        ("i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 255", bytes([*range(15), 255])),
    ],
)
def test_forms(text: str, expected: object) -> None:
    found = read(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        "i32.load align=0",
        "i32.load align=3",
        "i32.load align=-1",
        "i32.load align = 4",
        "i32.load offset= 4",
        "i32.load offset=",
        "i32.load offset=-1",
        "i32.load offset=18446744073709551616",
        "i32.load align=4 offset=4",
        "i32.load 1 2",
        "i32.load offset=1 offset=1",
        "v128.load8_lane",
        "v128.load8_lane 256",
        "v128.load8_lane offset=0",
        "memory.copy 0",
        "table.copy $a",
        "memory.init",
        "table.init",
        "data.drop",
        "call",
        "call_ref",
        "call_indirect (type $t) $a",
        "call_indirect (local i32)",
        "br",
        "br_table",
        "br $m",
        "local.get",
        "local.get -1",
        "local.get 4294967296",
        "local.get 1.0",
        "global.get",
        "select (param i32)",
        "ref.null",
        "ref.null funcref",
        "ref.null (ref func)",
        "ref.test",
        "ref.test any",
        "ref.test i32",
        "br_on_cast anyref anyref",
        "br_on_cast 0 anyref",
        "struct.get $s",
        "struct.get $s $z",
        "struct.get $t $x",
        "struct.new",
        "array.new_fixed 0",
        "i32.const",
        "i32.const 4294967296",
        "i32.const -2147483649",
        "i32.const 1.0",
        "i32.const nan",
        "i64.const 0x1_0000_0000_0000_0000",
        "f32.const nan:0x0",
        "f32.const 0x1p128",
        "f64.const nan:canonical",
        "i32.const (i32.const 1)",
        "i8x16.extract_lane_s",
        "i8x16.extract_lane_s 256",
        "i8x16.extract_lane_s -1",
        "i8x16.extract_lane_s +1",
        "i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14",
        "i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 256",
        "i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 -1",
        "v128.const",
        "v128.const i8",
        "v128.const i32x4",
        "v128.const i32x4 0 0 0",
        "v128.const i32x4 0 0 0 0 0",
        "v128.const i8x16 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 256",
        "v128.const i16x8 0 0 0 0 0 0 0 -32769",
        "v128.const i32x4 0 0 0 1.0",
        "v128.const f32x4 0 0 0 1e39",
        "v128.const f32x4 0 0 0 nan:canonical",
        "v128.const 0 0 0 0",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        read(text)
    with pytest.raises(ValueError):  # noqa: PT011
        assembled(f"(module {SPACES} (func {text}))")


_SHAPES = {"i8x16": (16, 8), "i16x8": (8, 16), "i32x4": (4, 32), "i64x2": (2, 64)}


@given(st.sampled_from(list(_SHAPES)), st.integers(0, 2**128 - 1), st.booleans())
def test_vectors_of_integers(shape: str, value: int, signed: bool) -> None:
    count, width = _SHAPES[shape]
    lanes = [value >> n * width & (1 << width) - 1 for n in range(count)]
    if signed:
        lanes = [lane - (1 << width) if lane >> width - 1 else lane for lane in lanes]
    assert read(f"v128.const {shape} {' '.join(map(str, lanes))}") == value


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4))
def test_vectors_of_floats(lanes: list[int]) -> None:
    texts = []
    for bits in lanes:
        payload, sign = bits & 0x7FFFFF, "-" if bits >> 31 else ""
        if bits >> 23 & 0xFF == 0xFF:
            texts.append(f"{sign}nan:{payload:#x}" if payload else f"{sign}inf")
        else:
            exponent = max(bits >> 23 & 0xFF, 1) - 150
            texts.append(f"{sign}{payload | (1 << 23 if bits >> 23 & 0xFF else 0):#x}p{exponent}")
    assert read(f"v128.const f32x4 {' '.join(texts)}") == sum(bits << 32 * n for n, bits in enumerate(lanes))
    assert [f32_to_bits(read(f"f32.const {text}")) for text in texts] == lanes


def test_another_parser_reads_the_same() -> None:
    """One function with an instruction of every form above that other tools know too."""
    forms = [case[0] for case in test_forms.pytestmark[0].args[1]]  # type: ignore[attr-defined]
    text = f"(module {SPACES} (func {' '.join(forms)}))"
    assert same(parse_module(text), decode(assembled(text))) is None
