"""Globals (spec: Execution, Globals)."""

from __future__ import annotations

from types import CellType
from typing import TYPE_CHECKING, Any

from pywasmvm.runtime.values import default, to_canonical, to_python
from pywasmvm.types import GlobalType

if TYPE_CHECKING:
    from pywasmvm.runtime.store import Store


class Global:
    """A global; `value` reads it (integers signed) and sets it when it is mutable.

    `raw` is the canonical value; engines use the `cell` it is in.
    """

    __slots__ = ("cell", "store", "type")

    def __init__(self, type_: GlobalType, value: Any = None, store: Store | None = None) -> None:
        self.type, self.store = type_, store
        raw = default(type_.value) if value is None else to_canonical(type_.value)(value)
        self.cell = CellType(raw)

    @property
    def raw(self) -> Any:
        """The canonical value."""
        return self.cell.cell_contents

    @raw.setter
    def raw(self, value: Any) -> None:
        self.cell.cell_contents = value

    @classmethod
    def from_raw(cls, type_: GlobalType, raw: Any, store: Store | None) -> Global:
        """A global that starts with a canonical value."""
        made = cls(type_, store=store)
        made.raw = raw
        return made

    @property
    def value(self) -> Any:
        """The current value. Setting an immutable global raises TypeError."""
        return to_python(self.type.value)(self.raw)

    @value.setter
    def value(self, value: Any) -> None:
        if not self.type.mutable:
            raise TypeError("this global is immutable")
        self.raw = to_canonical(self.type.value)(value)

    def __repr__(self) -> str:
        return f"<Global {self.type}: {self.value!r}>"
