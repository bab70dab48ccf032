"""A memory for tests that need no guest: the part of `pywasmvm.Memory` that the ABI layer uses."""

from __future__ import annotations


class FlatMemory:
    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)

    @property
    def nbytes(self) -> int:
        return len(self.bytes)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.bytes[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        self.bytes[address : address + len(data)] = data

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(8, "little"))
