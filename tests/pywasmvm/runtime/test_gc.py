"""Structs, arrays, i31 and run-time types: as the host sees them, and what the store's limit counts."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from pywasmvm import Exhaustion, Global, GlobalType, Store, TrapKind
from pywasmvm.matching import close_types, def_type
from pywasmvm.runtime.gc import I31, Array, Struct, is_instance, ref_eq
from pywasmvm.types import (
    ANYREF,
    EXTERNREF,
    FUNCREF,
    I32,
    ArrayType,
    FieldType,
    FuncType,
    HeapType,
    StructType,
    SubType,
    ref,
)
from tests.support.instances import instance, trap

MAKER = """(module
  (type $p (sub (struct (field (mut i32)) (field (mut i8)))))
  (type $w (sub $p (struct (field (mut i32)) (field (mut i8)) (field f64))))
  (type $a (array (mut i16))) (type $node (struct (field (mut (ref null $node)))))
  (table $keep 0 anyref)
  (func (export "p") (param i32 i32) (result (ref $p)) (struct.new $p (local.get 0) (local.get 1)))
  (func (export "w") (result (ref $w)) (struct.new_default $w))
  (func (export "a") (param i32 i32) (result (ref $a)) (array.new $a (local.get 0) (local.get 1)))
  (func (export "i31") (param i32) (result i31ref) (ref.i31 (local.get 0)))
  (func (export "signed") (param i31ref) (result i32) (i31.get_s (local.get 0)))
  (func (export "unsigned") (param i31ref) (result i32) (i31.get_u (local.get 0)))
  (func (export "takes p") (param (ref null $p)) (result i32) (struct.get_s $p 1 (local.get 0)))
  (func (export "item") (param arrayref i32) (result i32)
    (array.get_s $a (ref.cast (ref $a) (local.get 0)) (local.get 1)))
  (func (export "cycle") (local $n (ref $node))
    (local.set $n (struct.new $node (ref.null $node)))
    (struct.set $node 0 (local.get $n) (local.get $n)))
  (func (export "keep") (param i32)
    (drop (table.grow $keep (array.new_default $a (local.get 0)) (i32.const 1)))))"""


@pytest.fixture
def exports() -> Any:
    return instance(MAKER, heap_fields=1_000).exports


def test_a_host_holds_what_a_guest_made(exports: Any) -> None:
    p = exports.p(5, 0x1FF)
    assert isinstance(p, Struct)
    assert p.fields == [5, 0xFF]  # the packed field lost its high bits
    assert exports["takes p"](p) == -1
    assert exports["takes p"](exports.w()) == 0
    a = exports.a(-1, 3)
    assert (len(a), a.elements) == (3, [0xFFFF] * 3)
    assert exports.item(a, 2) == -1


def test_a_host_cannot_pass_what_does_not_fit(exports: Any) -> None:
    for wrong in (exports.a(0, 1), I31(4), 7, "text", exports.p):
        with pytest.raises(TypeError, match="is no"):
            exports["takes p"](wrong)
    assert trap(lambda: exports["takes p"](None)) is TrapKind.NULL_STRUCTURE_REFERENCE


@pytest.mark.parametrize("value", [0, 1, -1, 0x3FFF_FFFF, 0x4000_0000, -0x4000_0000, 0x7FFF_FFFF])
def test_i31(exports: Any, value: int) -> None:
    made = exports.i31(value)
    assert exports.unsigned(made) == value & 0x7FFF_FFFF
    wrapped = (value + 0x4000_0000) % 0x8000_0000 - 0x4000_0000
    assert exports.signed(made) == wrapped
    assert exports.signed(I31(value)) == wrapped
    assert made == I31(value)
    assert hash(made) == hash(I31(value))
    assert ref_eq(made, I31(value)) == 1
    assert ref_eq(made, I31(value + 1)) == 0


def test_only_i31_is_equal_by_value(exports: Any) -> None:
    one, other = exports.p(1, 2), exports.p(1, 2)
    assert ref_eq(one, one) == 1
    assert ref_eq(one, other) == 0
    assert ref_eq(None, None) == 1
    assert ref_eq(None, I31(0)) == 0


def test_run_time_types() -> None:
    parent, child, other = close_types(
        [
            SubType(StructType(()), final=False),
            SubType(StructType((FieldType(I32),)), True, (0,)),
            SubType(ArrayType(FieldType(I32))),
        ],
        [1, 1, 1],
    )
    made, array = Struct(child, [1]), Array(other, [1, 2])
    assert is_instance(made, parent.ref)
    assert is_instance(made, child.ref)
    assert not is_instance(Struct(parent, []), child.ref)
    assert not is_instance(array, parent.ref)
    cases: list[tuple[str, list[Any]]] = [
        ("struct", [made]),
        ("array", [array]),
        ("i31", [I31(1)]),
        ("eq", [made, array, I31(1)]),
    ]
    for heap, fitting in cases:
        for value in (made, array, I31(1)):
            assert is_instance(value, ref(False, HeapType(heap))) == any(
                value is x or value == x for x in fitting
            )
    function = instance('(module (func (export "f")))').exports.f
    assert is_instance(function, FUNCREF)
    assert is_instance(function, def_type(FuncType()).ref)
    assert not is_instance(function, parent.ref)
    assert not is_instance(function, ref(False, HeapType.NOFUNC))
    assert is_instance(None, ref(True, HeapType.NONE))
    assert not is_instance(None, ref(False, HeapType.ANY))
    assert is_instance("anything", EXTERNREF)
    assert is_instance("anything that came in", ANYREF)


def test_globals_of_references_check_what_is_set() -> None:
    made = Global(GlobalType(ref(True, HeapType.I31), True), I31(3))
    made.value = None
    with pytest.raises(TypeError, match="is no i31ref"):
        made.value = 3


def test_the_limit_counts_what_lives_and_what_is_dropped_comes_back() -> None:
    store = Store()
    made = instance(MAKER, store=store)
    before = store.heap
    p, a = made.exports.p(1, 2), made.exports.a(0, 100)
    assert store.heap == before + 3 + 101
    del a
    assert store.heap == before + 3
    del p
    assert store.heap == before


def test_too_much_at_once_and_too_much_in_all_is_exhaustion(exports: Any) -> None:
    with pytest.raises(Exhaustion, match="allocation size too large"):
        exports.a(0, 1_000)
    assert len(exports.a(0, 999)) == 999
    exports.keep(400)
    exports.keep(400)
    assert trap(lambda: exports.keep(400)) is TrapKind.ALLOCATION_TOO_LARGE
    exports.keep(100)


def test_cycles_are_found_before_a_guest_is_refused(exports: Any) -> None:
    gc.disable()
    try:
        for _ in range(2_000):
            exports.cycle()
    finally:
        gc.enable()


def test_memories_and_tables_of_dead_instances_are_not_counted() -> None:
    store = Store()
    made = instance("(module (memory 3) (table 7 funcref))", store=store)
    assert (store.pages, store.elements) == (3, 7)
    del made
    gc.collect()
    assert (store.pages, store.elements) == (0, 0)


def test_texts(exports: Any) -> None:
    assert repr(exports.p(1, 2)) == "<Struct of 2 fields>"
    assert repr(exports.a(1, 2)) == "<Array of 2 elements>"
    assert repr(I31(5)) == "<I31 5>"
