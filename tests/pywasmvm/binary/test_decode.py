"""What a decoded module holds: every section, every immediate kind, features, bodies on demand."""

from __future__ import annotations

import math

import pytest

from pywasmvm.binary import code
from pywasmvm.binary.custom import names
from pywasmvm.binary.decode import decode
from pywasmvm.errors import MalformedError
from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits
from pywasmvm.syntax import BlockType, Code, MemArg, ModuleSyntax
from pywasmvm.types import (
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
)
from tests.support import binary as b
from tests.support.wat import wat


def first_body(text: str) -> list[tuple[str, object]]:
    module = decode(wat(text))
    return [(instr.opcode.name, instr.immediates) for instr in code.body(module, 0)]


def test_the_empty_module() -> None:
    module = decode(b.HEADER)
    assert not module.types
    assert not module.sections
    assert module.start is None
    assert module.data_count is None


def test_sections_become_fields() -> None:
    module = decode(
        wat("""(module
      (type $t (func (param i32 f64) (result i64)))
      (import "env" "f" (func (type $t)))
      (import "env" "t" (table 1 2 externref))
      (import "env" "m" (memory 3))
      (import "env" "g" (global (mut f32)))
      (table 4 funcref)
      (global i64 (i64.const -1))
      (func $own (export "own") (param i32 f64) (result i64) i64.const 0)
      (export "mem" (memory 0)) (export "tab" (table 1)) (export "glob" (global 1))
      (func $main) (start $main)
      (elem (table 1) (i32.const 2) func $own 0)
      (elem declare func $own)
      (elem externref (ref.null extern))
      (data (i32.const 8) "abc")
      (data "passive"))""")
    )
    function_type = FuncType((I32, F64), (I64,))
    assert module.types[0] == function_type
    assert [(entry.module, entry.name, entry.type) for entry in module.imports] == [
        ("env", "f", function_type),
        ("env", "t", TableType(EXTERNREF, Limits(1, 2))),
        ("env", "m", MemoryType(Limits(3))),
        ("env", "g", GlobalType(F32, True)),
    ]
    assert [entry.name for entry in module.imported(MemoryType)] == ["m"]
    assert module.functions == [0, 1]
    assert module.tables[0].type == TableType(FUNCREF, Limits(4))
    assert module.globals[0].type == GlobalType(I64, False)
    assert next(iter(module.globals[0].init)).immediates == 2**64 - 1
    assert [(e.name, e.kind, e.index) for e in module.exports] == [
        ("own", "func", 1),
        ("mem", "memory", 0),
        ("tab", "table", 1),
        ("glob", "global", 1),
    ]
    assert module.start == 2
    assert [(e.mode, e.table, e.type, len(e.items)) for e in module.elems] == [
        ("active", 1, FUNCREF, 2),
        ("declarative", 0, FUNCREF, 1),
        ("passive", 0, EXTERNREF, 1),
    ]
    data = module.data
    assert data.memory == [0, -1]
    assert data.offset == [8, None]
    contents = [module.source[s : s + n] for s, n in zip(data.start, data.length, strict=True)]
    assert contents == [b"abc", b"passive"]
    assert len(module.body_start) == 2


def test_every_shape_of_element_segment() -> None:
    func0 = b"\xd2\0\x0b"  # ref.func 0
    offset = b"\x41\7\x0b"
    segments = [
        b"\0" + offset + b"\1\0",
        b"\1\0\1\0",
        b"\2\0" + offset + b"\0\1\0",
        b"\3\0\1\0",
        b"\4" + offset + b"\1" + func0,
        b"\5\x70\1" + func0,
        b"\6\0" + offset + b"\x70\1" + func0,
        b"\7\x6f\1\xd0\x6f\x0b",
    ]
    module = decode(b.module(b.section(9, b.vec(segments))))
    modes = [elem.mode for elem in module.elems]
    assert modes == ["active", "passive", "active", "declarative"] * 2
    assert [elem.offset is not None for elem in module.elems] == [mode == "active" for mode in modes]
    assert [elem.items for elem in module.elems[:4]] == [[0]] * 4
    assert all(isinstance(elem.items[0], Code) for elem in module.elems[4:])
    assert module.elems[7].type is EXTERNREF


def test_every_shape_of_data_segment() -> None:
    segments = [b"\0\x41\1\x0b\1a", b"\1\1b", b"\2\0\x41\x7f\x0b\1c", b"\0\x23\0\x0b\1d"]
    data = decode(b.module(b.section(11, b.vec(segments)))).data
    assert data.memory == [0, -1, 0, 0]
    assert data.offset[:3] == [1, None, 0xFFFFFFFF]
    assert isinstance(data.offset[3], Code)
    assert len(data) == 4


def test_immediates() -> None:
    assert first_body("""(module (memory 1) (table 1 funcref) (table 1 externref)
      (global (mut i32) i32.const 0)
      (type $f (func (param i32) (result i32)))
      (elem $e func) (data $d "")
      (func (local i32)
        i32.const -1 drop
        i64.const -2 drop
        i32.const 0 i32.load offset=70000 align=2 drop
        block (param) br 0 end
        loop (result i32) i32.const 1 end drop
        i32.const 5 block (type $f) end drop
        i32.const 0 br_table 0 0 0
        unreachable
        call 0
        call_indirect (type $f)
        call_indirect 1 (type $f)
        local.get 0 local.set 0 global.get 0 global.set 0
        select (result i32)
        ref.null extern ref.func 0
        memory.init $d data.drop $d memory.copy memory.fill memory.size memory.grow
        table.init 1 $e elem.drop $e table.copy 0 1))""") == [
        ("i32.const", 0xFFFFFFFF), ("drop", None),
        ("i64.const", 0xFFFFFFFFFFFFFFFE), ("drop", None),
        ("i32.const", 0), ("i32.load", MemArg(1, 70000)), ("drop", None),
        ("block", BlockType((), ())), ("br", 0), ("end", None),
        ("loop", BlockType((), (I32,))), ("i32.const", 1), ("end", None), ("drop", None),
        ("i32.const", 5), ("block", BlockType((I32,), (I32,))), ("end", None), ("drop", None),
        ("i32.const", 0), ("br_table", (0, 0, 0)),
        ("unreachable", None), ("call", 0),
        ("call_indirect", (0, 0)), ("call_indirect", (0, 1)),
        ("local.get", 0), ("local.set", 0), ("global.get", 0), ("global.set", 0),
        ("select", (I32,)),
        ("ref.null", EXTERNREF.heap), ("ref.func", 0),
        ("memory.init", (0, 0)), ("data.drop", 0), ("memory.copy", (0, 0)), ("memory.fill", 0),
        ("memory.size", 0), ("memory.grow", 0),
        ("table.init", (0, 1)), ("elem.drop", 0), ("table.copy", (0, 1)),
        ("end", None),
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", [0x7FC00000, 0x7FA00001, 0xFF800001, 0x80000000, 0x3DCCCCCD], ids=hex)
def test_f32_constants_keep_their_bits(pattern: int) -> None:
    data = b.function(b"\x43" + pattern.to_bytes(4, "little"), results=b.F32)
    constant = next(iter(code.body(decode(data), 0)))
    assert isinstance(constant.immediates, float)
    assert f32_to_bits(constant.immediates) == pattern


def test_f64_constants_keep_their_bits() -> None:
    pattern = 0xFFF4000000000001
    data = b.function(b"\x44" + pattern.to_bytes(8, "little"), results=b.F64)
    constant = next(iter(code.body(decode(data), 0)))
    assert isinstance(constant.immediates, float)
    assert math.isnan(constant.immediates)
    assert f64_to_bits(constant.immediates) == pattern


def test_long_forms_of_numbers_are_fine() -> None:
    module = decode(
        b.module(
            b"\1" + b.u32(4, width=5) + b.vec([b.functype()]),
            b.section(3, b.u32(1, width=3) + b.u32(0, width=5)),
            b.code(
                b.body(
                    b"\x41\x80\x80\x80\x80\x00\x1a\xfc\x80\x80\x00"
                    b"\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
                )
            ),
        )
    )
    instrs = [str(instr) for instr in code.body(module, 0)]
    assert instrs[:3] == ["i32.const 0", "drop", "i32.trunc_sat_f32_s"]
    assert instrs[3] == f"i64.const {2**64 - 1}"


def test_offsets_point_at_the_instructions() -> None:
    module = decode(wat("(module (memory 1) (func i32.const 1000 i32.load drop nop))"))
    body = code.body(module, 0)
    assert [module.source[offset] for offset in body.offsets] == [0x41, 0x28, 0x1A, 0x01, 0x0B]
    assert len(body) == 5


def test_locals_are_counted_and_not_expanded() -> None:
    runs = b.vec([b.u32(0x7FFFFFFF) + b.I32, b.u32(0x80000000) + b.F64])
    module = decode(b.module(b.types(b.functype()), b.functions(0), b.code(b.body(b"", runs))))
    body = code.body(module, 0)
    assert body.local_count == 0xFFFFFFFF
    assert body.locals == ((0x7FFFFFFF, I32), (0x80000000, F64))


def test_custom_sections_may_stand_anywhere_and_repeat() -> None:
    note = b.custom("note", b"text")
    module = decode(b.module(note, b.types(), note, b.custom("", b""), b.functions(), note))
    assert [c.name for c in module.customs] == ["note", "note", "", "note"]
    assert {module.source[c.start : c.end] for c in module.customs if c.name} == {b"text"}
    assert [s.name for s in module.sections] == ["note", "type", "note", "", "function", "note"]


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ("sign-extension", "i32.const 0 i32.extend8_s drop"),
        ("saturating-float-to-int", "f32.const 0 i32.trunc_sat_f32_s drop"),
        ("bulk-memory", "i32.const 0 i32.const 0 i32.const 0 memory.fill"),
        ("reference-types", "ref.null func drop"),
    ],
)
def test_instructions_of_a_feature_that_is_off_are_unknown(feature: str, text: str) -> None:
    from pywasmvm.features import DEFAULT

    data = wat(f"(module (memory 1) (func {text}))")
    decode(data)
    off = DEFAULT - {feature} - ({"reference-types"} if feature == "bulk-memory" else set())
    with pytest.raises(MalformedError, match="illegal opcode"):
        decode(data, features=off)


def test_unknown_features_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown feature 'threds'.*bulk-memory"):
        decode(b.HEADER, features=["threds"])


def test_without_bodies_only_what_is_asked_for_is_read() -> None:
    data = b.module(b.types(b.functype()), b.functions(0, 0), b.code(b.body(b"\x01"), b.body(b"\x27")))
    module = decode(data, bodies=False)
    assert [str(instr) for instr in code.body(module, 0)] == ["nop", "end"]
    with pytest.raises(MalformedError, match="illegal opcode 27"):
        code.body(module, 1)
    with pytest.raises(MalformedError, match="illegal opcode 27"):
        decode(data)


def named(content: bytes) -> ModuleSyntax:
    return decode(b.module(b.custom("name", content)))


def test_the_name_section() -> None:
    data = wat("(module $app (func $first (param $x i32) (local $y i32)) (func) (func $third))")
    found = names(decode(data))
    assert found.module == "app"
    assert found.functions == {0: "first", 2: "third"}
    assert found.locals[0] == {0: "x", 1: "y"}


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"\0\x7fabc",
        b"\1\4\1\0\5abc",
        b"\1\x03\1\0\x80",
        b"\x01\x05\xff\xff\xff\xff\x0f",
        b"\x07\x02ab",
        b"\2\2\1\0",
    ],
)
def test_a_faulty_name_section_is_never_an_error(content: bytes) -> None:
    found = names(named(content))
    assert found.module is None


def test_names_before_the_fault_are_used() -> None:
    found = names(named(b"\0\4\3app" + b"\1\x20\x01\x00\x02ok"))
    assert found.module == "app"
