"""Rows of the parametric and variable instructions."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row

ROWS: list[Opcode] = [
    row(0x1A, "drop"),
    row(0x1B, "select"),
    # The same word in text; a list of types in the binary.
    row(0x1C, "select", None, "valtypes", feature=features.REFERENCE_TYPES),
    row(0x20, "local.get", None, "local"),
    row(0x21, "local.set", None, "local"),
    row(0x22, "local.tee", None, "local"),
    row(0x23, "global.get", None, "global"),
    row(0x24, "global.set", None, "global"),
]
