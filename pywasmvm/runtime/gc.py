"""Structs, arrays, i31 and run-time types (spec: Execution, Aggregate Instances; Types, Dynamic Types).

Python's own collector frees what a guest drops, cycles too. How many fields and elements a guest may keep at
once is a limit of its store. Values inside are canonical; packed ones are kept as unsigned integers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.numerics.bits import f32_from_bits
from pywasmvm.runtime.func import Func
from pywasmvm.runtime.tag import Exn
from pywasmvm.runtime.values import default
from pywasmvm.types import (
    F32,
    F64,
    DefType,
    FieldType,
    HeapType,
    NumType,
    PackedType,
    RefType,
    ValType,
    VecType,
)

if TYPE_CHECKING:
    from pywasmvm.runtime.store import Store


class I31:
    """An unboxed scalar: `value` holds 31 bits, unsigned. Equal values are the same reference."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value & 0x7FFF_FFFF

    @property
    def signed(self) -> int:
        """The value sign-extended, as a canonical i32."""
        return self.value | 0x8000_0000 if self.value & 0x4000_0000 else self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, I31) and self.value == other.value

    def __hash__(self) -> int:
        return hash((I31, self.value))

    def __repr__(self) -> str:
        return f"<I31 {self.value}>"


class Struct:
    """A struct: `fields` in order. `type` is its defined type."""

    __slots__ = ("__weakref__", "fields", "store", "type")

    def __init__(self, type_: DefType, fields: list[Any], store: Store | None = None) -> None:
        self.type, self.fields, self.store = type_, fields, None
        if store is not None:
            store.reserve_heap(len(fields) + 1)
            self.store = store

    def __del__(self) -> None:
        if self.store is not None:
            self.store.heap -= len(self.fields) + 1

    def __repr__(self) -> str:
        return f"<Struct of {len(self.fields)} fields>"


class Array:
    """An array: `elements` in order; its length never changes. `type` is its defined type."""

    __slots__ = ("__weakref__", "elements", "store", "type")

    def __init__(self, type_: DefType, elements: list[Any], store: Store | None = None) -> None:
        """The elements have been reserved with `room`, except for those of a host."""
        self.type, self.elements, self.store = type_, elements, store

    def __len__(self) -> int:
        return len(self.elements)

    def __del__(self) -> None:
        if self.store is not None:
            self.store.heap -= len(self.elements) + 1

    def __repr__(self) -> str:
        return f"<Array of {len(self.elements)} elements>"


# -- run-time types --------------------------------------------------------------------------------------

_ABSTRACT: dict[HeapType, tuple[type, ...]] = {
    HeapType.FUNC: (Func,),
    HeapType.EXTERN: (object,),  # references of the host are any Python objects
    HeapType.ANY: (object,),  # which includes those of the host that came in
    HeapType.EQ: (Struct, Array, I31),
    HeapType.I31: (I31,),
    HeapType.STRUCT: (Struct,),
    HeapType.ARRAY: (Array,),
    HeapType.EXN: (Exn,),
}


def is_instance(value: Any, type_: RefType) -> bool:
    """Whether a reference has the closed type: what casts and tests ask."""
    if value is None:
        return type_.nullable
    heap = type_.heap
    if isinstance(heap, DefType):
        if isinstance(value, Struct | Array):
            return value.type.is_sub(heap)
        return isinstance(value, Func) and value.deftype.is_sub(heap)
    return isinstance(value, _ABSTRACT.get(heap, ()))  # type: ignore[arg-type]  # closed: no index


def ref_eq(left: Any, right: Any) -> int:
    """ref.eq: the same object, or equal i31."""
    return 1 if left is right or (type(left) is I31 and left == right) else 0


# -- fields ------------------------------------------------------------------------------------------------


def stored(field: FieldType, value: Any) -> Any:
    """The value as a field keeps it: a packed one loses its high bits."""
    storage = field.storage
    return value & ((1 << storage.bits) - 1) if isinstance(storage, PackedType) else value


def sign_extended(field: FieldType, value: int) -> int:
    """What `get_s` makes of a packed field's value: a canonical i32."""
    bits = field.storage.bits  # type: ignore[attr-defined]  # validation: only packed fields
    return value | (0xFFFF_FFFF << bits & 0xFFFF_FFFF) if value >> (bits - 1) else value


def default_value(field: FieldType) -> Any:
    """Zero or null."""
    return 0 if isinstance(field.storage, PackedType) else default(field.storage)


def new_struct(type_: DefType, values: list[Any], store: Store | None) -> Struct:
    """struct.new: the values in the order of the fields."""
    fields = type_.struct.fields
    return Struct(type_, [stored(f, v) for f, v in zip(fields, values, strict=True)], store)


def new_default_struct(type_: DefType, store: Store | None) -> Struct:
    """struct.new_default."""
    return Struct(type_, [default_value(f) for f in type_.struct.fields], store)


# -- arrays ------------------------------------------------------------------------------------------------


def room(length: int, store: Store | None) -> None:
    """Reserve the room for an array before any list is made. Raises Exhaustion."""
    if store is not None:
        store.reserve_heap(length + 1)


def new_array(type_: DefType, value: Any, length: int, store: Store | None) -> Array:
    """array.new: `length` times the value."""
    room(length, store)
    return Array(type_, [stored(type_.field, value)] * length, store)


def new_default_array(type_: DefType, length: int, store: Store | None) -> Array:
    """array.new_default."""
    room(length, store)
    return Array(type_, [default_value(type_.field)] * length, store)


def new_fixed_array(type_: DefType, values: list[Any], store: Store | None) -> Array:
    """array.new_fixed."""
    room(len(values), store)
    field = type_.field
    return Array(type_, [stored(field, value) for value in values], store)


def _width(storage: ValType) -> int:
    """Bytes of a number, vector or packed type in a data segment."""
    if not isinstance(storage, NumType | VecType | PackedType):
        raise TypeError(f"data segments hold no {storage}")
    return storage.bits // 8


def from_data(field: FieldType, data: memoryview, start: int, length: int) -> list[Any]:
    """`length` elements from the bytes of a data segment. Raises Trap when they are not all there."""
    storage = field.storage
    width = _width(storage)
    if start + length * width > len(data):
        raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS)
    part = data[start : start + length * width]
    if storage is F64:
        return [value for (value,) in struct.iter_unpack("<d", part)]
    integers = [int.from_bytes(part[at : at + width], "little") for at in range(0, len(part), width)]
    return [f32_from_bits(bits) for bits in integers] if storage is F32 else integers


def from_elem(items: list[Any], start: int, length: int) -> list[Any]:
    """`length` elements of an element segment. Raises Trap when they are not all there."""
    if start + length > len(items):
        raise Trap(TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS)
    return items[start : start + length]


def array_range(array: Array, start: int, length: int) -> None:
    """Check that a range lies inside. Raises Trap."""
    if start + length > len(array.elements):
        raise Trap(TrapKind.OUT_OF_BOUNDS_ARRAY_ACCESS)
