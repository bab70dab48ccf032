"""Rows of the reference instructions."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row

ROWS: list[Opcode] = [
    row(0xD0, "ref.null", None, "heaptype", feature=features.REFERENCE_TYPES),
    row(0xD1, "ref.is_null", None, feature=features.REFERENCE_TYPES),
    row(0xD2, "ref.func", None, "func", feature=features.REFERENCE_TYPES),
    row(0xD3, "ref.eq", "eqref eqref -> i32", feature=features.GC),
    row(0xD4, "ref.as_non_null", None, feature=features.FUNCTION_REFERENCES),
]
