"""Thunks made from annotations: signatures, conversions, outputs, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from abi.guest import GuestMemory
from abi.hostcall import (
    I32,
    I64,
    U32,
    U64,
    Bytes,
    HostCall,
    OptionalBytes,
    OutBuffer,
    OutBytes,
    OutId,
    OutToken,
    OutU32,
    OutU64,
    proxy_call,
    wasi_call,
)
from abi.proxy_wasm.types import Errno, Status
from tests.abi.memory import FlatMemory


def guest() -> GuestMemory:
    """4 KiB of memory and an allocator that gives out addresses from 2048."""
    made = GuestMemory()
    made.memory = FlatMemory(4096)  # type: ignore[assignment]
    following = [2048]

    def allocate(size: int) -> int:
        following[0] += size
        return following[0] - size

    made.allocate = allocate
    return made


def bound(call: HostCall, memory: GuestMemory, vm: object = "vm") -> Any:
    return call.bind(vm, memory)


@proxy_call
def everything(vm: object, a: U32, b: U64, c: I32, d: I64, text: Bytes) -> Status | OutBytes:
    return repr((vm, a, b, c, d, text)).encode()


def test_signature_and_conversions() -> None:
    assert everything.signature == "i32 i64 i32 i64 i32 i32 i32 i32 -> i32"
    memory = guest()
    memory.write(10, b"abc")
    call = bound(everything, memory)
    assert call.__name__ == "everything"
    assert call(None, 2**32 - 1, 2**64 - 1, 2**32 - 1, 2**64 - 1, 10, 3, 100, 104) == 0
    expected = repr(("vm", 2**32 - 1, 2**64 - 1, -1, -1, b"abc")).encode()
    assert memory.read(memory.read_u32(100), memory.read_u32(104)) == expected
    assert call(None, 0, 0, 0x80000000, 2**63, 10, 0, 100, 104) == 0
    assert repr((-(2**31), -(2**63), b""))[1:].encode() in memory.read(
        memory.read_u32(100), memory.read_u32(104)
    )


def test_a_status_writes_nothing() -> None:
    @proxy_call
    def refuse(vm: object) -> Status | tuple[OutU32, OutU64, OutBytes]:
        return Status.NOT_FOUND

    memory = guest()
    assert refuse.signature == "i32 i32 i32 i32 -> i32"
    assert bound(refuse, memory)(None, 0, 8, 16, 20) == 1
    assert memory.read(0, 32) == bytes(32)


def test_outputs_are_written_in_order() -> None:
    @proxy_call
    def answer(vm: object) -> Status | tuple[OutU32, OutU64, OutBytes]:
        return 7, 2**64 - 2, b"xy"

    memory = guest()
    assert bound(answer, memory)(None, 0, 8, 16, 20) == 0
    assert memory.read_u32(0) == 7
    assert memory.read(8, 8) == b"\xfe" + b"\xff" * 7
    assert memory.read(memory.read_u32(16), memory.read_u32(20)) == b"xy"


@pytest.mark.parametrize("slots", [(4093, 100), (100, 4093), (2**32 - 4, 100)])
def test_slots_outside_memory(slots: tuple[int, int]) -> None:
    @proxy_call
    def answer(vm: object) -> Status | OutBytes:
        return b"xy"

    assert bound(answer, guest())(None, *slots) == Status.INVALID_MEMORY_ACCESS


def test_slots_that_are_checked_before_the_call() -> None:
    begun = []

    @proxy_call
    def token(vm: object, status: U32, text: Bytes) -> Status | OutToken:
        begun.append(text)
        return Status(status) if status else 4

    @proxy_call
    def number(vm: object, status: U32) -> Status | OutId:
        begun.append(b"")
        return Status(status) if status else 4

    memory = guest()
    memory.write_u32(100, 99)
    for call in (bound(token, memory), bound(number, memory)):
        rest = (10, 0) if call.__name__ == "token" else ()
        for slot in (4093, 0xFFFFFFFF):
            assert call(None, 0, *rest, slot) == Status.INVALID_MEMORY_ACCESS
    assert bound(token, memory)(None, 0, 4000, 97, 100) == Status.INVALID_MEMORY_ACCESS
    assert memory.read_u32(100) == 99  # what comes in is looked at first
    assert not begun
    assert bound(number, memory)(None, 2, 100) == 2
    assert memory.read_u32(100) == 99
    assert bound(number, memory)(None, 0, 100) == 0
    assert memory.read_u32(100) == 4
    assert bound(token, memory)(None, 2, 10, 0, 100) == 2
    assert memory.read_u32(100) == 0
    assert bound(token, memory)(None, 0, 10, 0, 100) == 0
    assert memory.read_u32(100) == 4
    assert len(begun) == 4


def test_results_are_plain_integers() -> None:
    # An IntEnum would travel into the guest's arithmetic and slow it down.
    @proxy_call
    def status(vm: object) -> Status:
        return Status.BAD_ARGUMENT

    result = bound(status, guest())(None)
    assert result == 2
    assert type(result) is int


def test_wasi_calls_have_their_own_errors() -> None:
    @wasi_call
    def look(vm: object, text: Bytes) -> Errno | OutU32:
        return Errno.BADF if text == b"\0" else len(text)

    call = bound(look, guest())
    assert call(None, 0, 1, 100) == Errno.BADF
    assert call(None, 4096, 1, 100) == Errno.FAULT
    assert call(None, 0, 5, 100) == 0


def test_calls_without_result_and_with_a_plain_one() -> None:
    seen = []

    @proxy_call
    def tell(vm: object, text: Bytes) -> None:
        seen.append(text)

    @proxy_call
    def add(vm: object, a: U32, b: U32) -> int:
        return a + b

    assert tell.signature == "i32 i32 -> "
    assert bound(tell, guest())(None, 0, 1) is None
    assert bound(tell, guest())(None, 5000, 1) is None
    assert seen == [b"\0"]
    assert bound(add, guest())(None, 2, 3) == 5


def test_each_binding_has_its_own_vm() -> None:
    @proxy_call
    def who(vm: int) -> Status | OutU32:
        return vm

    memory = guest()
    first, second = bound(who, memory, 1), bound(who, memory, 2)
    first(None, 0)
    second(None, 4)
    assert (memory.read_u32(0), memory.read_u32(4)) == (1, 2)


@pytest.mark.parametrize(("address", "size"), [(100, 104), (0, 104), (100, 0), (0, 0)])
def test_optional_outputs(address: int, size: int) -> None:
    @proxy_call
    def answer(vm: object, data: Bytes) -> Status | OptionalBytes:
        return data

    memory = guest()
    memory.write(8, b"xyz")
    assert bound(answer, memory)(None, 8, 3, address, size) == 0
    assert memory.read(0, 8) == bytes(8)  # null slots are not written
    assert (memory.read_u32(100) != 0) == (address == 100)
    assert memory.read_u32(104) == (3 if size else 0)
    assert bound(answer, memory)(None, 8, 0, 100, 104) == 0
    assert (memory.read_u32(100), memory.read_u32(104)) == (0, 0)


def test_empty_buffers_and_the_null_size_slot() -> None:
    @proxy_call
    def answer(vm: object) -> Status | OutBuffer:
        return b""

    memory = guest()
    memory.write_u32(100, 99)
    assert bound(answer, memory)(None, 100, 104) == 0
    assert memory.read_u32(100) == 0
    assert bound(answer, memory)(None, 100, 0) == 0
    assert memory.read_u32(100) == 2048


def test_errors_of_the_function_itself_are_not_statuses() -> None:
    @proxy_call
    def broken(vm: object) -> Status:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        bound(broken, guest())(None)
