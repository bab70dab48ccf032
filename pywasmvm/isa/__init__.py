"""The instruction table: one row per instruction (spec: Structure, Instructions; Index of Instructions)."""

from __future__ import annotations

from pywasmvm.isa.opcode import ADDR, Access, Imm, Opcode, Signature
from pywasmvm.isa.registry import BY_CODE, BY_NAME, PREFIXES, ROWS, op

__all__ = ["ADDR", "BY_CODE", "BY_NAME", "PREFIXES", "ROWS", "Access", "Imm", "Opcode", "Signature", "op"]
