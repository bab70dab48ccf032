"""Rows of the instructions on structs, arrays, i31 and casts (spec: Structure, Aggregate Instructions)."""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.isa.opcode import Opcode, row


def _row(code: int, name: str, sig: str | None, imm: str = "") -> Opcode:
    return row(code, name, sig, imm, prefix=0xFB, feature=features.GC)


ROWS: list[Opcode] = [
    _row(0, "struct.new", None, "type"),
    _row(1, "struct.new_default", None, "type"),
    _row(2, "struct.get", None, "type field"),
    _row(3, "struct.get_s", None, "type field"),
    _row(4, "struct.get_u", None, "type field"),
    _row(5, "struct.set", None, "type field"),
    _row(6, "array.new", None, "type"),
    _row(7, "array.new_default", None, "type"),
    _row(8, "array.new_fixed", None, "type count"),
    _row(9, "array.new_data", None, "type data"),
    _row(10, "array.new_elem", None, "type elem"),
    _row(11, "array.get", None, "type"),
    _row(12, "array.get_s", None, "type"),
    _row(13, "array.get_u", None, "type"),
    _row(14, "array.set", None, "type"),
    _row(15, "array.len", "arrayref -> i32"),
    _row(16, "array.fill", None, "type"),
    _row(17, "array.copy", None, "type type"),
    _row(18, "array.init_data", None, "type data"),
    _row(19, "array.init_elem", None, "type elem"),
    # One word in text, two codes in the binary: the reference type wanted is non-null or nullable.
    _row(20, "ref.test", None, "ref"),
    _row(21, "ref.test", None, "refnull"),
    _row(22, "ref.cast", None, "ref"),
    _row(23, "ref.cast", None, "refnull"),
    _row(24, "br_on_cast", None, "cast"),
    _row(25, "br_on_cast_fail", None, "cast"),
    # Nullability passes through, so a signature cannot say it.
    _row(26, "any.convert_extern", None),
    _row(27, "extern.convert_any", None),
    _row(28, "ref.i31", None),
    _row(29, "i31.get_s", "i31ref -> i32"),
    _row(30, "i31.get_u", "i31ref -> i32"),
]
