"""The memory contract: bounds without wrap-around, allocation, order of writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.guest import GuestMemory, GuestMemoryError
from tests.abi.memory import FlatMemory

SIZE = 256


def guest(*addresses: int) -> tuple[GuestMemory, list[int]]:
    """Memory with an allocator that gives these addresses; and the sizes it was asked for."""
    made, asked, left = GuestMemory(), [], list(addresses)
    made.memory = FlatMemory(SIZE)  # type: ignore[assignment]

    def allocate(size: int) -> int:
        asked.append(size)
        return left.pop(0)

    made.allocate = allocate
    return made, asked


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_ranges_are_checked_without_wrapping(address: int, size: int) -> None:
    memory, _ = guest()
    if address + size <= SIZE:
        assert len(memory.read(address, size)) == size
    else:
        with pytest.raises(GuestMemoryError, match="outside the guest's memory"):
            memory.read(address, size)


def test_the_end_is_inside_for_nothing() -> None:
    memory, _ = guest()
    assert memory.read(SIZE, 0) == b""
    memory.write(SIZE, b"")
    memory.write(SIZE - 1, b"x")
    with pytest.raises(GuestMemoryError):
        memory.write(SIZE, b"x")
    with pytest.raises(GuestMemoryError):
        memory.write_u32(SIZE - 3, 1)
    with pytest.raises(GuestMemoryError):
        memory.write_u64(SIZE - 7, 1)
    with pytest.raises(GuestMemoryError):
        memory.read_u32(SIZE - 3)


def test_no_memory_no_access() -> None:
    with pytest.raises(GuestMemoryError):
        GuestMemory().read(0, 0)
    assert GuestMemory().allocate(1) == 0


def test_handing_over_asks_for_exactly_the_bytes_needed() -> None:
    memory, asked = guest(64)
    memory.hand_over(0, 4, b"hello")
    assert asked == [5]
    assert (memory.read_u32(0), memory.read_u32(4)) == (64, 5)
    assert memory.read(64, 5) == b"hello"


def test_nothing_is_not_allocated() -> None:
    memory, asked = guest()
    memory.write(0, b"\xff" * 8)
    memory.hand_over(0, 4, b"")
    assert asked == []
    assert memory.read(0, 8) == bytes(8)


@pytest.mark.parametrize("address", [0, SIZE - 4, 2**32 - 1])
def test_a_block_that_is_none_leaves_the_outputs_alone(address: int) -> None:
    memory, _ = guest(address)
    memory.write(0, b"\xff" * 8)
    with pytest.raises(GuestMemoryError):
        memory.hand_over(0, 4, b"hello")
    assert memory.read(0, 8) == b"\xff" * 8


def test_the_address_is_written_before_the_size() -> None:
    memory, asked = guest(64)
    with pytest.raises(GuestMemoryError):
        memory.hand_over(0, SIZE, b"hello")
    assert memory.read_u32(0) == 64  # Envoy leaks the block in this case, too
    assert asked == [5]


def test_memory_that_grew_in_the_allocator_is_seen() -> None:
    memory, _ = guest()

    def allocate(size: int) -> int:
        memory.memory = FlatMemory(2 * SIZE)  # type: ignore[assignment]
        return SIZE + 8

    memory.allocate = allocate
    memory.hand_over(0, 4, b"hello")
    assert memory.read(SIZE + 8, 5) == b"hello"
