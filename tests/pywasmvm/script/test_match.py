"""Result patterns: what agrees and what does not, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import HostFunc
from pywasmvm.matching import close_types
from pywasmvm.numerics.bits import f32_from_bits, f64_from_bits
from pywasmvm.runtime.gc import I31, Array, Struct
from pywasmvm.runtime.tag import Exn, Tag
from pywasmvm.script.match import (
    Either,
    Exact,
    Host,
    HostRef,
    Lanes,
    NaN,
    Null,
    Reference,
    from_bits,
    mismatch,
    to_bits,
)
from pywasmvm.types import (
    ANYREF,
    EXNREF,
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    V128,
    ArrayType,
    FieldType,
    FuncType,
    HeapType,
    StructType,
    SubType,
    ValType,
    ref,
)

STRUCT, ARRAY = close_types([SubType(StructType()), SubType(ArrayType(FieldType(I32)))], [1, 1])


@given(st.sampled_from([(I32, 32), (I64, 64), (F32, 32), (F64, 64), (V128, 128)]), st.data())
def test_bits_go_there_and_back(which: tuple[ValType, int], data: st.DataObject) -> None:
    type_, width = which
    bits = data.draw(st.integers(0, (1 << width) - 1))
    assert to_bits(type_, from_bits(type_, bits)) == bits
    assert Exact(type_, bits).accepts(type_, from_bits(type_, bits))


@pytest.mark.parametrize(
    ("pattern", "type_", "value"),
    [
        (Exact(F64, 0), F64, -0.0),
        (Exact(F32, 0x7FC00000), F32, f32_from_bits(0xFFC00000)),
        (Exact(F32, 0x7FA00000), F32, f32_from_bits(0x7FE00000)),
        (Exact(I32, 1), I64, 1),
        (Exact(F32, 0x3F800000), F64, 1.0),
        (Exact(I32, 0), ref(True, HeapType.ANY), None),
    ],
)
def test_nearly_is_not_exactly(pattern: Exact, type_: ValType, value: Any) -> None:
    assert not pattern.accepts(type_, value)


@pytest.mark.parametrize(
    ("bits", "canonical", "arithmetic"),
    [
        (0x7FC00000, True, True),
        (0xFFC00000, True, True),
        (0x7FC00001, False, True),
        (0xFFE00000, False, True),
        (0x7FA00000, False, False),
        (0x7F800000, False, False),
        (0x3F800000, False, False),
    ],
)
def test_nan_classes(bits: int, canonical: bool, arithmetic: bool) -> None:
    value = f32_from_bits(bits)
    assert NaN(F32, "nan:canonical").accepts(F32, value) is canonical
    assert NaN(F32, "nan:arithmetic").accepts(F32, value) is arithmetic
    wide = (bits & 0x80000000) << 32 | (0x7FF << 52 if bits & 0x7F800000 == 0x7F800000 else 0)
    wide |= (bits & 0x7FFFFF) << 29
    assert NaN(F64, "nan:canonical").accepts(F64, f64_from_bits(wide)) is canonical
    assert not NaN(F64, "nan:canonical").accepts(F32, value)
    lanes = Lanes(32, ("nan:canonical", 5, "nan:arithmetic", 0))
    assert lanes.accepts(V128, bits | 5 << 32 | bits << 64) is canonical
    assert not lanes.accepts(V128, bits | 6 << 32 | bits << 64)
    assert not lanes.accepts(I64, 0)


def test_either() -> None:
    pattern = Either((Exact(I32, 1), Exact(I32, 2)))
    assert pattern.accepts(I32, 1)
    assert pattern.accepts(I32, 2)
    assert not pattern.accepts(I32, 3)


VALUES: dict[str, tuple[ValType, Any]] = {
    "func": (FUNCREF, HostFunc(FuncType(), lambda: None)),
    "exn": (EXNREF, Exn(Tag(FuncType()), ())),
    "i31": (ANYREF, I31(3)),
    "struct": (ANYREF, Struct(STRUCT, [])),
    "array": (ANYREF, Array(ARRAY, [])),
    "host": (ANYREF, HostRef(1)),
    "extern": (EXTERNREF, I31(3)),
    "typed": (ref(False, STRUCT), Struct(STRUCT, [])),
}


@pytest.mark.parametrize(
    ("word", "agreeing"),
    [
        ("func", {"func"}),
        ("exn", {"exn"}),
        ("i31", {"i31"}),
        ("struct", {"struct", "typed"}),
        ("array", {"array"}),
        ("eq", {"i31", "struct", "array", "typed"}),
        ("any", {"i31", "struct", "array", "typed", "host"}),
        ("extern", {"extern"}),
    ],
)
def test_kinds_of_references(word: str, agreeing: set[str]) -> None:
    assert {name for name, (t, v) in VALUES.items() if Reference(word).accepts(t, v)} == agreeing
    assert not Reference(word).accepts(ANYREF, None)
    assert not Reference(word).accepts(I32, 0)


def test_null_belongs_to_a_hierarchy() -> None:
    assert Null(None).accepts(FUNCREF, None)
    assert Null(HeapType.NOFUNC).accepts(FUNCREF, None)
    assert Null(HeapType.ANY).accepts(ref(True, STRUCT), None)
    assert not Null(HeapType.FUNC).accepts(EXTERNREF, None)
    assert not Null(None).accepts(EXTERNREF, HostRef(0))
    assert not Null(None).accepts(I32, 0)


def test_host_references() -> None:
    assert Host(1, external=False).accepts(ANYREF, HostRef(1))
    assert Host(1, external=True).accepts(EXTERNREF, HostRef(1))
    assert not Host(1, external=True).accepts(ANYREF, HostRef(1))
    assert not Host(1, external=False).accepts(ANYREF, HostRef(2))
    assert not Host(1, external=False).accepts(ANYREF, None)


def test_what_a_mismatch_says() -> None:
    one, two = Exact(I32, 1), Exact(F32, 0x3F800000)
    assert mismatch([one, two], [I32, F32], [1, 1.0]) is None
    assert mismatch([one], [], []) == "got 0 results, expected 1"
    assert mismatch([one], [I32], [2]) == "got i32:2, expected i32:1"
    found = mismatch([one, two], [I32, F32], [1, 2.0])
    assert found == "result 1: got f32:2.0 (0x40000000), expected f32:1.0 (0x3f800000)"
