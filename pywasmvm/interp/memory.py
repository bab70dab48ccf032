"""Memory instructions: pop, call the memory, push. Loads and stores of the first memory are the machine's own
business; here are those of the others, and those of single lanes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pywasmvm.errors import Trap, TrapKind
from pywasmvm.interp.frame import Frame
from pywasmvm.isa import Access, Opcode
from pywasmvm.runtime.access import lane_load_function, lane_store_function, load_function, store_function
from pywasmvm.syntax import MemArg

#: What an access outside of a memory's bytes raises.
_OUTSIDE = (IndexError, struct.error, OverflowError)


def _size(frame: Frame, index: int) -> None:
    frame.stack.append(frame.instance.memories[index].pages)


def _grow(frame: Frame, index: int) -> int:
    memory = frame.instance.memories[index]
    mask = (1 << memory.type.address.bits) - 1
    pages: int = frame.stack.pop()
    before = memory.try_grow(pages)
    frame.stack.append(before & mask)
    return 0 if before < 0 else pages


def _fill(frame: Frame, index: int) -> int:
    address, value, size = frame.pop_many(3)
    frame.instance.memories[index].fill(address, value, size)
    return int(size)


def _copy(frame: Frame, immediate: tuple[int, int]) -> int:
    target, source, size = frame.pop_many(3)
    memories = frame.instance.memories
    memories[immediate[0]].copy(target, source, size, memories[immediate[1]])
    return int(size)


def _init(frame: Frame, immediate: tuple[int, int]) -> int:
    target, source, size = frame.pop_many(3)
    data, memory = immediate
    frame.instance.memories[memory].init(target, frame.instance.data(data), source, size)
    return int(size)


def _drop(frame: Frame, index: int) -> None:
    frame.instance.dropped_data.add(index)


def load_from(access: Access) -> Callable[[Frame, MemArg], None]:
    """How a load reads a memory other than the first."""
    load = load_function(access)

    def execute(frame: Frame, memarg: MemArg) -> None:
        stack = frame.stack
        try:
            stack[-1] = load(frame.instance.memories[memarg.memory].u8, stack[-1] + memarg.offset)
        except _OUTSIDE:
            raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS) from None

    return execute


def store_to(access: Access) -> Callable[[Frame, MemArg], None]:
    """How a store writes a memory other than the first."""
    store = store_function(access)

    def execute(frame: Frame, memarg: MemArg) -> None:
        address, value = frame.pop_many(2)
        try:
            store(frame.instance.memories[memarg.memory].u8, address + memarg.offset, value)
        except _OUTSIDE:
            raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS) from None

    return execute


def lane_access(opcode: Opcode) -> Callable[[Frame, tuple[MemArg, int]], None]:
    """How a load or store of one lane of a vector works."""
    access = opcode.access
    if access is None:
        raise LookupError(f"{opcode.name} does not access memory")
    if ".store" in opcode.name:
        store = lane_store_function(access)

        def put(frame: Frame, immediate: tuple[MemArg, int]) -> None:
            memarg, lane = immediate
            address, vector = frame.pop_many(2)
            try:
                store(frame.instance.memories[memarg.memory].u8, address + memarg.offset, vector, lane)
            except _OUTSIDE:
                raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS) from None

        return put
    load = lane_load_function(access)

    def get(frame: Frame, immediate: tuple[MemArg, int]) -> None:
        memarg, lane = immediate
        address, vector = frame.pop_many(2)
        view = frame.instance.memories[memarg.memory].u8
        try:
            frame.stack.append(load(view, address + memarg.offset, vector, lane))
        except _OUTSIDE:
            raise Trap(TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS) from None

    return get


EXECUTED: dict[str, Callable[[Any, Any], int | None]] = {
    "memory.size": _size,
    "memory.grow": _grow,
    "memory.fill": _fill,
    "memory.copy": _copy,
    "memory.init": _init,
    "data.drop": _drop,
}
