"""Whether two modules are the same, and where they first differ: what every round trip is judged by.

Left out is what a module does not consist of: positions in bytes or text, how a binary cuts equal locals into
runs, whether it counts its data segments in advance (the code decides about that), and the order in which
custom sections of different names stand. Floats are compared by their bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pywasmvm.binary import code as binary_code
from pywasmvm.numerics.bits import F32NaN, f64_to_bits
from pywasmvm.syntax import Code, ModuleSyntax

_Comparable = Any


def same(a: ModuleSyntax, b: ModuleSyntax) -> str | None:
    """The first difference as text, None when the modules are equal.

    Bodies are decoded where that has not been done: raises MalformedError for one that is not well-formed.
    """
    for (what, left), (_, right) in zip(_parts(a), _parts(b), strict=False):
        if left != right:
            return f"{what}: {_difference(left, right)}"
    return None


def _parts(module: ModuleSyntax) -> Iterator[tuple[str, _Comparable]]:
    """The parts by name, in a form that `==` compares; the number of functions comes before their bodies."""
    yield "types", module.types
    yield "recursion groups", module.groups
    yield "imports", module.imports
    yield "functions", list(module.functions)
    yield "tables", [(table.type, _code(table.init)) for table in module.tables]
    yield "memories", module.memories
    yield "tags", list(module.tags)
    yield "globals", [(entry.type, _code(entry.init)) for entry in module.globals]
    yield "exports", module.exports
    yield "start", module.start
    yield (
        "element segments",
        [
            (elem.type, elem.mode, elem.table, _code(elem.offset), [_item(item) for item in elem.items])
            for elem in module.elems
        ],
    )
    data, source = module.data, module.source
    yield (
        "data segments",
        [
            (memory, _offset(offset), source[start : start + length])
            for memory, offset, start, length in zip(
                data.memory, data.offset, data.start, data.length, strict=True
            )
        ],
    )
    customs = [(custom.name, source[custom.start : custom.end]) for custom in module.customs]
    yield "custom sections", sorted(customs, key=lambda custom: custom[0])
    imported = len(module.imported("func"))
    for index in range(len(module.functions)):
        yield f"function {imported + index}", _code(binary_code.body(module, index))


def _code(code: Code | None) -> _Comparable:
    if code is None:
        return None
    runs = [
        (type_, sum(count for count, _ in group))
        for type_, group in itertools.groupby((run for run in code.locals if run[0]), key=lambda run: run[1])
    ]
    return runs, code.ops, [_immediate(value) for value in code.immediates]


def _item(item: int | Code) -> _Comparable:
    return item if isinstance(item, int) else _code(item)


def _offset(offset: int | Code | None) -> _Comparable:
    """The offset of a data segment: a single `i32.const` is its number, however the module holds it."""
    if isinstance(offset, Code) and [op.name for op in offset.ops] == ["i32.const", "end"]:
        return offset.immediates[0]
    return offset if isinstance(offset, int) else _code(offset)


def _immediate(value: _Comparable) -> _Comparable:
    """Floats as their bits: NaN is not even equal to itself, and 0.0 equals -0.0."""
    if isinstance(value, F32NaN):
        return "f32", value.bits
    return ("f64", f64_to_bits(value)) if isinstance(value, float) else value


def _difference(left: _Comparable, right: _Comparable) -> str:
    """Where two values differ: the path into lists and tuples, and what stands there."""
    path = ""
    while isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return f"{path + ': ' if path else ''}{len(left)} entries and {len(right)}"
        place, (left, right) = next(
            (n, pair) for n, pair in enumerate(zip(left, right, strict=True)) if pair[0] != pair[1]
        )
        path += f"[{place}]"
    return f"{path + ': ' if path else ''}{left!r:.80} and {right!r:.80}"
