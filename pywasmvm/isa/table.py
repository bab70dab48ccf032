"""Rows of the table instructions. Operand types depend on the table, so each row has a rule."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row

ROWS: list[Opcode] = [
    row(0x25, "table.get", None, "table", feature=features.REFERENCE_TYPES),
    row(0x26, "table.set", None, "table", feature=features.REFERENCE_TYPES),
    row(12, "table.init", None, "elem table", prefix=0xFC, feature=features.BULK_MEMORY),
    row(13, "elem.drop", "->", "elem", prefix=0xFC, feature=features.BULK_MEMORY),
    row(14, "table.copy", None, "table table", prefix=0xFC, feature=features.BULK_MEMORY),
    row(15, "table.grow", None, "table", prefix=0xFC, feature=features.REFERENCE_TYPES),
    row(16, "table.size", None, "table", prefix=0xFC, feature=features.REFERENCE_TYPES),
    row(17, "table.fill", None, "table", prefix=0xFC, feature=features.REFERENCE_TYPES),
]
