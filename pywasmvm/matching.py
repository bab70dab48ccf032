"""Subtyping, equality of recursive types, and import matching (spec: Validation, Matching).

Types are made canonical here: a recursion group that was seen before, in any module, gives the same `DefType`
objects again. So equality is identity, and a check at run time never compares structures.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence

from pywasmvm.errors import InvalidError
from pywasmvm.types import (
    ArrayType,
    BottomType,
    CompType,
    DefType,
    ExternType,
    FieldType,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    RefType,
    StructType,
    SubType,
    TableType,
    TagType,
    ValType,
    ref,
)

# -- subtyping -----------------------------------------------------------------------------------------

_H = HeapType

#: The abstract heap types above each one, itself included.
_ABOVE: dict[HeapType, frozenset[HeapType]] = {
    heap: frozenset({heap, *above})
    for heap, above in {
        _H.ANY: (),
        _H.EQ: (_H.ANY,),
        _H.I31: (_H.EQ, _H.ANY),
        _H.STRUCT: (_H.EQ, _H.ANY),
        _H.ARRAY: (_H.EQ, _H.ANY),
        _H.NONE: (_H.I31, _H.STRUCT, _H.ARRAY, _H.EQ, _H.ANY),
        _H.FUNC: (),
        _H.NOFUNC: (_H.FUNC,),
        _H.EXTERN: (),
        _H.NOEXTERN: (_H.EXTERN,),
        _H.EXN: (),
        _H.NOEXN: (_H.EXN,),
        _H.BOT: tuple(_H),
    }.items()
}

#: The abstract type directly above a defined type, by its kind.
_KIND_HEAP = {"func": _H.FUNC, "struct": _H.STRUCT, "array": _H.ARRAY}


def abstract_heap(heap: HeapType | DefType) -> HeapType:
    """The least abstract heap type above or equal to a closed one."""
    return _KIND_HEAP[heap.kind] if isinstance(heap, DefType) else heap


def top_heap(heap: HeapType | DefType) -> HeapType:
    """The top of the hierarchy a closed heap type belongs to: any, func, extern or exn."""
    above = _ABOVE[abstract_heap(heap)]
    return next(top for top in (_H.ANY, _H.FUNC, _H.EXTERN, _H.EXN) if top in above)


_BOTTOMS = {_H.ANY: _H.NONE, _H.FUNC: _H.NOFUNC, _H.EXTERN: _H.NOEXTERN, _H.EXN: _H.NOEXN}


def bottom_heap(heap: HeapType | DefType) -> HeapType:
    """The bottom of the hierarchy a closed heap type belongs to."""
    return _BOTTOMS[top_heap(heap)]


def matches_heap(sub: HeapType | DefType, sup: HeapType | DefType) -> bool:
    """Whether closed heap type `sub` is a subtype of `sup`."""
    if sub is sup:
        return True
    if isinstance(sup, DefType):
        if isinstance(sub, DefType):
            return sup in sub.supers
        return sub is _H.BOT or sub is bottom_heap(sup)
    return sup in _ABOVE[abstract_heap(sub)]


def matches(sub: ValType, sup: ValType) -> bool:
    """Whether a value of closed type `sub` may stand where `sup` is wanted."""
    if sub is sup or isinstance(sub, BottomType):
        return True
    if isinstance(sub, RefType) and isinstance(sup, RefType):
        if isinstance(sub.heap, int) or isinstance(sup.heap, int):
            raise TypeError(f"{sub} and {sup} must be closed before they are compared")
        return (sup.nullable or not sub.nullable) and matches_heap(sub.heap, sup.heap)
    return False


def matches_all(subs: Sequence[ValType], sups: Sequence[ValType]) -> bool:
    """`matches`, for sequences of the same length."""
    return len(subs) == len(sups) and all(map(matches, subs, sups))


def _matches_field(sub: FieldType, sup: FieldType) -> bool:
    if sub.mutable != sup.mutable:
        return False
    # A mutable field is written through both types.
    return matches(sub.storage, sup.storage) and (not sub.mutable or matches(sup.storage, sub.storage))


def matches_composite(sub: CompType, sup: CompType) -> bool:
    """Whether a closed composite type may be declared below another one."""
    if isinstance(sub, FuncType) and isinstance(sup, FuncType):
        return matches_all(sup.params, sub.params) and matches_all(sub.results, sup.results)
    if isinstance(sub, StructType) and isinstance(sup, StructType):
        return len(sub.fields) >= len(sup.fields) and all(map(_matches_field, sub.fields, sup.fields))
    if isinstance(sub, ArrayType) and isinstance(sup, ArrayType):
        return _matches_field(sub.field, sup.field)
    return False


# -- closing and canonical types -----------------------------------------------------------------------

#: How many ancestors a type may have: the limit of all engines. Each type lists its ancestors, so without it
#: a module could ask for memory that grows with the square of its size.
MAX_SUBTYPING_DEPTH = 63


def close(type_: ValType, types: Sequence[DefType]) -> ValType:
    """A value type as written, with its type index resolved. Raises InvalidError (unknown type)."""
    if isinstance(type_, RefType) and isinstance(type_.heap, int):
        if type_.heap >= len(types):
            raise InvalidError(f"unknown type {type_.heap}")
        return ref(type_.nullable, types[type_.heap])
    return type_


def _map_composite(composite: CompType, change: Callable[[ValType], ValType]) -> CompType:
    """The composite type with every value type in it replaced."""
    if isinstance(composite, FuncType):
        params, results = composite.params, composite.results
        return FuncType(tuple(map(change, params)), tuple(map(change, results)))
    if isinstance(composite, StructType):
        return StructType(tuple(FieldType(change(f.storage), f.mutable) for f in composite.fields))
    return ArrayType(FieldType(change(composite.field.storage), composite.field.mutable))


class _Group:
    """A recursion group, canonical. Types hold their group and the group its types, so they live together."""

    __slots__ = ("__weakref__", "types")

    def __init__(self) -> None:
        self.types: list[DefType] = []


_groups: weakref.WeakValueDictionary[object, _Group] = weakref.WeakValueDictionary()


def _key(subtypes: Sequence[SubType], first: int, types: Sequence[DefType]) -> object:
    """What two equal groups share: references inside count from the group's start, all others are closed.

    Raises InvalidError for an index that is neither in the group nor before it.
    """
    last = first + len(subtypes)

    def place(index: int) -> object:
        if index < first:
            return types[index]
        if index >= last:
            raise InvalidError(f"unknown type {index}")
        return index - first

    def spot(type_: ValType) -> object:
        if isinstance(type_, RefType) and isinstance(type_.heap, int):
            return type_.nullable, place(type_.heap)
        return type_

    def shape(composite: CompType) -> object:
        if isinstance(composite, FuncType):
            return "func", tuple(map(spot, composite.params)), tuple(map(spot, composite.results))
        fields = composite.fields if isinstance(composite, StructType) else (composite.field,)
        return _kind(composite), tuple((spot(f.storage), f.mutable) for f in fields)

    return tuple((s.final, tuple(map(place, s.supers)), shape(s.composite)) for s in subtypes)


def _kind(composite: CompType) -> str:
    return "struct" if isinstance(composite, StructType) else "array"


def close_types(subtypes: Sequence[SubType], groups: Sequence[int]) -> list[DefType]:
    """The canonical types of a module, one for each type index.

    `groups` holds the sizes of the recursion groups in order. Raises InvalidError for an unknown type, a
    supertype that is final, declared later or does not match ("sub type ...").
    """
    types: list[DefType] = []
    rest: Iterator[SubType] = iter(subtypes)
    for size in groups:
        members = list(itertools.islice(rest, size))
        first = len(types)
        key = _key(members, first, types)
        found = _groups.get(key)
        if found is not None:
            types += found.types
            continue
        made = _Group()
        made.types = [DefType(s.composite, s.final, made) for s in members]
        types += made.types
        for index, (subtype, type_) in enumerate(zip(members, made.types, strict=True), first):
            type_.composite = _map_composite(subtype.composite, functools.partial(close, types=types))
            type_.supers = _ancestors(subtype, index, types)
        for type_ in made.types:
            if type_.supers and not matches_composite(type_.composite, type_.supers[0].composite):
                raise InvalidError(f"sub type: {type_.composite} does not match {type_.supers[0].composite}")
        _groups[key] = made
    return types


def _ancestors(subtype: SubType, index: int, types: Sequence[DefType]) -> tuple[DefType, ...]:
    if len(subtype.supers) > 1:
        raise InvalidError("sub type: more than one supertype")
    ancestors: tuple[DefType, ...] = ()
    for parent_index in subtype.supers:
        if parent_index >= index:
            raise InvalidError(f"unknown type {parent_index}: a supertype must be declared before")
        parent = types[parent_index]
        if parent.final:
            raise InvalidError(f"sub type: type {parent_index} is final")
        ancestors = (parent, *parent.supers)
    if len(ancestors) > MAX_SUBTYPING_DEPTH:
        raise InvalidError(f"sub type: more than {MAX_SUBTYPING_DEPTH} types above each other")
    return ancestors


@functools.lru_cache(maxsize=4096)
def def_type(type_: FuncType) -> DefType:
    """The canonical type of a closed function type that stands alone: what `(type (func ...))` defines."""
    return close_types([SubType(type_)], [1])[0]


# -- imports -------------------------------------------------------------------------------------------


def match_limits(found: Limits, wanted: Limits) -> bool:
    """Whether an object with these limits may be imported under those."""
    if found.min < wanted.min:
        return False
    return wanted.max is None or (found.max is not None and found.max <= wanted.max)


def match_extern(found: ExternType, wanted: ExternType) -> bool:
    """Whether an extern of type `found` satisfies an import of type `wanted`.

    Functions and tags are compared by their defined types (`DefType`), which externs carry; this is for what
    has no more than a structure.
    """
    if isinstance(wanted, FuncType | TagType):
        return found == wanted
    if isinstance(wanted, MemoryType):
        return (
            isinstance(found, MemoryType)
            and found.address is wanted.address
            and match_limits(found.limits, wanted.limits)
        )
    if isinstance(wanted, TableType):
        # A table is read and written through both types.
        return (
            isinstance(found, TableType)
            and found.element == wanted.element
            and found.address is wanted.address
            and match_limits(found.limits, wanted.limits)
        )
    if not isinstance(found, GlobalType) or found.mutable != wanted.mutable:
        return False
    # A mutable global is written through both names, so its type must agree exactly.
    return found.value == wanted.value if wanted.mutable else matches(found.value, wanted.value)
