"""Table instructions: pop, call the table, push."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.interp.frame import Frame


def _get(frame: Frame, index: int) -> None:
    frame.stack.append(frame.instance.tables[index].get(frame.stack.pop()))


def _set(frame: Frame, index: int) -> None:
    position, value = frame.pop_many(2)
    frame.instance.tables[index].set(position, value)


def _size(frame: Frame, index: int) -> None:
    frame.stack.append(len(frame.instance.tables[index]))


def _grow(frame: Frame, index: int) -> int:
    value, count = frame.pop_many(2)
    table = frame.instance.tables[index]
    mask = (1 << table.type.address.bits) - 1
    before = table.try_grow(count, value)
    frame.stack.append(before & mask)
    return 0 if before < 0 else int(count)


def _fill(frame: Frame, index: int) -> int:
    position, value, count = frame.pop_many(3)
    frame.instance.tables[index].fill(position, value, count)
    return int(count)


def _copy(frame: Frame, immediate: tuple[int, int]) -> int:
    target, source, count = frame.pop_many(3)
    tables = frame.instance.tables
    tables[immediate[0]].copy(target, source, count, tables[immediate[1]])
    return int(count)


def _init(frame: Frame, immediate: tuple[int, int]) -> int:
    target, source, count = frame.pop_many(3)
    elem, table = immediate
    frame.instance.tables[table].init(target, frame.instance.elems[elem], source, count)
    return int(count)


def _drop(frame: Frame, index: int) -> None:
    # A new list: the old one may be shared with an instance that is still reading it.
    frame.instance.elems[index] = []


EXECUTED: dict[str, Callable[[Any, Any], int | None]] = {
    "table.get": _get,
    "table.set": _set,
    "table.size": _size,
    "table.grow": _grow,
    "table.fill": _fill,
    "table.copy": _copy,
    "table.init": _init,
    "elem.drop": _drop,
}
