"""Linear memory on a numpy array (spec: Execution, Memories).

numpy owns the bytes; engines reach them through `u8`, a memoryview of exactly the current size that the
memory itself replaces when it grows, so an index past the end is an IndexError (and a struct.error for
wider accesses). Capacity doubles, so most growth only makes a new view. Effective addresses are never
negative: operands are unsigned and offsets are added without wrapping.
"""

from __future__ import annotations

from types import CellType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.runtime.limits import BULK_PIECE
from pywasmvm.types import Limits, MemoryType

if TYPE_CHECKING:
    from pywasmvm.runtime.store import Store

PAGE = 1 << 16

#: Pages that addresses of each width can reach.
_REACH = {32: 1 << 16, 64: 1 << 48}

#: Growth rebinds views up to this capacity without copying; the pages behind it are committed when touched.
_LEAST_CAPACITY = 1 << 20


class Memory:
    """A linear memory.

    `data` is a numpy `uint8` array of `nbytes` bytes that shares its bytes with the guest; views taken before
    a `grow` may be stale afterwards (`data` itself is always current). It begins with `pages` pages, by
    default the minimum of its type. Raises MemoryError when a limit of the store, or its type, forbids that.
    """

    __slots__ = ("_array", "_max", "_pages", "_type", "cells", "most_pages", "store", "u8")

    def __init__(self, type_: MemoryType, store: Store | None = None, *, pages: int | None = None) -> None:
        self.store = store
        self._pages = 0
        self._type = type_
        self._max = type_.limits.max
        pages = type_.limits.min if pages is None else pages
        if pages > (_REACH[type_.address.bits] if self._max is None else self._max):
            raise MemoryError(f"{pages} pages of memory are more than its type allows")
        if store is not None and not store.reserve_pages(pages):
            raise MemoryError(f"{pages} pages of memory are more than the store's limit allows")
        self._pages = pages
        #: It will never have more pages than this. The limit of the store at its birth is one for life:
        #: translated code relies on it. Addresses of 32 bits never reach the very last page, so that what has
        #: been accessed lies far enough below 2^32 for pointers not to wrap behind it.
        limit = None if store is None else store.limits.memory_pages
        reach = _REACH[type_.address.bits]
        self.most_pages = min(
            max(reach - 1, pages),
            reach if self._max is None else self._max,
            reach if limit is None else limit,
        )
        try:
            self._array: npt.NDArray[np.uint8] = np.zeros(max(pages * PAGE, 1), dtype=np.uint8)
        except ValueError as error:  # more than numpy can count
            raise MemoryError(str(error)) from None
        self.u8: memoryview = self._array.data[: pages * PAGE]
        #: Views that translated code holds, by format letter; growth replaces their contents.
        self.cells: dict[str, CellType] = {}

    def __del__(self) -> None:
        if self.store is not None:
            self.store.pages -= self._pages

    # -- for hosts -------------------------------------------------------------------------------------

    @property
    def type(self) -> MemoryType:
        """Its type now: the minimum is the current size."""
        return MemoryType(Limits(self._pages, self._max), self._type.address)

    @property
    def pages(self) -> int:
        """Current size in pages of 64 KiB."""
        return self._pages

    @property
    def nbytes(self) -> int:
        """Current size in bytes."""
        return self._pages * PAGE

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """All bytes, shape `(nbytes,)`, not copied."""
        return self._array[: self._pages * PAGE]

    def view(self, dtype: npt.DTypeLike, offset: int = 0, count: int = -1) -> npt.NDArray[Any]:
        """A typed view, not copied: `count` elements from byte `offset` on (-1: as many as fit)."""
        wanted = np.dtype(dtype)
        if count < 0:
            count = max(self.nbytes - offset, 0) // wanted.itemsize
        self._check(offset, count * wanted.itemsize)
        return np.frombuffer(self.u8, dtype=wanted, count=count, offset=offset)

    def read(self, address: int, size: int) -> bytes:
        """A copy of `size` bytes. Raises Trap when they are not all inside."""
        view, end = self.u8, address + size
        if address < 0 or size < 0 or end > len(view):  # in line: hosts read all the time
            raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS)
        return view[address:end].tobytes()

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copy bytes in. Raises Trap, and writes nothing, when they do not fit."""
        self._check(address, len(data))
        self.u8[address : address + len(data)] = data

    def read_string(self, address: int, size: int, encoding: str = "utf-8") -> str:
        """Decode `size` bytes. Raises Trap or UnicodeDecodeError."""
        return self.read(address, size).decode(encoding)

    def read_u32(self, address: int) -> int:
        """Four bytes, little-endian."""
        return int.from_bytes(self.read(address, 4), "little")

    def write_u32(self, address: int, value: int) -> None:
        """Four bytes, little-endian; the value is taken modulo 2^32."""
        self.write(address, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        """Eight bytes, little-endian; the value is taken modulo 2^64."""
        self.write(address, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))

    def grow(self, pages: int) -> int:
        """Add pages; the previous size in pages. Raises MemoryError where a limit forbids it."""
        before = self.try_grow(pages)
        if before < 0:
            raise MemoryError(f"memory of {self._pages} pages cannot grow by {pages}")
        return before

    def __repr__(self) -> str:
        return f"<Memory of {self._pages} pages>"

    # -- for engines -----------------------------------------------------------------------------------

    def cell(self, letter: str) -> CellType:
        """A closure cell with the bytes seen as `struct` format letter (`a`: as the numpy array), always of
        exactly the current size.
        """
        found = self.cells.get(letter)
        if found is None:
            found = self.cells[letter] = CellType(self._seen_as(letter))
        return found

    def _seen_as(self, letter: str) -> Any:
        return self.u8 if letter == "B" else self.data if letter == "a" else self.u8.cast(letter)  # type: ignore[call-overload]

    def try_grow(self, pages: int) -> int:
        """The semantics of memory.grow: the previous size in pages, or -1."""
        before = self._pages
        if pages and before + pages > self.most_pages:
            return -1
        if self.store is not None and not self.store.reserve_pages(pages):
            return -1
        size = (before + pages) * PAGE
        if size > len(self._array):
            try:
                bigger = np.zeros(max(size, 2 * len(self._array), _LEAST_CAPACITY), dtype=np.uint8)
            except (MemoryError, ValueError):
                try:
                    bigger = np.zeros(size, dtype=np.uint8)
                except (MemoryError, ValueError):
                    if self.store is not None:
                        self.store.pages -= pages
                    return -1
            bigger[: before * PAGE] = self._array[: before * PAGE]
            self._array = bigger
        self._pages = before + pages
        self.u8 = self._array.data[:size]
        for letter, cell in self.cells.items():
            cell.cell_contents = self._seen_as(letter)
        return before

    def _check(self, address: int, size: int) -> None:
        if address < 0 or size < 0 or address + size > self._pages * PAGE:
            raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS)

    def _pieces(self, size: int, backwards: bool = False) -> list[tuple[int, int]]:
        """Split a long operation, so that the clock can be looked at in between."""
        pieces = [(at, min(BULK_PIECE, size - at)) for at in range(0, size, BULK_PIECE)]
        return pieces[::-1] if backwards else pieces

    def _poll(self) -> None:
        if self.store is not None:
            self.store.check_deadline()

    def fill(self, address: int, value: int, size: int) -> None:
        """memory.fill: set `size` bytes to the low byte of `value`. Raises Trap before any write."""
        self._check(address, size)
        for at, count in self._pieces(size):
            self._array[address + at : address + at + count] = value & 0xFF
            self._poll()

    def copy(self, target: int, source: int, size: int, other: Memory | None = None) -> None:
        """memory.copy from `other` (None: this one), as if through a buffer. Traps before any write."""
        origin = self if other is None else other
        origin._check(source, size)
        self._check(target, size)
        # A memoryview copy handles overlap; across pieces the order must keep what is still to be read.
        for at, count in self._pieces(size, backwards=origin is self and target > source):
            begin = source + at
            self.u8[target + at : target + at + count] = origin.u8[begin : begin + count]
            self._poll()

    def init(self, target: int, data: memoryview | bytes, source: int, size: int) -> None:
        """memory.init from the bytes of a data segment. Raises Trap before any write."""
        if source + size > len(data):
            raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS)
        self._check(target, size)
        self.u8[target : target + size] = data[source : source + size]
