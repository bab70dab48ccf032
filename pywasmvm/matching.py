"""Subtyping and import matching (spec: Validation, Matching).

Function types are made canonical here: structurally equal types become one object, across modules, so
that the check of an indirect call is an identity test.
"""

from __future__ import annotations

from pywasmvm.types import (
    BottomType,
    ExternType,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    RefType,
    TableType,
    ValType,
)


def matches(sub: ValType, sup: ValType) -> bool:
    """Whether a value of type `sub` may stand where `sup` is wanted."""
    if sub is sup or isinstance(sub, BottomType):
        return True
    if isinstance(sub, RefType) and isinstance(sup, RefType):
        return sub.heap is sup.heap and (sup.nullable or not sub.nullable)
    return False


def match_limits(found: Limits, wanted: Limits) -> bool:
    """Whether an object with these limits may be imported under those."""
    if found.min < wanted.min:
        return False
    return wanted.max is None or (found.max is not None and found.max <= wanted.max)


def match_extern(found: ExternType, wanted: ExternType) -> bool:
    """Whether an extern of type `found` satisfies an import of type `wanted`."""
    if isinstance(wanted, FuncType):
        return found == wanted
    if isinstance(wanted, MemoryType):
        return (
            isinstance(found, MemoryType)
            and found.address is wanted.address
            and match_limits(found.limits, wanted.limits)
        )
    if isinstance(wanted, TableType):
        return (
            isinstance(found, TableType)
            and found.element is wanted.element
            and found.address is wanted.address
            and match_limits(found.limits, wanted.limits)
        )
    if not isinstance(found, GlobalType) or found.mutable != wanted.mutable:
        return False
    # A mutable global is written through both names, so its type must agree exactly.
    return found.value is wanted.value if wanted.mutable else matches(found.value, wanted.value)


_interned: dict[FuncType, FuncType] = {}


def canonical(type_: FuncType) -> FuncType:
    """The one object for this function type in the process."""
    return _interned.setdefault(type_, type_)
