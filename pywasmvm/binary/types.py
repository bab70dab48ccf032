"""Types in the binary format: value types, heap types, type definitions, limits (spec: Binary Format, Types).

The tables here serve the encoder too. Type indices stay as written; resolving them is validation's business.
"""

from __future__ import annotations

from pywasmvm.binary.reader import Reader
from pywasmvm.types import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    V128,
    ArrayType,
    CompType,
    FieldType,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    PackedType,
    RefType,
    StructType,
    SubType,
    TableType,
    ValType,
    ref,
)

#: Number and vector types by their byte.
NUMBERS: dict[int, ValType] = {0x7F: I32, 0x7E: I64, 0x7D: F32, 0x7C: F64, 0x7B: V128}

PACKED: dict[int, PackedType] = {0x78: I8, 0x77: I16}

#: Abstract heap types by their byte; alone, such a byte is the nullable reference to it.
HEAPS: dict[int, HeapType] = {
    0x74: HeapType.NOEXN,
    0x73: HeapType.NOFUNC,
    0x72: HeapType.NOEXTERN,
    0x71: HeapType.NONE,
    0x70: HeapType.FUNC,
    0x6F: HeapType.EXTERN,
    0x6E: HeapType.ANY,
    0x6D: HeapType.EQ,
    0x6C: HeapType.I31,
    0x6B: HeapType.STRUCT,
    0x6A: HeapType.ARRAY,
    0x69: HeapType.EXN,
}

REF, REF_NULL = 0x64, 0x63
FUNC, STRUCT, ARRAY = 0x60, 0x5F, 0x5E
SUB, SUB_FINAL, REC = 0x50, 0x4F, 0x4E

#: Every value type of one byte.
SINGLE: dict[int, ValType] = {**NUMBERS, **{byte: ref(True, heap) for byte, heap in HEAPS.items()}}

#: Bits of the flags of limits.
HAS_MAX, IS_64 = 0x01, 0x04


def valtype(reader: Reader) -> ValType:
    """A value type."""
    start = reader.pos
    byte = reader.byte()
    found = SINGLE.get(byte)
    if found is not None:
        return found
    if byte in (REF, REF_NULL):
        return ref(byte == REF_NULL, heaptype(reader))
    raise reader.fail("malformed value type", start)


def reftype(reader: Reader) -> RefType:
    """A reference type."""
    start = reader.pos
    byte = reader.byte()
    if byte in (REF, REF_NULL):
        return ref(byte == REF_NULL, heaptype(reader))
    found = SINGLE.get(byte)
    if not isinstance(found, RefType):
        raise reader.fail("malformed reference type", start)
    return found


def heaptype(reader: Reader) -> HeapType | int:
    """A heap type: an abstract one, or the index of a defined one as a positive s33."""
    start = reader.pos
    if start < reader.end and reader.data[start] in HEAPS:
        return HEAPS[reader.byte()]
    index = reader.signed(33)
    if index < 0:
        raise reader.fail("malformed heap type", start)
    return index


def _mutability(reader: Reader) -> bool:
    start = reader.pos
    flag = reader.byte()
    if flag > 1:
        raise reader.fail("malformed mutability", start)
    return bool(flag)


def _field(reader: Reader) -> FieldType:
    byte = reader.data[reader.pos] if not reader.exhausted else 0
    storage: ValType
    if byte in PACKED:
        reader.byte()
        storage = PACKED[byte]
    else:
        storage = valtype(reader)
    return FieldType(storage, _mutability(reader))


def _valtypes(reader: Reader) -> tuple[ValType, ...]:
    return tuple([valtype(reader) for _ in range(reader.length())])


def _composite(reader: Reader, start: int, byte: int) -> CompType:
    if byte == FUNC:
        params = _valtypes(reader)
        return FuncType(params, _valtypes(reader))
    if byte == STRUCT:
        return StructType(tuple([_field(reader) for _ in range(reader.length())]))
    if byte == ARRAY:
        return ArrayType(_field(reader))
    if byte >= 0x80:  # the code of a type is a number, if one of a single byte
        raise reader.fail("integer representation too long", start)
    raise reader.fail("malformed definition type", start)


def _subtype(reader: Reader, start: int, byte: int) -> SubType:
    if byte not in (SUB, SUB_FINAL):
        return SubType(_composite(reader, start, byte))
    supers = tuple([reader.u32() for _ in range(reader.length())])
    start = reader.pos
    return SubType(_composite(reader, start, reader.byte()), byte == SUB_FINAL, supers)


def rectype(reader: Reader) -> list[SubType]:
    """A recursion group; a type outside of any is a group of its own."""
    start = reader.pos
    byte = reader.byte()
    if byte != REC:
        return [_subtype(reader, start, byte)]
    return [_subtype(reader, reader.pos, reader.byte()) for _ in range(reader.length())]


def _limits(reader: Reader) -> tuple[Limits, bool]:
    """Limits, and whether they are those of 64-bit addresses."""
    start = reader.pos
    flags = reader.byte()
    if flags & ~(HAS_MAX | IS_64):
        raise reader.fail("malformed limits flags", start)
    # Also those of 32-bit addresses: what is too large for them is for validation to say.
    least = reader.unsigned(64)
    return Limits(least, reader.unsigned(64) if flags & HAS_MAX else None), bool(flags & IS_64)


def memory_type(reader: Reader) -> MemoryType:
    """The type of a memory."""
    limits, wide = _limits(reader)
    return MemoryType(limits, I64 if wide else I32)


def table_type(reader: Reader) -> TableType:
    """The type of a table."""
    element = reftype(reader)
    limits, wide = _limits(reader)
    return TableType(element, limits, I64 if wide else I32)


def global_type(reader: Reader) -> GlobalType:
    """The type of a global."""
    value = valtype(reader)
    return GlobalType(value, _mutability(reader))
