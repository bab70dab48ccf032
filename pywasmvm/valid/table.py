"""Rules of the table instructions: operand types come from the table."""

from __future__ import annotations

from pywasmvm.errors import InvalidError
from pywasmvm.matching import matches
from pywasmvm.types import I32, I64
from pywasmvm.valid.code import CodeValidator, rule


@rule("table.get")
def _table_get(v: CodeValidator, index: int) -> None:
    table = v.context.table(index)
    v.pop(table.address)
    v.push(table.element)


@rule("table.set")
def _table_set(v: CodeValidator, index: int) -> None:
    table = v.context.table(index)
    v.pop(table.element)
    v.pop(table.address)


@rule("table.size")
def _table_size(v: CodeValidator, index: int) -> None:
    v.push(v.context.table(index).address)


@rule("table.grow")
def _table_grow(v: CodeValidator, index: int) -> None:
    table = v.context.table(index)
    v.pop(table.address)
    v.pop(table.element)
    v.push(table.address)


@rule("table.fill")
def _table_fill(v: CodeValidator, index: int) -> None:
    table = v.context.table(index)
    v.pop(table.address)
    v.pop(table.element)
    v.pop(table.address)


@rule("table.copy")
def _table_copy(v: CodeValidator, immediate: tuple[int, int]) -> None:
    target, source = (v.context.table(index) for index in immediate)
    if not matches(source.element, target.element):
        raise InvalidError(f"type mismatch: cannot copy {source.element} into a table of {target.element}")
    v.pop(I64 if target.address is source.address is I64 else I32)
    v.pop(source.address)
    v.pop(target.address)


@rule("table.init")
def _table_init(v: CodeValidator, immediate: tuple[int, int]) -> None:
    elem_index, table_index = immediate
    table, elem = v.context.table(table_index), v.context.elem(elem_index)
    if not matches(elem, table.element):
        raise InvalidError(f"type mismatch: cannot initialise a table of {table.element} with {elem}")
    v.pop(I32)
    v.pop(I32)
    v.pop(table.address)
