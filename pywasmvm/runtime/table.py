"""Tables of references (spec: Execution, Tables). A null reference is None."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.runtime.values import to_canonical
from pywasmvm.types import Limits, TableType

if TYPE_CHECKING:
    from pywasmvm.runtime.store import Store


class Table:
    """A table; `t[i]`, `t[i] = ref`, `len(t)`, `t.grow(n, init)` from the host.

    It begins with `size` elements, by default the minimum of its type. Raises MemoryError when a limit of the
    store forbids that.
    """

    __slots__ = ("_max", "_type", "elements", "store")

    def __init__(
        self, type_: TableType, init: Any = None, store: Store | None = None, *, size: int | None = None
    ) -> None:
        self.store = store
        self._type, self._max = type_, type_.limits.max
        size = type_.limits.min if size is None else size
        if store is not None and not store.reserve_elements(size):
            self.store = None  # nothing to give back
            raise MemoryError(f"{size} table elements are more than the store's limit allows")
        self.elements: list[Any] = [init] * size

    def __del__(self) -> None:
        if self.store is not None:
            self.store.elements -= len(getattr(self, "elements", ()))

    @property
    def type(self) -> TableType:
        """Its type now: the minimum is the current size."""
        return TableType(self._type.element, Limits(len(self.elements), self._max), self._type.address)

    def __len__(self) -> int:
        return len(self.elements)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.elements)

    def __getitem__(self, index: int) -> Any:
        return self.get(index)

    def __setitem__(self, index: int, value: Any) -> None:
        self.set(index, to_canonical(self._type.element)(value))

    def grow(self, count: int, init: Any = None) -> int:
        """Add elements; the previous size. Raises MemoryError when a limit forbids it."""
        before = self.try_grow(count, init)
        if before < 0:
            raise MemoryError(f"a table of {len(self.elements)} elements cannot grow by {count}")
        return before

    def __repr__(self) -> str:
        return f"<Table of {len(self.elements)} {self._type.element}>"

    # -- for engines: the semantics of the table instructions --------------------------------------------

    def get(self, index: int) -> Any:
        """table.get."""
        if not 0 <= index < len(self.elements):
            raise Trap(TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS)
        return self.elements[index]

    def set(self, index: int, value: Any) -> None:
        """table.set."""
        if not 0 <= index < len(self.elements):
            raise Trap(TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS)
        self.elements[index] = value

    def try_grow(self, count: int, init: Any) -> int:
        """table.grow: the previous size, or -1."""
        before = len(self.elements)
        most = (1 << self._type.address.bits) - 1
        if before + count > (most if self._max is None else self._max):
            return -1
        if self.store is not None and not self.store.reserve_elements(count):
            return -1
        try:
            self.elements += [init] * count
        except (MemoryError, OverflowError):
            if self.store is not None:
                self.store.elements -= count
            return -1
        return before

    def fill(self, index: int, value: Any, count: int) -> None:
        """table.fill."""
        if index + count > len(self.elements):
            raise Trap(TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS)
        self.elements[index : index + count] = [value] * count

    def copy(self, target: int, source: int, count: int, other: Table) -> None:
        """table.copy from `other`, as if through a buffer."""
        if source + count > len(other.elements) or target + count > len(self.elements):
            raise Trap(TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS)
        self.elements[target : target + count] = other.elements[source : source + count]

    def init(self, target: int, items: Sequence[Any], source: int, count: int) -> None:
        """table.init from the items of an element segment."""
        if source + count > len(items) or target + count > len(self.elements):
            raise Trap(TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS)
        self.elements[target : target + count] = items[source : source + count]
