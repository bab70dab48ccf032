"""The instruction table against the instruction index of an independent tool, and its own consistency."""

from __future__ import annotations

import pytest

from pywasmvm.binary import code
from pywasmvm.binary.decode import decode
from pywasmvm.features import DESCRIPTIONS
from pywasmvm.isa import BY_CODE, PREFIXES, ROWS, Imm, op
from pywasmvm.isa.opcode import Opcode, row
from tests.support.wat import assembled

IMMEDIATES = {
    Imm.BLOCKTYPE: "", Imm.LABEL: "0", Imm.LABELS: "0 0", Imm.FUNC: "0", Imm.TYPE: "(type 0)", Imm.TABLE: "0",
    Imm.ELEM: "0", Imm.MEMORY: "", Imm.DATA: "0", Imm.LOCAL: "0", Imm.GLOBAL: "0", Imm.MEMARG: "",
    Imm.I32: "1", Imm.I64: "1", Imm.F32: "1", Imm.F64: "1", Imm.VALTYPES: "(result i32)",
    Imm.HEAPTYPE: "func", Imm.V128: "i32x4 1 2 3 4", Imm.REF: "(ref func)", Imm.REFNULL: "(ref null func)",
    Imm.CAST: "0 funcref (ref func)", Imm.TAG: "0", Imm.CATCHES: "(catch_all 0)", Imm.FIELD: "0",
    Imm.COUNT: "2", Imm.LANE: "1", Imm.LANES: "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
}  # fmt: skip


def text(opcode: Opcode) -> str:
    """The instruction in text form, with immediates that exist in the module below."""
    kinds = opcode.immediates
    if opcode.name in ("call_indirect", "return_call_indirect"):
        kinds = (Imm.TYPE,)
    elif opcode.name.startswith(("struct.", "array.", "call_ref", "return_call_ref")):
        # A type by itself, not a type use.
        index = {"struct": "1", "array": "2"}.get(opcode.name.partition(".")[0], "0")
        return " ".join([opcode.name, *(index if kind is Imm.TYPE else IMMEDIATES[kind] for kind in kinds)])
    elif opcode.name == "table.init":
        kinds = (Imm.ELEM,)
    elif opcode.name == "table.copy":
        kinds = ()
    return " ".join([opcode.name, *(IMMEDIATES[kind] for kind in kinds)])


@pytest.mark.parametrize("opcode", ROWS, ids=lambda opcode: opcode.name)
def test_the_code_of_a_row_is_what_its_name_assembles_to(opcode: Opcode) -> None:
    body = text(opcode)
    if opcode.name in ("block", "loop", "if", "try_table"):
        body += " end"
    elif opcode.name == "else":
        body = "if else end"
    elif opcode.name == "end":
        body = ""
    data = assembled(f"""(module (type (func)) (type (struct (field i32))) (type (array i32)) (tag) (memory 1)
      (table 1 funcref) (global (mut i32) (i32.const 0)) (elem func) (data "") (func (local i32) {body}))""")
    module = decode(data)
    found = code.body(module, 0)
    place = 1 if opcode.name == "else" else 0
    assert found.ops[place] is opcode
    assert data[found.offsets[place] :].startswith(opcode.encoding)


def test_rows_are_found_by_code_and_name() -> None:
    assert op("i32.clz").code == 0x67
    assert op("i32.clz").function_name == "i32_clz"
    assert op("i32.clz").plain
    assert not op("i32.const").plain
    assert not op("block").plain
    assert BY_CODE[None, 0x67] is op("i32.clz")
    assert BY_CODE[0xFC, 11] is op("memory.fill")
    assert frozenset({0xFB, 0xFC, 0xFD}) == PREFIXES
    with pytest.raises(KeyError):
        op("i33.clz")


def test_there_are_as_many_rows_as_the_specification_has_instructions() -> None:
    # 172 of version 1.0, 5 sign extensions, 8 saturating truncations, 7 bulk, 8 for references and tables.
    assert len([r for r in ROWS if r.feature == "mvp"]) == 172
    counts = {name: len([r for r in ROWS if r.feature == name]) for name in DESCRIPTIONS}
    assert counts["simd"] == 236
    assert counts["relaxed-simd"] == 20
    assert counts["gc"] == 31 + 1  # with ref.eq
    assert counts["function-references"] == 5
    assert (counts["exceptions"], counts["tail-call"]) == (3, 2 + 0)
    assert len(ROWS) == 172 + 5 + 8 + 7 + 9 + 236 + 20 + 32 + 5 + 3 + 2
    assert {r.feature for r in ROWS} <= set(DESCRIPTIONS)


def test_texts_of_rows() -> None:
    assert repr(op("i32.add")) == "<i32.add>"
    assert str(op("i32.add").signature) == "i32 i32 -> i32"
    assert str(op("i32.store").signature) == "addr i32 ->"
    assert op("memory.fill").encoding == b"\xfc\x0b"
    assert row(300, "new", prefix=0xFD).encoding == b"\xfd\xac\x02"
    access = op("i64.load32_s").access
    assert access is not None
    assert (access.kind, access.size, access.natural_alignment) == ("s32", 4, 2)


def test_an_access_belongs_to_a_number_or_vector_type() -> None:
    with pytest.raises(TypeError, match="does not start with a number or vector type"):
        row(1, "funcref.load", access="u8")
