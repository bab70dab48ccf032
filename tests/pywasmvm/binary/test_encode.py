"""The encoder against the decoder: what is written reads back the same, in the fewest bytes."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import features
from pywasmvm.binary.decode import decode
from pywasmvm.binary.encode import encode
from pywasmvm.comparison import same
from pywasmvm.isa import ROWS, Imm, Opcode, op
from pywasmvm.numerics.bits import f32_from_bits, f64_from_bits
from pywasmvm.syntax import (
    Catch,
    Code,
    CustomSection,
    Elem,
    Export,
    Global,
    Import,
    MemArg,
    ModuleSyntax,
    Table,
)
from pywasmvm.text.parser import parse_module
from pywasmvm.types import (
    BY_NAME,
    I8,
    I16,
    I32,
    I64,
    ArrayType,
    FieldType,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    RefType,
    StructType,
    SubType,
    TableType,
    ref,
)
from tests.support import binary as b
from tests.support.wat import assembled

# -- parts of modules, well-formed and hardly ever valid -------------------------------------------------

_u32 = st.sampled_from([0, 1, 63, 64, 127, 128, 16383, 16384, 2**32 - 1]) | st.integers(0, 2**32 - 1)
_u64 = st.sampled_from([0, 127, 128, 2**32, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
_byte = st.integers(0, 255)
_heap = st.sampled_from([heap for heap in HeapType if heap is not HeapType.BOT]) | _u32
_ref: st.SearchStrategy[RefType] = st.builds(ref, st.booleans(), _heap)
_valtype = st.sampled_from(list(BY_NAME.values())) | _ref
_valtypes = st.lists(_valtype, max_size=3).map(tuple)
_catch = st.builds(Catch, st.sampled_from(["catch", "catch_ref"]), _u32, _u32) | st.builds(
    Catch, st.sampled_from(["catch_all", "catch_all_ref"]), st.none(), _u32
)

IMMEDIATES: dict[Imm, st.SearchStrategy[Any]] = {
    **dict.fromkeys(Imm, _u32),
    Imm.BLOCKTYPE: st.none() | _valtype | _u32,
    Imm.LABELS: st.lists(_u32, min_size=1, max_size=4).map(tuple),
    Imm.MEMARG: st.builds(MemArg, st.integers(0, 63), _u64, st.just(0) | _u32),
    Imm.I64: _u64,
    Imm.F32: st.integers(0, 2**32 - 1).map(f32_from_bits),
    Imm.F64: st.integers(0, 2**64 - 1).map(f64_from_bits),
    Imm.V128: st.integers(0, 2**128 - 1),
    Imm.VALTYPES: _valtypes,
    Imm.HEAPTYPE: _heap,
    Imm.REF: st.builds(ref, st.just(False), _heap),
    Imm.REFNULL: st.builds(ref, st.just(True), _heap),
    Imm.CAST: st.tuples(_u32, _ref, _ref),
    Imm.CATCHES: st.lists(_catch, max_size=3).map(tuple),
    Imm.LANE: _byte,
    Imm.LANES: st.binary(min_size=16, max_size=16),
}

#: What opens or closes nesting cannot stand alone.
_NESTING = {"block", "loop", "if", "else", "end", "try_table"}
_plain = st.sampled_from([row for row in ROWS if row.name not in _NESTING])


def _immediates(row: Opcode) -> st.SearchStrategy[Any]:
    kinds = [IMMEDIATES[kind] for kind in row.immediates]
    if not kinds:
        return st.none()
    return kinds[0] if len(kinds) == 1 else st.tuples(*kinds)


_instr = _plain.flatmap(lambda row: st.tuples(st.just(row), _immediates(row)))
_opening = st.sampled_from([op("block"), op("loop"), op("if"), op("try_table")])
_block = _opening.flatmap(lambda row: st.tuples(st.just(row), _immediates(row)))


def _sequence(parts: list[list[tuple[Opcode, Any]]]) -> list[tuple[Opcode, Any]]:
    return [instr for part in parts for instr in part]


_sequences = st.recursive(
    st.lists(_instr, max_size=4),
    lambda inner: st.tuples(_block, st.lists(inner, max_size=2).map(_sequence)).map(
        lambda found: [found[0], *found[1], (op("end"), None)]
    ),
    max_leaves=4,
)


def _code(instrs: list[tuple[Opcode, Any]], locals_: list[tuple[int, Any]] | None = None) -> Code:
    ops, immediates = [*(i[0] for i in instrs), op("end")], [*(i[1] for i in instrs), None]
    return Code(tuple(locals_ or ()), ops, immediates, array("Q", [0] * len(ops)))


_expression = st.builds(_code, _sequences)
_body = st.builds(_code, _sequences, st.lists(st.tuples(st.integers(0, 1000), _valtype), max_size=3))
_field = st.builds(FieldType, st.sampled_from([I8, I16]) | _valtype, st.booleans())
_composite = (
    st.builds(FuncType, _valtypes, _valtypes)
    | st.builds(StructType, st.lists(_field, max_size=3).map(tuple))
    | st.builds(ArrayType, _field)
)
_subtype = st.builds(SubType, _composite, st.booleans(), st.lists(_u32, max_size=2).map(tuple))
_limits = st.builds(Limits, _u64, st.none() | _u64)
_address = st.sampled_from([I32, I64])
_memory = st.builds(MemoryType, _limits, _address)
_table_type = st.builds(TableType, _ref, _limits, _address)
_global_type = st.builds(GlobalType, _valtype, st.booleans())
_name = st.text(st.characters(codec="utf-8"), max_size=4)
_import = st.one_of(
    st.builds(Import, _name, _name, st.sampled_from(["func", "tag"]), _u32),
    st.builds(Import, _name, _name, st.just("table"), _table_type),
    st.builds(Import, _name, _name, st.just("memory"), _memory),
    st.builds(Import, _name, _name, st.just("global"), _global_type),
)
_kinds = st.sampled_from(["func", "table", "memory", "global", "tag"])
_items = {
    "indices": st.lists(_u32, max_size=3),
    "expressions": st.lists(_expression, max_size=3),
}
_functions = st.just(ref(False, HeapType.FUNC))
_elem = st.one_of(
    st.builds(Elem, _functions, st.just("active"), _items["indices"], _u32, _expression),
    st.builds(Elem, _ref, st.just("active"), _items["expressions"], st.just(0) | _u32, _expression),
    st.builds(Elem, _functions, st.sampled_from(["passive", "declarative"]), _items["indices"]),
    st.builds(Elem, _ref, st.sampled_from(["passive", "declarative"]), _items["expressions"]),
)


@st.composite
def modules(draw: st.DrawFn) -> ModuleSyntax:
    """A module as the text parser makes one: bodies at once, data and custom sections in `source`."""
    bodies = draw(st.lists(_body, max_size=3))
    module = ModuleSyntax(b"", features.DEFAULT, bodies=bodies, text=b"")
    for group in draw(st.lists(st.lists(_subtype, max_size=3), max_size=3)):
        module.types += group
        module.groups.append(len(group))
    module.imports = draw(st.lists(_import, max_size=3))
    module.functions = [draw(_u32) for _ in bodies]
    module.tables = draw(st.lists(st.builds(Table, _table_type, st.none() | _expression), max_size=2))
    module.memories = draw(st.lists(_memory, max_size=2))
    module.tags = draw(st.lists(_u32, max_size=2))
    module.globals = draw(st.lists(st.builds(Global, _global_type, _expression), max_size=2))
    module.exports = draw(st.lists(st.builds(Export, _name, _kinds, _u32), max_size=2))
    module.start = draw(st.none() | _u32)
    module.elems = draw(st.lists(_elem, max_size=2))
    source = bytearray()
    for memory in draw(st.lists(st.sampled_from([-1, 0, 1, 300]), max_size=3)):
        content = draw(st.binary(max_size=9))
        module.data.memory.append(memory)
        module.data.offset.append(None if memory < 0 else draw(_u32 | _expression))
        module.data.start.append(len(source))
        module.data.length.append(len(content))
        source += content
    module.data_count = len(module.data)
    for name in draw(
        st.lists(st.sampled_from(["name", "metadata.code.branch_hint", "note"]) | _name, max_size=3)
    ):
        content = draw(st.binary(max_size=9))
        module.customs.append(CustomSection(name, len(source), len(source) + len(content)))
        source += content
    module.source = bytes(source)
    return module


@given(modules())
def test_what_is_written_reads_back_the_same(module: ModuleSyntax) -> None:
    data = encode(module)
    back = decode(data)
    assert same(module, back) is None
    assert encode(back) == data  # from the binary, with its custom sections in their places, too


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.encoding.hex()}")
@given(data=st.data())
def test_every_instruction(row: Opcode, data: st.DataObject) -> None:
    if row.name in ("else", "end"):
        instrs = [(op("if"), None), (op("else"), None), (op("end"), None)]
    else:
        instrs = [(row, data.draw(_immediates(row)))]
        if row.name in _NESTING:
            instrs.append((op("end"), None))
    module = ModuleSyntax(b"", features.DEFAULT, functions=[0], bodies=[_code(instrs)], data_count=0)
    assert same(module, decode(encode(module))) is None


# -- one thing each --------------------------------------------------------------------------------------

MODULE = """(module
  (type $s (sub (struct (field (mut i32) i8)))) (rec (type (func (param (ref $s)))) (type (array anyref)))
  (import "m" "f" (func (param i32))) (import "m" "t" (tag))
  (table i64 1 2 funcref) (memory 1) (memory i64 2) (global (mut i64) (i64.const -65))
  (export "x" (memory 1)) (start 1)
  (elem (i32.const 0) func 0) (elem declare func 1) (elem (ref null i31) (ref.i31 (i32.const 3)))
  (data (i32.const -1) "abc") (data "passive") (data (memory 1) (i64.const 9) "x")
  (func (local i32 i32 f64) (memory.init 1 (i64.const 0) (i32.const 0) (i32.const 0))))"""


def test_it_writes_what_an_independent_assembler_writes() -> None:
    assert encode(parse_module(MODULE)) == assembled(MODULE)


def test_long_numbers_become_short() -> None:
    long = b.module(b"\1" + b.u32(8, width=5) + b.u32(1, width=5) + b.functype())
    assert encode(decode(long)) == b.module(b.types(b.functype()))


def test_custom_sections_of_a_binary_stand_where_they_stood() -> None:
    note = b.custom("note", b"text")
    data = b.module(note, b.custom("a"), b.types(), note, b.custom("name", b"\0\2\1m"), b.functions(), note)
    emptied = encode(decode(data))
    assert emptied == b.module(note, b.custom("a"), note, b.custom("name", b"\0\2\1m"), note)
    assert same(decode(data), decode(emptied)) is None


def test_custom_sections_of_a_text_follow_the_others_but_code_metadata() -> None:
    module = parse_module('(module $m (func) (memory 0) (data ""))')
    first = len(module.source)
    module.source += b"hints"
    module.customs.append(CustomSection("metadata.code.branch_hint", first, first + 5))
    module.customs.append(CustomSection("note", first, first))
    names = [section.name for section in decode(encode(module)).sections]
    assert names == [
        "type", "function", "memory", "metadata.code.branch_hint", "code", "data", "note", "name",
    ]  # fmt: skip


def test_the_data_count_section_is_there_when_code_needs_it() -> None:
    counted = [
        decode(encode(parse_module(f'(module (memory 1) (data "a") (func {code}))'))).data_count
        for code in ("nop", "data.drop 0")
    ]
    assert counted == [None, 1]


def test_bodies_that_were_never_read_are_read() -> None:
    from pywasmvm.errors import MalformedError

    data = b.module(b.types(b.functype()), b.functions(0), b.code(b.body(b"\x27")))
    with pytest.raises(MalformedError, match="illegal opcode 27"):
        encode(decode(data, bodies=False))


def test_closed_types_have_no_binary_form() -> None:
    from pywasmvm.matching import def_type

    module = ModuleSyntax(
        b"", features.DEFAULT, globals=[Global(GlobalType(def_type(FuncType()).ref), _code([]))]
    )
    with pytest.raises(TypeError, match="by index"):
        encode(module)
