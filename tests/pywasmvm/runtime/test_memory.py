"""Memory from the host's side: views without copies, checked reads and writes, growth."""

from __future__ import annotations

import numpy as np
import pytest

from pywasmvm import Limits, Memory, MemoryType, Store, StoreLimits, Trap, TrapKind
from pywasmvm.types import I64
from tests.support.instances import trap

PAGE = 65536


def memory(pages: int = 1, most: int | None = None, **limits: int) -> Memory:
    store = Store(limits=StoreLimits(**limits)) if limits else None
    return Memory(MemoryType(Limits(pages, most)), store)


def test_data_is_a_view_without_a_copy() -> None:
    mem = memory()
    assert mem.data.dtype == np.uint8
    assert mem.data.shape == (PAGE,)
    mem.data[5] = 9
    assert mem.read(5, 1) == b"\x09"
    mem.write(6, b"\x07")
    assert mem.data[6] == 7


def test_typed_views() -> None:
    mem = memory()
    mem.write_u32(8, 0x01020304)
    assert mem.view("<u4", offset=8, count=1)[0] == 0x01020304
    assert mem.view("<u4").shape == (PAGE // 4,)
    assert mem.view("u1", offset=PAGE - 3).shape == (3,)
    mem.view("<u2", offset=8, count=2)[1] = 0xFFFF
    assert mem.read_u32(8) == 0xFFFF0304
    with pytest.raises(Trap):
        mem.view("<u4", offset=PAGE - 4, count=2)


def test_reads_and_writes() -> None:
    mem = memory()
    mem.write(10, bytearray(b"abc"))
    mem.write(13, memoryview(b"def"))
    assert mem.read(10, 6) == b"abcdef"
    assert mem.read_string(10, 3) == "abc"
    assert mem.read_string(10, 2, "utf-16-le") == "扡"
    mem.write(0, b"\xff")
    with pytest.raises(UnicodeDecodeError):
        mem.read_string(0, 1)
    mem.write_u32(20, -1)
    mem.write_u64(24, 2**64 + 5)
    assert mem.read(20, 12) == b"\xff" * 4 + b"\x05" + bytes(7)
    assert mem.read(PAGE, 0) == b""


@pytest.mark.parametrize(
    ("address", "size"), [(PAGE, 1), (PAGE - 1, 2), (-1, 1), (0, -1), (PAGE + 1, 0), (2**64, 1)]
)
def test_out_of_bounds(address: int, size: int) -> None:
    mem = memory()
    kind = TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS
    assert trap(lambda: mem.read(address, size)) is kind
    if size >= 0:
        assert trap(lambda: mem.write(address, bytes(size))) is kind
        assert trap(lambda: mem.read_string(address, size)) is kind
    assert trap(lambda: mem.fill(address, 1, size)) is kind
    assert trap(lambda: mem.copy(0, address, size)) is kind
    assert trap(lambda: mem.copy(address, 0, size)) is kind
    for action in (
        lambda: mem.read_u32(PAGE - 3),
        lambda: mem.write_u32(PAGE - 3, 0),
        lambda: mem.write_u64(PAGE - 7, 0),
    ):
        assert trap(action) is kind


def test_growth_keeps_data_current() -> None:
    mem = memory(1, 40)
    mem.write(0, b"kept")
    old = mem.data
    assert mem.grow(0) == 1
    assert mem.grow(30) == 1
    assert mem.nbytes == 31 * PAGE == len(mem.data)
    assert mem.read(0, 4) == b"kept"
    assert mem.type == MemoryType(Limits(31, 40))
    assert len(old) == PAGE
    with pytest.raises(MemoryError, match="memory of 31 pages cannot grow by 10"):
        mem.grow(10)
    assert mem.grow(9) == 31


def test_growth_within_the_capacity_shares_the_bytes() -> None:
    mem = memory(1)
    mem.grow(1)
    view = mem.data
    mem.grow(1)
    view[0] = 3
    assert mem.read(0, 1) == b"\x03"


def test_no_memory_is_larger_than_its_address_space() -> None:
    mem = memory(0)
    assert mem.try_grow(65537) == -1
    assert mem.try_grow(2**32 - 1) == -1


def test_a_memory_error_of_the_machine_is_a_failed_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    from pywasmvm.runtime import memory as module

    mem = memory(1, memory_pages=100)
    sizes: list[int] = []

    def refuse(size: int, dtype: object) -> object:
        sizes.append(size)
        raise MemoryError

    monkeypatch.setattr(module.np, "zeros", refuse)
    assert mem.try_grow(50) == -1
    assert sizes[-1] == 51 * PAGE  # without the usual reserve, before giving up
    monkeypatch.undo()
    assert mem.store is not None
    assert mem.store.pages == 1
    assert mem.try_grow(50) == 1


def test_limits_of_the_store() -> None:
    mem = memory(2, memory_pages=3)
    assert mem.try_grow(2) == -1
    assert mem.try_grow(1) == 2
    with pytest.raises(MemoryError, match="4 pages of memory are more than the store's limit allows"):
        memory(4, memory_pages=3)


def test_copy_between_memories() -> None:
    one, two = memory(), memory()
    one.write(0, b"abcdef")
    two.copy(10, 1, 4, one)
    assert two.read(9, 6) == b"\0bcde\0"
    one.copy(2, 0, 6)
    assert one.read(0, 8) == b"ababcdef"


def test_the_address_type_is_kept() -> None:
    assert Memory(MemoryType(Limits(1), I64)).type.address is I64
