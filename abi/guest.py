"""`GuestMemory`: how a host function reads what a guest points at and hands data back.

Source: proxy-wasm specification 0.2.1, "Memory management", and the memory contract of Envoy's host:
addresses and sizes are unsigned, every range is checked without wrap-around, data handed over lies in a block
the guest's own allocator gave out, and the guest owns it afterwards. WASI calls use the same object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pywasmvm import Memory


class GuestMemoryError(Exception):
    """A guest named a range outside its memory, or its allocator failed. Becomes a status, not a trap."""


def _no_allocator(size: int) -> int:
    return 0


class GuestMemory:
    """The exported memory of one instance, seen through the ABI.

    `memory` is None until the instance exists, and stays None for a module that exports no memory: every
    access then fails with `GuestMemoryError`. `allocate(size)` asks the guest for a block; 0 means failure.
    """

    __slots__ = ("allocate", "memory")

    def __init__(self) -> None:
        self.memory: Memory | None = None
        self.allocate: Callable[[int], int] = _no_allocator

    def _checked(self, address: int, size: int) -> Memory:
        memory = self.memory
        # Python integers do not wrap, so 0xfffffff0 + 64 is out of range as it must be.
        if memory is None or address + size > memory.nbytes:
            raise GuestMemoryError(f"{size} bytes at {address:#x} are outside the guest's memory")
        return memory

    def read(self, address: int, size: int) -> bytes:
        """The bytes of a range, copied; an empty range anywhere inside memory is fine."""
        return self._checked(address, size).read(address, size)

    def read_u32(self, address: int) -> int:
        return self._checked(address, 4).read_u32(address)

    def write(self, address: int, data: bytes) -> None:
        self._checked(address, len(data)).write(address, data)

    def write_u32(self, address: int, value: int) -> None:
        self._checked(address, 4).write_u32(address, value)

    def write_u64(self, address: int, value: int) -> None:
        self._checked(address, 8).write_u64(address, value)

    def place(self, data: bytes) -> int:
        """Copy data into a new block of the guest's allocator; its address."""
        size = len(data)
        address = self.allocate(size)
        if address == 0:
            raise GuestMemoryError(f"the guest's allocator gave no block of {size} bytes")
        # Memory may have grown during the call, so its size is asked again.
        self._checked(address, size).write(address, data)
        return address

    def hand_over(self, address_slot: int, size_slot: int, data: bytes) -> None:
        """Give data to the guest: block, then its address, then its size, in that order.

        Nothing is allocated for empty data; the guest then sees address 0 and size 0.
        """
        self.write_u32(address_slot, self.place(data) if data else 0)
        self.write_u32(size_slot, len(data))

    def hand_over_buffer(self, address_slot: int, size_slot: int, data: bytes) -> None:
        """`hand_over` for `proxy_get_buffer_bytes`, which has a compatibility rule for empty results.

        The AssemblyScript SDK 0.1.8 passes the *number of bytes* where the address of the size slot belongs,
        so a configuration of size 0 makes that address 0. Its own size slot then keeps an older, non-zero
        value, and with address 0 it would read an object header at 0 and trap. A real (empty) block keeps it
        alive. No correct caller passes a null size slot, and not every allocator likes size 0 (Go's panics),
        so the rule is for exactly that case.
        """
        if data or size_slot != 0:
            self.hand_over(address_slot, size_slot, data)
        else:
            self.write_u32(address_slot, self.allocate(0))

    def hand_over_optional(self, address_slot: int, size_slot: int, data: bytes) -> None:
        """`hand_over` where either slot may be 0: the guest is not interested in that part."""
        if address_slot:
            self.write_u32(address_slot, self.place(data) if data else 0)
        if size_slot:
            self.write_u32(size_slot, len(data))
