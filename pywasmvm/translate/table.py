"""Table instructions: `T0` is the list of elements of table 0, `U0` the table itself."""

from __future__ import annotations

from pywasmvm.translate.body import Body
from pywasmvm.translate.expr import ATOM, READS, READS_TABLES, TRAPS, Expr
from pywasmvm.translate.rules import rule
from pywasmvm.translate.symbolic import MASKS


def _bits(body: Body, table: int) -> int:
    return body.context.tables[table].address.bits


@rule("table.get")
def _get(body: Body, table: int) -> None:
    place = body.escaping(body.pop())
    body.spill(TRAPS)
    body.push(Expr(body.variable(body.mark(f"{body.use(f'T{table}')}[{place}]"))))


@rule("table.set")
def _set(body: Body, table: int) -> None:
    place, value = body.pop_many(2)
    body.spill(READS_TABLES | TRAPS)
    body.statement(body.mark(f"{body.use(f'U{table}')}.set({body.escaping(place)},{body.escaping(value)})"))


@rule("table.size")
def _size(body: Body, table: int) -> None:
    bits = _bits(body, table)
    body.push(
        Expr(f"len({body.use(f'T{table}')})", ATOM, 0, MASKS[bits], depth=1, effects=READS_TABLES), bits
    )


@rule("table.grow")
def _grow(body: Body, table: int) -> None:
    bits = _bits(body, table)
    value, count = (body.escaping(e) for e in body.sized(body.pop_many(2)))
    body.spill(READS | TRAPS)
    text = f"{body.use(f'U{table}')}.try_grow({count},{value})&{MASKS[bits]}"
    made = Expr(body.variable(body.mark(text)), ATOM, 0, MASKS[bits])
    body.pay_for(f"{count} if {made.text}!={MASKS[bits]} else 0")
    body.push(made, bits)


def _bulk(body: Body, table: int, method: str, count: int, template: str) -> None:
    operands = [body.escaping(e) for e in body.sized(body.pop_many(count))]
    body.spill(READS | TRAPS)
    body.statement(body.mark(f"{body.use(f'U{table}')}.{method}({template.format(*operands)})"))
    body.pay_for(operands[-1])


@rule("table.fill")
def _fill(body: Body, table: int) -> None:
    _bulk(body, table, "fill", 3, "{0},{1},{2}")


@rule("table.copy")
def _copy(body: Body, immediate: tuple[int, int]) -> None:
    target, source = immediate
    _bulk(body, target, "copy", 3, "{0},{1},{2}," + body.use(f"U{source}"))


@rule("table.init")
def _init(body: Body, immediate: tuple[int, int]) -> None:
    elem, table = immediate
    _bulk(body, table, "init", 3, "{0}," + f"{body.use('I')}.elems[{elem}]" + ",{1},{2}")


@rule("elem.drop")
def _drop(body: Body, index: int) -> None:
    body.spill(TRAPS)
    # A new list: the old one may be shared with an instance that is still reading it.
    body.statement(f"{body.use('I')}.elems[{index}]=[]")
