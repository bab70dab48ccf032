"""Rules of the instructions on structs and arrays (spec: Validation, Aggregate Reference Instructions)."""

from __future__ import annotations

from pywasmvm.errors import InvalidError
from pywasmvm.matching import matches
from pywasmvm.types import I32, FieldType, PackedType, RefType
from pywasmvm.valid.code import CodeValidator, rule


def _field(v: CodeValidator, immediate: tuple[int, int]) -> FieldType:
    index, number = immediate
    fields = v.context.struct(index).fields
    if number >= len(fields):
        raise InvalidError(f"unknown field {number}")
    return fields[number]


def _defaultable(field: FieldType) -> None:
    if isinstance(field.storage, RefType) and not field.storage.nullable:
        raise InvalidError(f"type mismatch: {field.storage} has no default value")


def _readable(field: FieldType, extended: bool) -> None:
    """A packed field is read with an extension, any other without."""
    if isinstance(field.storage, PackedType) != extended:
        kind = "packed" if isinstance(field.storage, PackedType) else "unpacked"
        raise InvalidError(f"type mismatch: the field is {kind}")


@rule("struct.new")
def _struct_new(v: CodeValidator, index: int) -> None:
    v.pop_all([field.value for field in v.context.struct(index).fields])
    v.push(v.context.type(index).ref)


@rule("struct.new_default")
def _struct_new_default(v: CodeValidator, index: int) -> None:
    for field in v.context.struct(index).fields:
        _defaultable(field)
    v.push(v.context.type(index).ref)


def _struct_read(v: CodeValidator, immediate: tuple[int, int], extended: bool) -> None:
    field = _field(v, immediate)
    _readable(field, extended)
    v.pop(v.context.type(immediate[0]).nullable_ref)
    v.push(field.value)


@rule("struct.get")
def _struct_get(v: CodeValidator, immediate: tuple[int, int]) -> None:
    _struct_read(v, immediate, extended=False)


@rule("struct.get_s", "struct.get_u")
def _struct_get_packed(v: CodeValidator, immediate: tuple[int, int]) -> None:
    _struct_read(v, immediate, extended=True)


@rule("struct.set")
def _struct_set(v: CodeValidator, immediate: tuple[int, int]) -> None:
    field = _field(v, immediate)
    if not field.mutable:
        raise InvalidError(f"immutable field {immediate[1]}")
    v.pop(field.value)
    v.pop(v.context.type(immediate[0]).nullable_ref)


@rule("array.new")
def _array_new(v: CodeValidator, index: int) -> None:
    v.pop(I32)
    v.pop(v.context.array(index).field.value)
    v.push(v.context.type(index).ref)


@rule("array.new_default")
def _array_new_default(v: CodeValidator, index: int) -> None:
    _defaultable(v.context.array(index).field)
    v.pop(I32)
    v.push(v.context.type(index).ref)


#: More operands than this for one `array.new_fixed` are refused, as other engines do: in unreachable code a
#: few bytes could ask for billions.
MAX_FIXED = 10_000


@rule("array.new_fixed")
def _array_new_fixed(v: CodeValidator, immediate: tuple[int, int]) -> None:
    index, count = immediate
    value = v.context.array(index).field.value
    if count > MAX_FIXED:
        raise InvalidError(f"array.new_fixed of {count} elements: more than {MAX_FIXED}")
    for _ in range(count):
        v.pop(value)
    v.push(v.context.type(index).ref)


def _from_data(v: CodeValidator, index: int, data: int) -> FieldType:
    field = v.context.array(index).field
    if isinstance(field.storage, RefType):
        raise InvalidError("array type is not numeric or vector")
    v.context.data(data)
    return field


def _from_elem(v: CodeValidator, index: int, elem: int) -> FieldType:
    field = v.context.array(index).field
    found = v.context.elem(elem)
    if not matches(found, field.storage):
        raise InvalidError(f"type mismatch: an array of {field.storage} from elements of {found}")
    return field


@rule("array.new_data")
def _array_new_data(v: CodeValidator, immediate: tuple[int, int]) -> None:
    _from_data(v, *immediate)
    v.pop_all((I32, I32))
    v.push(v.context.type(immediate[0]).ref)


@rule("array.new_elem")
def _array_new_elem(v: CodeValidator, immediate: tuple[int, int]) -> None:
    _from_elem(v, *immediate)
    v.pop_all((I32, I32))
    v.push(v.context.type(immediate[0]).ref)


def _array_read(v: CodeValidator, index: int, extended: bool) -> None:
    field = v.context.array(index).field
    _readable(field, extended)
    v.pop(I32)
    v.pop(v.context.type(index).nullable_ref)
    v.push(field.value)


@rule("array.get")
def _array_get(v: CodeValidator, index: int) -> None:
    _array_read(v, index, extended=False)


@rule("array.get_s", "array.get_u")
def _array_get_packed(v: CodeValidator, index: int) -> None:
    _array_read(v, index, extended=True)


def _mutable(field: FieldType) -> FieldType:
    if not field.mutable:
        raise InvalidError("immutable array")
    return field


@rule("array.set")
def _array_set(v: CodeValidator, index: int) -> None:
    field = _mutable(v.context.array(index).field)
    v.pop(field.value)
    v.pop(I32)
    v.pop(v.context.type(index).nullable_ref)


@rule("array.fill")
def _array_fill(v: CodeValidator, index: int) -> None:
    field = _mutable(v.context.array(index).field)
    v.pop_all((v.context.type(index).nullable_ref, I32, field.value, I32))


@rule("array.copy")
def _array_copy(v: CodeValidator, immediate: tuple[int, int]) -> None:
    target, source = immediate
    field = _mutable(v.context.array(target).field)
    if not matches(v.context.array(source).field.storage, field.storage):
        raise InvalidError("array types do not match")
    target_ref, source_ref = (v.context.type(index).nullable_ref for index in immediate)
    v.pop_all((target_ref, I32, source_ref, I32, I32))


@rule("array.init_data")
def _array_init_data(v: CodeValidator, immediate: tuple[int, int]) -> None:
    index, data = immediate
    _mutable(v.context.array(index).field)
    _from_data(v, index, data)
    v.pop_all((v.context.type(index).nullable_ref, I32, I32, I32))


@rule("array.init_elem")
def _array_init_elem(v: CodeValidator, immediate: tuple[int, int]) -> None:
    index, elem = immediate
    _mutable(v.context.array(index).field)
    _from_elem(v, index, elem)
    v.pop_all((v.context.type(index).nullable_ref, I32, I32, I32))
