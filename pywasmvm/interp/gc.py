"""Instructions on structs, arrays, i31 and casts: pop, call `runtime.gc`, push."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.interp.frame import Frame
from pywasmvm.runtime import gc
from pywasmvm.types import RefType

# -- structs -----------------------------------------------------------------------------------------------


def _struct_new(frame: Frame, index: int) -> None:
    type_ = frame.instance.types[index]
    count = len(type_.struct.fields)
    values = frame.pop_many(count) if count else []
    frame.stack.append(gc.new_struct(type_, values, frame.instance.store))


def _struct_new_default(frame: Frame, index: int) -> None:
    frame.stack.append(gc.new_default_struct(frame.instance.types[index], frame.instance.store))


def _struct_get(frame: Frame, immediate: tuple[int, int]) -> None:
    target = frame.stack[-1]
    if target is None:
        raise Trap(TrapKind.NULL_STRUCTURE_REFERENCE)
    frame.stack[-1] = target.fields[immediate[1]]


def _struct_get_s(frame: Frame, immediate: tuple[int, int]) -> None:
    _struct_get(frame, immediate)
    field = frame.instance.types[immediate[0]].struct.fields[immediate[1]]
    frame.stack[-1] = gc.sign_extended(field, frame.stack[-1])


def _struct_set(frame: Frame, immediate: tuple[int, int]) -> None:
    target, value = frame.pop_many(2)
    if target is None:
        raise Trap(TrapKind.NULL_STRUCTURE_REFERENCE)
    field = frame.instance.types[immediate[0]].struct.fields[immediate[1]]
    target.fields[immediate[1]] = gc.stored(field, value)


# -- arrays ------------------------------------------------------------------------------------------------


def _array_new(frame: Frame, index: int) -> int:
    value, length = frame.pop_many(2)
    frame.stack.append(gc.new_array(frame.instance.types[index], value, length, frame.instance.store))
    return int(length)


def _array_new_default(frame: Frame, index: int) -> int:
    length = frame.stack.pop()
    frame.stack.append(gc.new_default_array(frame.instance.types[index], length, frame.instance.store))
    return int(length)


def _array_new_fixed(frame: Frame, immediate: tuple[int, int]) -> int:
    index, count = immediate
    values = frame.pop_many(count) if count else []
    frame.stack.append(gc.new_fixed_array(frame.instance.types[index], values, frame.instance.store))
    return count


def _array_new_data(frame: Frame, immediate: tuple[int, int]) -> int:
    index, data = immediate
    start, length = frame.pop_many(2)
    type_, store = frame.instance.types[index], frame.instance.store
    elements = gc.from_data(type_.field, frame.instance.data(data), start, length)
    gc.room(length, store)
    frame.stack.append(gc.Array(type_, elements, store))
    return int(length)


def _array_new_elem(frame: Frame, immediate: tuple[int, int]) -> int:
    index, elem = immediate
    start, length = frame.pop_many(2)
    elements = gc.from_elem(frame.instance.elems[elem], start, length)
    gc.room(length, frame.instance.store)
    frame.stack.append(gc.Array(frame.instance.types[index], elements, frame.instance.store))
    return int(length)


def _array(value: Any) -> gc.Array:
    if value is None:
        raise Trap(TrapKind.NULL_ARRAY_REFERENCE)
    found: gc.Array = value
    return found


def _array_get(frame: Frame, index: int) -> None:
    place = frame.stack.pop()
    elements = _array(frame.stack[-1]).elements
    if place >= len(elements):
        raise Trap(TrapKind.OUT_OF_BOUNDS_ARRAY_ACCESS)
    frame.stack[-1] = elements[place]


def _array_get_s(frame: Frame, index: int) -> None:
    _array_get(frame, index)
    frame.stack[-1] = gc.sign_extended(frame.instance.types[index].field, frame.stack[-1])


def _array_set(frame: Frame, index: int) -> None:
    target, place, value = frame.pop_many(3)
    elements = _array(target).elements
    if place >= len(elements):
        raise Trap(TrapKind.OUT_OF_BOUNDS_ARRAY_ACCESS)
    elements[place] = gc.stored(frame.instance.types[index].field, value)


def _array_len(frame: Frame, immediate: None) -> None:
    frame.stack[-1] = len(_array(frame.stack[-1]).elements)


def _array_fill(frame: Frame, index: int) -> int:
    target, start, value, length = frame.pop_many(4)
    array = _array(target)
    gc.array_range(array, start, length)
    stored = gc.stored(frame.instance.types[index].field, value)
    array.elements[start : start + length] = [stored] * length
    return int(length)


def _array_copy(frame: Frame, immediate: tuple[int, int]) -> int:
    target, start, source, source_start, length = frame.pop_many(5)
    to, origin = _array(target), _array(source)
    gc.array_range(to, start, length)
    gc.array_range(origin, source_start, length)
    to.elements[start : start + length] = origin.elements[source_start : source_start + length]
    return int(length)


def _array_init_data(frame: Frame, immediate: tuple[int, int]) -> int:
    index, data = immediate
    target, start, source_start, length = frame.pop_many(4)
    array = _array(target)
    gc.array_range(array, start, length)
    field = frame.instance.types[index].field
    array.elements[start : start + length] = gc.from_data(
        field, frame.instance.data(data), source_start, length
    )
    return int(length)


def _array_init_elem(frame: Frame, immediate: tuple[int, int]) -> int:
    target, start, source_start, length = frame.pop_many(4)
    array = _array(target)
    gc.array_range(array, start, length)
    items = frame.instance.elems[immediate[1]]
    array.elements[start : start + length] = gc.from_elem(items, source_start, length)
    return int(length)


# -- i31 and casts -----------------------------------------------------------------------------------------


def _ref_i31(frame: Frame, immediate: None) -> None:
    frame.stack[-1] = gc.I31(frame.stack[-1])


def _i31(value: Any) -> gc.I31:
    if value is None:
        raise Trap(TrapKind.NULL_I31_REFERENCE)
    found: gc.I31 = value
    return found


def _i31_get_s(frame: Frame, immediate: None) -> None:
    frame.stack[-1] = _i31(frame.stack[-1]).signed


def _i31_get_u(frame: Frame, immediate: None) -> None:
    frame.stack[-1] = _i31(frame.stack[-1]).value


def _ref_eq(frame: Frame, immediate: None) -> None:
    right = frame.stack.pop()
    frame.stack[-1] = gc.ref_eq(frame.stack[-1], right)


def _ref_test(frame: Frame, wanted: RefType) -> None:
    frame.stack[-1] = 1 if gc.is_instance(frame.stack[-1], wanted) else 0


def _ref_cast(frame: Frame, wanted: RefType) -> None:
    if not gc.is_instance(frame.stack[-1], wanted):
        raise Trap(TrapKind.CAST_FAILURE)


def _convert(frame: Frame, immediate: None) -> None:
    """A reference is the same object inside and outside."""


EXECUTED: dict[str, Callable[[Any, Any], int | None]] = {
    "struct.new": _struct_new,
    "struct.new_default": _struct_new_default,
    "struct.get": _struct_get,
    "struct.get_s": _struct_get_s,
    "struct.get_u": _struct_get,
    "struct.set": _struct_set,
    "array.new": _array_new,
    "array.new_default": _array_new_default,
    "array.new_fixed": _array_new_fixed,
    "array.new_data": _array_new_data,
    "array.new_elem": _array_new_elem,
    "array.get": _array_get,
    "array.get_s": _array_get_s,
    "array.get_u": _array_get,
    "array.set": _array_set,
    "array.len": _array_len,
    "array.fill": _array_fill,
    "array.copy": _array_copy,
    "array.init_data": _array_init_data,
    "array.init_elem": _array_init_elem,
    "ref.i31": _ref_i31,
    "i31.get_s": _i31_get_s,
    "i31.get_u": _i31_get_u,
    "ref.eq": _ref_eq,
    "ref.test": _ref_test,
    "ref.cast": _ref_cast,
    "any.convert_extern": _convert,
    "extern.convert_any": _convert,
}
