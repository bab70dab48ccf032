"""What translated code calls: the functions of `numerics` and `runtime` under the names it uses for them.

Nothing here defines what an instruction means. Every translated function has this one name space as its
globals, with the types of its module beside it (`link.py`), and no builtins: `int` and `len` are here because
the code needs them, and nothing else of Python can be reached by name.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from pywasmvm.errors import Trap, TrapKind, WasmException
from pywasmvm.isa import ROWS
from pywasmvm.numerics import bits, function
from pywasmvm.runtime import access, gc
from pywasmvm.runtime.func import Func
from pywasmvm.runtime.tag import Exn, Tag
from pywasmvm.types import DefType

# -- traps ---------------------------------------------------------------------------------------------------


def unreachable() -> NoReturn:
    raise Trap(TrapKind.UNREACHABLE)


def null_function() -> NoReturn:
    raise Trap(TrapKind.NULL_FUNCTION_REFERENCE)


def null_reference() -> NoReturn:
    raise Trap(TrapKind.NULL_REFERENCE)


def cast_failure() -> NoReturn:
    raise Trap(TrapKind.CAST_FAILURE)


def element(found: Func | None, wanted: DefType, place: int) -> None:
    """The element of a table that an indirect call found is not of exactly the wanted type."""
    if found is None:
        raise Trap(TrapKind.UNINITIALIZED_ELEMENT, str(place))
    if wanted not in found.deftype.supers:
        raise Trap(TrapKind.INDIRECT_CALL_TYPE_MISMATCH)


def throw(tag: Tag, values: tuple[Any, ...]) -> NoReturn:
    raise WasmException(tag, values, Exn(tag, values))


def throw_ref(exn: Exn | None) -> NoReturn:
    if exn is None:
        raise Trap(TrapKind.NULL_EXCEPTION_REFERENCE)
    raise WasmException(exn.tag, exn.values, exn)


def exn_of(error: WasmException) -> Exn:
    """The exception as a value; one that a host function threw has none yet."""
    if error.exn is None:
        error.exn = Exn(error.tag, error.values)  # type: ignore[arg-type] # errors.py knows no tags
    return error.exn  # type: ignore[return-value] # nor what an exception is as a value


class Tail(Exception):
    """A tail call on its way to the trampoline: not raised but returned."""

    __slots__ = ("arguments", "target")

    def __init__(self, target: Func, arguments: tuple[Any, ...]) -> None:
        self.target, self.arguments = target, arguments


# -- structs and arrays: null checks around what runtime/gc.py does ------------------------------------------


def struct_get(target: Any, field: int) -> Any:
    if target is None:
        raise Trap(TrapKind.NULL_STRUCTURE_REFERENCE)
    return target.fields[field]


def struct_get_s(type_: DefType, field: int, target: Any) -> int:
    return gc.sign_extended(type_.struct.fields[field], struct_get(target, field))


def struct_set(type_: DefType, field: int, target: Any, value: Any) -> None:
    if target is None:
        raise Trap(TrapKind.NULL_STRUCTURE_REFERENCE)
    target.fields[field] = gc.stored(type_.struct.fields[field], value)


def _array(target: Any) -> gc.Array:
    if target is None:
        raise Trap(TrapKind.NULL_ARRAY_REFERENCE)
    array: gc.Array = target  # validation saw to it
    return array


def array_get(target: Any, place: int) -> Any:
    elements = _array(target).elements
    if place >= len(elements):
        raise Trap(TrapKind.OUT_OF_BOUNDS_ARRAY_ACCESS)
    return elements[place]


def array_get_s(type_: DefType, target: Any, place: int) -> int:
    return gc.sign_extended(type_.field, array_get(target, place))


def array_set(type_: DefType, target: Any, place: int, value: Any) -> None:
    elements = _array(target).elements
    if place >= len(elements):
        raise Trap(TrapKind.OUT_OF_BOUNDS_ARRAY_ACCESS)
    elements[place] = gc.stored(type_.field, value)


def array_len(target: Any) -> int:
    return len(_array(target).elements)


def array_fill(type_: DefType, target: Any, start: int, value: Any, length: int) -> None:
    array = _array(target)
    gc.array_range(array, start, length)
    array.elements[start : start + length] = [gc.stored(type_.field, value)] * length


def array_copy(target: Any, start: int, source: Any, source_start: int, length: int) -> None:
    to, origin = _array(target), _array(source)
    gc.array_range(to, start, length)
    gc.array_range(origin, source_start, length)
    to.elements[start : start + length] = origin.elements[source_start : source_start + length]


def array_new_data(instance: Any, type_: DefType, data: int, start: int, length: int) -> gc.Array:
    elements = gc.from_data(type_.field, instance.data(data), start, length)
    gc.room(length, instance.store)
    return gc.Array(type_, elements, instance.store)


def array_new_elem(instance: Any, type_: DefType, elem: int, start: int, length: int) -> gc.Array:
    elements = gc.from_elem(instance.elems[elem], start, length)
    gc.room(length, instance.store)
    return gc.Array(type_, elements, instance.store)


def array_init_data(
    instance: Any, type_: DefType, data: int, target: Any, start: int, source_start: int, length: int
) -> None:
    array = _array(target)
    gc.array_range(array, start, length)
    found = gc.from_data(type_.field, instance.data(data), source_start, length)
    array.elements[start : start + length] = found


def array_init_elem(
    instance: Any, type_: DefType, elem: int, target: Any, start: int, source_start: int, length: int
) -> None:
    array = _array(target)
    gc.array_range(array, start, length)
    array.elements[start : start + length] = gc.from_elem(instance.elems[elem], source_start, length)


def _i31(value: Any) -> gc.I31:
    if value is None:
        raise Trap(TrapKind.NULL_I31_REFERENCE)
    number: gc.I31 = value  # validation saw to it
    return number


def i31_get_s(value: Any) -> int:
    return _i31(value).signed


def i31_get_u(value: Any) -> int:
    return _i31(value).value


# -- bulk operations -----------------------------------------------------------------------------------------


def elements(array: Any, count: int, dtype: str, address: int, stride: int) -> Any:
    """`count` elements of a memory, `stride` bytes apart."""
    return np.ndarray((count,), dtype, array, address, (stride,))


def word(value: int) -> Any:
    """An i32 as numpy's, shape `(1,)`: arrays wrap silently, where scalars would warn."""
    return np.array([value & 0xFFFF_FFFF], np.uint32)


def words(count: int, first: int, step: int) -> Any:
    """The i32 values of a counter: shape `(count,)`, uint32."""
    return (np.arange(count, dtype=np.int64) * step + first).astype(np.uint32)


def long(value: int) -> Any:
    """An i64 as numpy's, shape `(1,)`."""
    return np.array([value], np.uint64)


def repeated(value: int, size: int, count: int) -> bytes:
    """The bytes of an integer, so many times."""
    return value.to_bytes(size, "little") * count


#: `struct` letters of what is searched, as numpy calls them, and their bytes.
_DTYPES = {"B": "u1", "b": "i1", "H": "<u2", "h": "<i2", "I": "<u4", "Q": "<u8"}
_SIZES = {"B": 1, "b": 1, "H": 2, "h": 2, "I": 4, "Q": 8}
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip

#: A search begins with so many elements, since most end soon, and takes at most so many at once.
_FIRST_PART, _PART = 64, 1 << 16


def leading(
    memory: memoryview, count: int, letter: str, relation: str, address: int, stride: int, value: int
) -> int:
    """How many of `count` elements, from the first on, stand in the relation to the value."""
    if letter == "H" and relation == "<" and stride == 2 and value <= 256 and count <= _FIRST_PART:
        # Characters of a text, most likely all of them below: the high bytes are zero.
        text = bytes(memory[address : address + 2 * count])
        low = text[::2]
        if (low.isascii() if value == 128 else max(low) < value) and text[1::2].count(0) == count:
            return count
    size, part, done = _SIZES[letter], _FIRST_PART, 0
    while done < count:
        part = min(part, count - done)
        if stride == size:
            seen = memory[address : address + part * size]
            good = _leading_together(seen if size == 1 else seen.cast(letter), letter, relation, value)  # type: ignore[call-overload]
        else:
            good = _all_before(
                _COMPARED[relation](elements(memory, part, _DTYPES[letter], address, stride), value)
            )
        done += good
        if good < part:
            break
        address += part * stride
        part = min(16 * part, _PART)
    return done


def _leading_together(seen: memoryview, letter: str, relation: str, value: int) -> int:
    """The same for elements that lie side by side."""
    size = len(seen)
    if letter == "B" and 0 <= value < 256:
        if relation == "!=":
            found = bytes(seen).find(value)
            return size if found < 0 else found
        if relation == "==":
            return size - len(bytes(seen).lstrip(bytes((value,))))
        if relation == "<" and value == 128 and bytes(seen).isascii():
            return size
    if size <= _FIRST_PART and (
        (relation == "<" and max(seen) < value) or (relation == ">=" and min(seen) >= value)
    ):
        return size
    return _all_before(_COMPARED[relation](np.frombuffer(seen, _DTYPES[letter]), value))


def leading_pairs(
    memory: memoryview, count: int, letter: str, relation: str, left: int, step: int, right: int, its: int
) -> int:
    """How many pairs of elements of two places in memory are equal (or are not), from the first on."""
    size, dtype, compare = _SIZES[letter], _DTYPES[letter], _COMPARED[relation]
    part, done = _FIRST_PART, 0
    while done < count:
        part = min(part, count - done)
        length = part * size
        if not (
            relation == "==" and step == its == size
            and memory[left : left + length] == memory[right : right + length]
        ):  # fmt: skip
            good = _all_before(
                compare(elements(memory, part, dtype, left, step), elements(memory, part, dtype, right, its))
            )
            done += good
            if good < part:
                break
        else:
            done += part
        left, right = left + part * step, right + part * its
        part = min(16 * part, _PART)
    return done


def _all_before(good: Any) -> int:
    """How many are true before the first that is not."""
    first = int(good.argmin())
    return len(good) if good[first] else first


# -- the name space ------------------------------------------------------------------------------------------


def _namespace() -> dict[str, Any]:
    names: dict[str, Any] = {
        "__builtins__": {},
        "int": int,
        "len": len,
        "min": min,
        "range": range,
        "inf": math.inf,
        "nan": math.nan,
        "sqrt": math.sqrt,
        "as_f32": bits.as_f32,
        "as_u32": bits.as_u32,
        "as_f64": bits.as_f64,
        "as_u64": bits.as_u64,
        "f32_from_bits": bits.f32_from_bits,
        "f32_to_bits": bits.f32_to_bits,
        "f64_from_bits": bits.f64_from_bits,
        "WasmException": WasmException,
        "exn_of": exn_of,
        "tail": Tail,
        "is_instance": gc.is_instance,
        "ref_eq": gc.ref_eq,
        "I31": gc.I31,
        "new_struct": gc.new_struct,
        "new_default_struct": gc.new_default_struct,
        "new_array": gc.new_array,
        "new_default_array": gc.new_default_array,
        "new_fixed_array": gc.new_fixed_array,
    }
    ours: tuple[Callable[..., Any], ...] = (
        unreachable, null_function, null_reference, cast_failure, element, throw, throw_ref, struct_get,
        struct_get_s, struct_set, array_get, array_get_s, array_set, array_len, array_fill, array_copy,
        elements, word, words, long, repeated, leading, leading_pairs, array_new_data, array_new_elem,
        array_init_data, array_init_elem, i31_get_s, i31_get_u,
    )  # fmt: skip
    names.update({f.__name__: f for f in ours})
    for opcode in ROWS:
        found = opcode.access
        if found is not None:
            store = ".store" in opcode.name
            if found.kind.startswith("lane"):
                make: Any = access.lane_store_function if store else access.lane_load_function
            elif found.kind[0] in "usf" and "x" not in found.kind and found.kind[1:].isdigit():
                # Numbers go through `struct` itself: the caller takes the value out of its tuple.
                make = access.raw_packer if store else access.raw_unpacker
            else:
                make = access.store_function if store else access.load_function
            names[f"{'store' if store else 'load'}_{found.kind}"] = make(found)
            continue
        try:
            names[opcode.function_name] = function(opcode.name)
        except LookupError:
            continue
    names["load_f32_nan"] = access.load_f32
    names["store_f32_nan"] = access.store_f32
    return names


#: Globals of all translated code, before the types of its module are added to a copy.
NAMES = _namespace()
