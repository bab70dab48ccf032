"""Memory instructions other than loads and stores: pop, call the memory, push."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.interp.frame import Frame


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


EXECUTED: dict[str, Callable[[Any, Any], int | None]] = {
    "memory.size": _size,
    "memory.grow": _grow,
    "memory.fill": _fill,
    "memory.copy": _copy,
    "memory.init": _init,
    "data.drop": _drop,
}
