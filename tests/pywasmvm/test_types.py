"""Types: interned, printable, parsed from short text; matching of imports; equal types are one object."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest

from pywasmvm import features
from pywasmvm.errors import InvalidError
from pywasmvm.matching import (
    abstract_heap,
    bottom_heap,
    close_types,
    def_type,
    match_extern,
    match_limits,
    matches,
    matches_heap,
    top_heap,
)
from pywasmvm.types import (
    BOTTOM,
    BY_NAME,
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I8,
    I32,
    I64,
    V128,
    ArrayType,
    FieldType,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    StructType,
    SubType,
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
    assert def_type(FuncType((I32, F32), (I64,))) is def_type(FuncType((I32, F32), (I64,)))
    assert def_type(FuncType((I32,))) is not def_type(FuncType((I64,)))


def struct(*fields: ValType, mutable: bool = False) -> SubType:
    return SubType(StructType(tuple(FieldType(field, mutable) for field in fields)))


def test_equal_groups_are_the_same_types_in_every_module() -> None:
    one = close_types([SubType(FuncType()), struct(ref(True, 1))], [1, 1])
    other = close_types([struct(ref(True, 0))], [1])
    assert one[1] is other[0]
    assert one[1] is not one[0]
    composite = other[0].composite
    assert isinstance(composite, StructType)
    assert composite.fields[0].storage is other[0].nullable_ref


def test_a_group_is_another_type_than_its_members_alone() -> None:
    alone = close_types([struct(I32), struct(I64)], [1, 1])
    together = close_types([struct(I32), struct(I64)], [2])
    assert alone[0] is not together[0]
    assert together == close_types([struct(I32), struct(I64)], [2])
    assert together != close_types([struct(I64), struct(I32)], [2])[::-1]


def test_finality_and_supertypes_belong_to_a_type() -> None:
    open_ = SubType(StructType(()), final=False)
    parent, child, other = close_types([open_, SubType(StructType(()), True, (0,)), struct()], [1, 1, 1])
    assert child.supers == (parent,)
    assert child.is_sub(parent)
    assert not parent.is_sub(child)
    assert other is not child
    assert matches(child.ref, parent.nullable_ref)
    assert not matches(parent.ref, child.nullable_ref)


def test_groups_are_forgotten_when_nobody_holds_them() -> None:
    held = close_types([struct(*[F32] * n) for n in range(40, 50)], [10])
    group = weakref.ref(held[0].group)
    assert close_types([struct(*[F32] * n) for n in range(40, 50)], [10])[3] is held[3]
    del held
    gc.collect()
    assert group() is None


@pytest.mark.parametrize(
    ("message", "types"),
    [
        ("unknown type 3", [struct(ref(True, 3))]),
        ("unknown type 7", [SubType(FuncType((ref(False, 7),)))]),
        ("unknown type 0: a supertype must be declared before", [SubType(StructType(()), False, (0,))]),
        ("sub type: more than one supertype", [SubType(StructType(()), True, (0, 0))]),
    ],
)
def test_types_that_are_refused(message: str, types: list[SubType]) -> None:
    with pytest.raises(InvalidError, match=message):
        close_types(types, [1] * len(types))


def test_hierarchies_of_heap_types() -> None:
    any_ = [HeapType.ANY, HeapType.EQ, HeapType.I31, HeapType.STRUCT, HeapType.ARRAY, HeapType.NONE]
    for heap in any_:
        assert top_heap(heap) is HeapType.ANY
        assert bottom_heap(heap) is HeapType.NONE
        assert matches_heap(HeapType.NONE, heap)
        assert matches_heap(heap, HeapType.ANY)
        assert matches_heap(HeapType.BOT, heap)
        assert not matches_heap(heap, HeapType.FUNC)
    assert matches_heap(HeapType.STRUCT, HeapType.EQ)
    assert not matches_heap(HeapType.STRUCT, HeapType.ARRAY)
    for top, bottom in (("func", "nofunc"), ("extern", "noextern"), ("exn", "noexn")):
        assert matches_heap(HeapType(bottom), HeapType(top))
        assert bottom_heap(HeapType(top)) is HeapType(bottom)
        assert not matches_heap(HeapType(top), HeapType(bottom))
    function, record = close_types([SubType(FuncType()), struct(I32)], [1, 1])
    assert abstract_heap(function) is HeapType.FUNC
    assert (top_heap(record), bottom_heap(record)) == (HeapType.ANY, HeapType.NONE)
    assert matches_heap(record, HeapType.EQ)
    assert matches_heap(HeapType.NONE, record)
    assert not matches_heap(HeapType.NONE, function)
    assert not matches_heap(HeapType.STRUCT, record)


def test_types_must_be_closed_before_they_are_compared() -> None:
    with pytest.raises(TypeError, match="must be closed"):
        matches(ref(True, 0), FUNCREF)


def test_texts_of_aggregates() -> None:
    assert str(StructType((FieldType(I32), FieldType(I8, True)))) == "struct i32 (mut i8)"
    assert str(ArrayType(FieldType(V128))) == "array v128"
    assert repr(ref(True, 3)) == "(ref null 3)"
    assert ref(True, 3) == ref(True, 3)
    assert ref(True, 3) != ref(False, 3)
    assert str(close_types([struct(I32)], [1])[0].ref) == "(ref <a struct type>)"
    assert repr(ref(True, HeapType.NONE)) == "nullref"
    assert str(MemoryType(Limits(1), I64)) == "memory i64 1"
    with pytest.raises(TypeError, match="is not a function type"):
        close_types([struct(I32)], [1])[0].func  # noqa: B018


def test_features() -> None:
    assert features.resolve(None) == features.DEFAULT
    assert features.resolve([]) == {"mvp"}
    assert features.resolve(["reference-types"]) == {"mvp", "reference-types", "bulk-memory"}
    with pytest.raises(ValueError, match="unknown feature 'x'; there are: mvp, "):
        features.resolve(["x"])
    with pytest.raises(ValueError, match="unknown feature '-x'"):
        features.resolve(["-x"])


def test_features_are_switched_off_with_what_needs_them() -> None:
    assert features.resolve(["-simd"]) == features.DEFAULT - {"simd", "relaxed-simd"}
    assert features.resolve(["-memory64"]) == features.DEFAULT - {"memory64"}
    assert features.resolve(["gc", "-multi-value"]) == features.resolve(["gc"])
    assert features.resolve(["gc", "-function-references"]) == {"mvp", "reference-types", "bulk-memory"}
    assert features.resolve(["-bulk-memory"]).isdisjoint({"gc", "exceptions", "reference-types"})
    assert "mvp" in features.resolve(["-mvp"])
