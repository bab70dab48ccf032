"""Rows of the control instructions. None has a fixed signature: all have rules."""

from __future__ import annotations

from pywasmvm.isa.opcode import Opcode, row

ROWS: list[Opcode] = [
    row(0x00, "unreachable"),
    row(0x01, "nop"),
    row(0x02, "block", None, "blocktype"),
    row(0x03, "loop", None, "blocktype"),
    row(0x04, "if", None, "blocktype"),
    row(0x05, "else"),
    row(0x0B, "end"),
    row(0x0C, "br", None, "label"),
    row(0x0D, "br_if", None, "label"),
    row(0x0E, "br_table", None, "labels"),
    row(0x0F, "return"),
    row(0x10, "call", None, "func"),
    row(0x11, "call_indirect", None, "type table"),
]
