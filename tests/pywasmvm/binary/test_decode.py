"""What a decoded module holds: every section, every immediate kind, features, bodies on demand."""

from __future__ import annotations

import math

import pytest

from pywasmvm.binary import code
from pywasmvm.binary.decode import decode
from pywasmvm.errors import MalformedError
from pywasmvm.features import DEFAULT, IMPLIES
from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits
from pywasmvm.syntax import Catch, Code, Import, MemArg
from pywasmvm.types import (
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I8,
    I16,
    I32,
    I64,
    V128,
    ArrayType,
    FieldType,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    StructType,
    SubType,
    TableType,
    ref,
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
    assert module.types[0] == SubType(FuncType((I32, F64), (I64,)))
    assert module.groups == [1, 1]
    assert module.imports == [
        Import("env", "f", "func", 0),
        Import("env", "t", "table", TableType(EXTERNREF, Limits(1, 2))),
        Import("env", "m", "memory", MemoryType(Limits(3))),
        Import("env", "g", "global", GlobalType(F32, True)),
    ]
    assert [entry.name for entry in module.imported("memory")] == ["m"]
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
        ("active", 1, ref(False, HeapType.FUNC), 2),
        ("declarative", 0, ref(False, HeapType.FUNC), 1),
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
        ("block", None), ("br", 0), ("end", None),
        ("loop", I32), ("i32.const", 1), ("end", None), ("drop", None),
        ("i32.const", 5), ("block", 0), ("end", None), ("drop", None),
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


def test_type_definitions() -> None:
    module = decode(
        b.module(
            b.types(
                b"\x5f\2\x78\0\x77\1",
                b"\x4e\2" + b"\x50\0\x5f\1\x63\2\1" + b"\x4f\1\1\x5e\x64\x6d\0",
                b"\x4e\0",
                b"\x4e\1" + b.functype(b"\x7b"),
            )
        )
    )
    assert module.groups == [1, 2, 0, 1]
    assert module.types == [
        SubType(StructType((FieldType(I8), FieldType(I16, True)))),
        SubType(StructType((FieldType(ref(True, 2), True),)), final=False),
        SubType(ArrayType(FieldType(ref(False, HeapType.EQ))), final=True, supers=(1,)),
        SubType(FuncType((V128,))),
    ]


HEAPS = "exn array struct i31 eq any extern func none noextern nofunc noexn"


@pytest.mark.parametrize(
    ("byte", "word"),
    list(enumerate(HEAPS.split(), 0x69)),
)
def test_abstract_heap_types(byte: int, word: str) -> None:
    """Alone, the byte is the nullable reference; behind 0x64 it is the heap type."""
    params = bytes([byte, 0x64, byte, 0x63, byte])
    module = decode(b.module(b.types(b"\x60\3" + params + b"\0")))
    heap = HeapType(word)
    assert module.types == [SubType(FuncType((ref(True, heap), ref(False, heap), ref(True, heap))))]


def test_limits() -> None:
    memories = [b"\0\1", b"\1\1\2", b"\4" + b.u32(2**48), b"\5\0" + b.u32(2**64 - 1), b"\0" + b.u32(2**32)]
    found = decode(b.module(b.section(5, b.vec(memories)))).memories
    assert found == [
        MemoryType(Limits(1)),
        MemoryType(Limits(1, 2)),
        MemoryType(Limits(2**48), I64),
        MemoryType(Limits(0, 2**64 - 1), I64),
        MemoryType(Limits(2**32)),  # too large for its addresses: invalid, but well-formed
    ]


def test_tables_with_an_initial_value_and_tags() -> None:
    module = decode(
        b.module(
            b.types(b.functype()),
            b.section(2, b.vec([b.name("m") + b.name("t") + b"\4\0\0"])),
            b.section(4, b.vec([b"\x40\0\x70\0\1\xd0\x70\x0b", b"\x6f\4\0"])),
            b.section(13, b.vec([b"\0\0"])),
        )
    )
    assert module.imports == [Import("m", "t", "tag", 0)]
    assert module.tags == [0]
    assert [table.type for table in module.tables] == [
        TableType(FUNCREF, Limits(1)),
        TableType(EXTERNREF, Limits(0), I64),
    ]
    init = module.tables[0].init
    assert init is not None
    assert [str(instr) for instr in init] == ["ref.null HeapType.FUNC", "end"]
    assert module.tables[1].init is None


def test_immediates_of_vector_instructions() -> None:
    lanes = bytes(range(16))
    assert first_body("""(module (memory 1) (memory 1) (func
      v128.const i32x4 1 0 0 0x80000000 v128.const i64x2 0 0
      i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
      i8x16.extract_lane_u 15
      i32.const 0 v128.load16_lane 1 offset=3 align=1 7))""") == [
        ("v128.const", 1 | 0x80000000 << 96), ("v128.const", 0), ("i8x16.shuffle", lanes),
        ("i8x16.extract_lane_u", 15), ("i32.const", 0), ("v128.load16_lane", (MemArg(0, 3, 1), 7)),
        ("end", None),
    ]  # fmt: skip


def test_immediates_of_references_and_exceptions() -> None:
    anyref, eqref = ref(True, HeapType.ANY), ref(False, HeapType.EQ)
    assert first_body("""(module (type $s (struct (field i32))) (type $f (func)) (tag $e)
      (func (param anyref)
        local.get 0 br_on_cast 0 anyref (ref eq)
        br_on_cast_fail 0 anyref anyref
        ref.test (ref $s) ref.cast (ref null $s) ref.null $s
        struct.get $s 0 array.new_fixed 7 4 call_ref $f
        try_table (result i32) (catch $e 0) (catch_ref 0 1) (catch_all 0) (catch_all_ref 1) end
        throw $e throw_ref))""") == [
        ("local.get", 0), ("br_on_cast", (0, anyref, eqref)),
        ("br_on_cast_fail", (0, anyref, anyref)),
        ("ref.test", ref(False, 0)), ("ref.cast", ref(True, 0)), ("ref.null", 0),
        ("struct.get", (0, 0)), ("array.new_fixed", (7, 4)), ("call_ref", 1),
        ("try_table", (I32, (Catch("catch", 0, 0), Catch("catch_ref", 0, 1), Catch("catch_all", None, 0),
                             Catch("catch_all_ref", None, 1)))),
        ("end", None), ("throw", 0), ("throw_ref", None), ("end", None),
    ]  # fmt: skip


def test_memory_addresses_may_be_wide() -> None:
    assert first_body("(module (memory i64 0) (func i64.const 0 i32.load offset=0xffffffffffffffff drop))")[
        1
    ] == (
        "i32.load",
        MemArg(2, 2**64 - 1),
    )


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
        ("simd", "v128.const i64x2 0 0 drop"),
        ("relaxed-simd", "unreachable i8x16.relaxed_swizzle drop"),
        ("tail-call", "return_call 0"),
        ("exceptions", "unreachable throw_ref"),
        ("function-references", "unreachable call_ref 0"),
        ("gc", "unreachable ref.eq drop"),
    ],
)
def test_instructions_of_a_feature_that_is_off_are_unknown(feature: str, text: str) -> None:
    data = wat(f"(module (memory 1) (func {text}))")
    decode(data)
    off = [name for name in DEFAULT if name != feature and feature not in IMPLIES.get(name, ())]
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
