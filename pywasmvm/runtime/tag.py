"""Tags and exceptions (spec: Execution, Tag Instances, Exception Instances)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pywasmvm.matching import def_type
from pywasmvm.types import DefType, FuncType, TagType

if TYPE_CHECKING:
    from pywasmvm.runtime.store import Store


class Tag:
    """What handlers tell exceptions apart by: its identity, not its type, decides what is caught."""

    __slots__ = ("deftype", "store", "type")

    def __init__(self, type_: FuncType | DefType, store: Store | None = None) -> None:
        self.deftype = type_ if isinstance(type_, DefType) else def_type(type_)
        self.type, self.store = TagType(self.deftype.func), store

    def __repr__(self) -> str:
        return f"<Tag {self.type.type.params}>"


class Exn:
    """An exception that was thrown, as a value (`exnref`); throwing it again is the same exception.

    `values` are the canonical operands it was thrown with.
    """

    __slots__ = ("tag", "values")

    def __init__(self, tag: Tag, values: tuple[Any, ...]) -> None:
        self.tag, self.values = tag, values

    def __repr__(self) -> str:
        return f"<Exn {self.tag} {self.values}>"
