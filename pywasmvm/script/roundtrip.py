"""Writes a module and reads it again: what comes back must be the same module (`--round-trip`).

Two modules are the same when they agree in everything but where it stands (positions in bytes or text) and
how runs of equal locals are split up. Float constants agree by their bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pywasmvm.binary import code as binary_code
from pywasmvm.binary.decode import decode
from pywasmvm.binary.encode import encode
from pywasmvm.numerics.bits import F32NaN, f64_to_bits
from pywasmvm.syntax import Code, ModuleSyntax
from pywasmvm.text.parser import parse_module
from pywasmvm.text.printer import print_module

RoundTrip = Callable[[ModuleSyntax, Iterable[str] | None], ModuleSyntax]


class RoundTripError(Exception):
    """A module came back different."""


def through_binary(syntax: ModuleSyntax, features: Iterable[str] | None = None) -> ModuleSyntax:
    """Encode and decode. Raises RoundTripError."""
    return _checked(syntax, decode(encode(syntax), features=features))


def through_text(syntax: ModuleSyntax, features: Iterable[str] | None = None) -> ModuleSyntax:
    """Print and parse. Raises RoundTripError."""
    return _checked(syntax, parse_module(print_module(syntax), features=features))


ROUND_TRIPS: dict[str, RoundTrip] = {"binary": through_binary, "text": through_text}


def _checked(before: ModuleSyntax, after: ModuleSyntax) -> ModuleSyntax:
    found = difference(before, after)
    if found is not None:
        raise RoundTripError(f"the module came back different: {found}")
    return after


def difference(a: ModuleSyntax, b: ModuleSyntax) -> str | None:
    """The first thing in which two modules differ; None when they are the same."""
    for (what, left), (_, right) in zip(_parts(a), _parts(b), strict=True):
        if left != right:
            return f"{what}: {_excerpt(left, right)}"
    return None


def _excerpt(left: Any, right: Any) -> str:
    """The place where two values differ, for a message."""
    while isinstance(left, tuple | list) and isinstance(right, tuple | list):
        if len(left) != len(right):
            return f"{len(left)} and {len(right)} entries"
        left, right = next((x, y) for x, y in zip(left, right, strict=True) if x != y)
    return f"{left!r:.80} and {right!r:.80}"


def _parts(syntax: ModuleSyntax) -> Iterator[tuple[str, Any]]:
    """Everything that makes a module what it is, in a form that `==` compares."""
    yield "types", syntax.types
    yield "recursion groups", syntax.groups
    yield "imports", syntax.imports
    yield "functions", syntax.functions
    yield "tables", [(table.type, _code(table.init)) for table in syntax.tables]
    yield "memories", syntax.memories
    yield "tags", syntax.tags
    yield "globals", [(entry.type, _code(entry.init)) for entry in syntax.globals]
    yield "exports", syntax.exports
    yield "start", syntax.start
    yield (
        "element segments",
        [
            (elem.type, elem.mode, elem.table, _code(elem.offset), [_code(item) for item in elem.items])
            for elem in syntax.elems
        ],
    )
    data, source = syntax.data, syntax.source
    yield (
        "data segments",
        [
            (data.memory[i], _code(data.offset[i]), source[data.start[i] : data.start[i] + data.length[i]])
            for i in range(len(data))
        ],
    )
    yield "custom sections", [(custom.name, source[custom.start : custom.end]) for custom in syntax.customs]
    for index in range(len(syntax.functions)):
        yield f"function {index}", _code(binary_code.body(syntax, index))


def _code(code: Code | int | None) -> Any:
    if code is None or isinstance(code, int):
        return code
    runs = [
        (type_, sum(count for count, _ in group))
        for type_, group in itertools.groupby(code.locals, key=lambda run: run[1])
    ]
    return (
        [(type_, count) for type_, count in runs if count],
        [op.name for op in code.ops],
        [_immediate(value) for value in code.immediates],
    )


def _immediate(value: Any) -> Any:
    if isinstance(value, F32NaN):
        return "f32", value.bits
    return ("float", f64_to_bits(value)) if isinstance(value, float) else value
