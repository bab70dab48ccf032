"""Types: interned, printable, parsed from short text; matching of imports; equal types are one object."""

from __future__ import annotations

import copy
import pickle

import pytest

from pywasmvm import features
from pywasmvm.matching import canonical, match_extern, match_limits, matches
from pywasmvm.types import (
    BOTTOM,
    BY_NAME,
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    TableType,
    ValType,
    ref,
)

ALL = [I32, I64, F32, F64, FUNCREF, EXTERNREF, BOTTOM]


@pytest.mark.parametrize("type_", ALL, ids=repr)
def test_copies_are_the_same_object(type_: ValType) -> None:
    assert copy.deepcopy(type_) is type_
    assert pickle.loads(pickle.dumps(type_)) is type_


def test_function_types_from_text() -> None:
    assert FuncType.parse("i32 i64 -> f32") == FuncType((I32, I64), (F32,))
    assert FuncType.parse("->") == FuncType()
    assert FuncType.parse(" -> funcref externref") == FuncType((), (FUNCREF, EXTERNREF))
    for wrong in ("i32", "i32 -> i33", "i32, i64 ->"):
        with pytest.raises(ValueError, match=r"arrow|unknown value type"):
            FuncType.parse(wrong)


def test_texts() -> None:
    assert str(FuncType((I32, I64), (F64,))) == "i32 i64 -> f64"
    assert str(FuncType((I32,))) == "i32 ->"
    assert str(FuncType((), (I32,))) == "-> i32"
    assert repr(FuncType((I32,), ())) == "FuncType([i32], [])"
    assert str(MemoryType(Limits(1, 2))) == "memory 1..2"
    assert str(TableType(FUNCREF, Limits(1))) == "table 1 funcref"
    assert str(GlobalType(I32, True)) == "global (mut i32)"
    assert str(GlobalType(I32)) == "global i32"
    assert repr(ref(False, HeapType.FUNC)) == "(ref func)"
    assert ref(True, HeapType.EXTERN) is EXTERNREF
    assert BY_NAME["externref"] is EXTERNREF


def test_a_value_matches_its_own_type_and_bottom_every_one() -> None:
    for found in ALL:
        for wanted in ALL[:-1]:
            assert matches(found, wanted) == (found is wanted or found is BOTTOM)
    exact = ref(False, HeapType.FUNC)
    assert matches(exact, FUNCREF)
    assert not matches(FUNCREF, exact)
    assert not matches(exact, EXTERNREF)
    assert not matches(exact, I32)


@pytest.mark.parametrize(
    ("found", "wanted", "fits"),
    [
        ((1, None), (1, None), True),
        ((2, None), (1, None), True),
        ((0, None), (1, None), False),
        ((1, None), (1, 5), False),
        ((1, 5), (1, 5), True),
        ((1, 4), (1, 5), True),
        ((1, 6), (1, 5), False),
        ((1, 5), (1, None), True),
    ],
)
def test_limits(found: tuple[int, int | None], wanted: tuple[int, int | None], fits: bool) -> None:
    assert match_limits(Limits(*found), Limits(*wanted)) is fits
    one, other = Limits(*found), Limits(*wanted)
    assert match_extern(MemoryType(one), MemoryType(other)) is fits
    assert match_extern(TableType(FUNCREF, one), TableType(FUNCREF, other)) is fits


def test_externs() -> None:
    exact = ref(False, HeapType.FUNC)
    one = Limits(1)
    assert match_extern(FuncType((I32,)), FuncType((I32,)))
    assert not match_extern(FuncType((I32,)), FuncType())
    assert not match_extern(MemoryType(one, I64), MemoryType(one))
    assert not match_extern(TableType(FUNCREF, one, I64), TableType(FUNCREF, one))
    assert not match_extern(TableType(exact, one), TableType(FUNCREF, one))
    assert match_extern(GlobalType(exact), GlobalType(FUNCREF))
    assert not match_extern(GlobalType(exact, True), GlobalType(FUNCREF, True))
    assert not match_extern(GlobalType(I32, True), GlobalType(I32))
    for found in (FuncType(), MemoryType(one), TableType(FUNCREF, one), GlobalType(I32)):
        for wanted in (FuncType(), MemoryType(one), TableType(FUNCREF, one), GlobalType(I32)):
            assert match_extern(found, wanted) is (type(found) is type(wanted))


def test_equal_function_types_become_one_object() -> None:
    assert canonical(FuncType((I32, F32), (I64,))) is canonical(FuncType((I32, F32), (I64,)))
    assert canonical(FuncType((I32,))) is not canonical(FuncType((I64,)))


def test_features() -> None:
    assert features.resolve(None) == features.DEFAULT
    assert features.resolve([]) == {"mvp"}
    assert features.resolve(["reference-types"]) == {"mvp", "reference-types", "bulk-memory"}
    with pytest.raises(ValueError, match="unknown feature 'x'; there are: mvp, "):
        features.resolve(["x"])
