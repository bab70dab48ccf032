"""Rows of the control instructions. None has a fixed signature: all have rules."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row

ROWS: list[Opcode] = [
    row(0x00, "unreachable"),
    row(0x01, "nop"),
    row(0x02, "block", None, "blocktype"),
    row(0x03, "loop", None, "blocktype"),
    row(0x04, "if", None, "blocktype"),
    row(0x05, "else"),
    row(0x08, "throw", None, "tag", feature=features.EXCEPTIONS),
    row(0x0A, "throw_ref", feature=features.EXCEPTIONS),
    row(0x0B, "end"),
    row(0x0C, "br", None, "label"),
    row(0x0D, "br_if", None, "label"),
    row(0x0E, "br_table", None, "labels"),
    row(0x0F, "return"),
    row(0x10, "call", None, "func"),
    row(0x11, "call_indirect", None, "type table"),
    row(0x12, "return_call", None, "func", feature=features.TAIL_CALL),
    row(0x13, "return_call_indirect", None, "type table", feature=features.TAIL_CALL),
    row(0x14, "call_ref", None, "type", feature=features.FUNCTION_REFERENCES),
    row(0x15, "return_call_ref", None, "type", feature=features.FUNCTION_REFERENCES),
    row(0x1F, "try_table", None, "blocktype catches", feature=features.EXCEPTIONS),
    row(0xD5, "br_on_null", None, "label", feature=features.FUNCTION_REFERENCES),
    row(0xD6, "br_on_non_null", None, "label", feature=features.FUNCTION_REFERENCES),
]
