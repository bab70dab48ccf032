"""All rows of the instruction table, joined, with look-up by code and by name."""

from __future__ import annotations

from pywasmvm.isa import control, gc, memory, numeric, reference, table, variable, vector
from pywasmvm.isa.opcode import Opcode

ROWS: tuple[Opcode, ...] = (
    *control.ROWS,
    *variable.ROWS,
    *table.ROWS,
    *memory.ROWS,
    *numeric.ROWS,
    *reference.ROWS,
    *gc.ROWS,
    *vector.ROWS,
)


def _index() -> tuple[dict[tuple[int | None, int], Opcode], dict[str, Opcode]]:
    by_code: dict[tuple[int | None, int], Opcode] = {}
    by_name: dict[str, Opcode] = {}
    for opcode in ROWS:
        if (opcode.prefix, opcode.code) in by_code:
            raise ValueError(f"two rows have the code of {opcode.name}")
        by_code[opcode.prefix, opcode.code] = opcode
        by_name.setdefault(opcode.name, opcode)  # of several rows with one word (select, ref.test) the first
    return by_code, by_name


BY_CODE, BY_NAME = _index()

#: Prefix bytes that open a second code page.
PREFIXES: frozenset[int] = frozenset(op.prefix for op in ROWS if op.prefix is not None)


def op(name: str) -> Opcode:
    """The row with this text name. Raises KeyError."""
    return BY_NAME[name]
