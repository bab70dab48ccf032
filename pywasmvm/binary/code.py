"""Function bodies and constant expressions to columns of instructions, driven by the table.

The loop below runs once per instruction of every module, so single-byte instructions without immediates and
single-byte indices are handled in line; everything else goes through one reader function per immediate kind.
"""

from __future__ import annotations

import functools
import struct
from array import array
from collections.abc import Callable

from pywasmvm.binary.reader import Reader
from pywasmvm.binary.types import REF, REF_NULL, SINGLE, heaptype, valtype
from pywasmvm.errors import MalformedError
from pywasmvm.isa import BY_CODE, PREFIXES, Imm, Opcode
from pywasmvm.numerics.bits import f32_from_bits
from pywasmvm.syntax import Catch, Code, Immediate, MemArg, ModuleSyntax
from pywasmvm.types import HeapType, RefType, ValType, ref

_f64 = struct.Struct("<d").unpack_from
_u32 = struct.Struct("<I").unpack_from


EMPTY_BLOCK = 0x40


def _blocktype(reader: Reader) -> Immediate:
    """Empty, one value type, or a type index as a positive s33."""
    start = reader.pos
    byte = reader.data[start] if start < reader.end else 0
    if byte == EMPTY_BLOCK:
        reader.pos = start + 1
        return None
    if byte in SINGLE or byte in (REF, REF_NULL):
        return valtype(reader)
    index = reader.signed(33)
    if index < 0:
        raise reader.fail("malformed block type", start)
    return index


#: In the alignment field of a memarg: a memory index follows.
HAS_MEMORY = 0x40


#: A module has hundreds of thousands of memargs but only a few different ones: equal ones are one object.
_shared_memarg = functools.lru_cache(maxsize=1 << 12)(MemArg)


def _memarg(reader: Reader) -> MemArg:
    start = reader.pos
    align = reader.u32()
    if align >= 2 * HAS_MEMORY:
        raise reader.fail("malformed memop flags", start)
    memory = reader.u32() if align & HAS_MEMORY else 0
    return _shared_memarg(align & ~HAS_MEMORY, reader.unsigned(64), memory)


def _labels(reader: Reader) -> tuple[int, ...]:
    count = reader.length() + 1
    written = reader.data[reader.pos : min(reader.pos + count, reader.end)]
    if len(written) == count and written.isascii():  # each is a byte below 0x80, which is what it means
        reader.pos += count
        return tuple(written)
    return tuple([reader.u32() for _ in range(count)])


def _i32(reader: Reader) -> int:
    return reader.signed(32) & 0xFFFF_FFFF


def _i64(reader: Reader) -> int:
    return reader.signed(64) & 0xFFFF_FFFF_FFFF_FFFF


def _f32(reader: Reader) -> float:
    bits: int = _u32(reader.data, reader.take(4))[0]
    return f32_from_bits(bits)


def _f64const(reader: Reader) -> float:
    value: float = _f64(reader.data, reader.take(8))[0]
    return value


def _valtypes(reader: Reader) -> tuple[ValType, ...]:
    return tuple([valtype(reader) for _ in range(reader.length())])


def _heaptype(reader: Reader) -> HeapType | int:
    return heaptype(reader)


def _ref(reader: Reader) -> RefType:
    return ref(False, heaptype(reader))


def _ref_null(reader: Reader) -> RefType:
    return ref(True, heaptype(reader))


def _cast(reader: Reader) -> tuple[int, RefType, RefType]:
    """A byte whose two bits say which of the reference types are nullable, a label, two heap types."""
    start = reader.pos
    flags = reader.byte()
    if flags > 3:
        raise reader.fail("malformed br_on_cast flags", start)
    label = reader.u32()
    before = ref(bool(flags & 1), heaptype(reader))
    return label, before, ref(bool(flags & 2), heaptype(reader))


#: Kinds of clauses in the order of their codes.
CATCHES = ("catch", "catch_ref", "catch_all", "catch_all_ref")


def _catches(reader: Reader) -> tuple[Catch, ...]:
    found = []
    for _ in range(reader.length()):
        start = reader.pos
        code = reader.byte()
        if code >= len(CATCHES):
            raise reader.fail("malformed catch clause", start)
        tag = reader.u32() if code < 2 else None
        found.append(Catch(CATCHES[code], tag, reader.u32()))
    return tuple(found)


def _v128(reader: Reader) -> int:
    start = reader.take(16)
    return int.from_bytes(reader.data[start : start + 16], "little")


def _lanes(reader: Reader) -> bytes:
    start = reader.take(16)
    return reader.data[start : start + 16]


_READERS: dict[Imm, Callable[[Reader], Immediate]] = {
    Imm.BLOCKTYPE: _blocktype,
    Imm.LABEL: Reader.u32,
    Imm.LABELS: _labels,
    Imm.FUNC: Reader.u32,
    Imm.TYPE: Reader.u32,
    Imm.TABLE: Reader.u32,
    Imm.ELEM: Reader.u32,
    Imm.MEMORY: Reader.u32,
    Imm.DATA: Reader.u32,
    Imm.LOCAL: Reader.u32,
    Imm.GLOBAL: Reader.u32,
    Imm.MEMARG: _memarg,
    Imm.I32: _i32,
    Imm.I64: _i64,
    Imm.F32: _f32,
    Imm.F64: _f64const,
    Imm.VALTYPES: _valtypes,
    Imm.HEAPTYPE: _heaptype,
    Imm.V128: _v128,
    Imm.REF: _ref,
    Imm.REFNULL: _ref_null,
    Imm.CAST: _cast,
    Imm.TAG: Reader.u32,
    Imm.CATCHES: _catches,
    Imm.FIELD: Reader.u32,
    Imm.COUNT: Reader.u32,
    Imm.LANE: Reader.byte,
    Imm.LANES: _lanes,
}

# How an opcode's immediates are read: 0 none, 1 one number, 2 one memarg, 3 in general.
_NONE, _NUMBER, _MEMARG, _GENERAL = range(4)

#: For each kind of immediate that is one number, by its first byte: the number, or None where it goes on.
_ONE_BYTE: dict[Imm, list[Immediate]] = {
    kind: [read(Reader(bytes([byte]))) for byte in range(0x80)] + [None] * 0x80
    for kind, read in _READERS.items()
    if read in (Reader.u32, _i32, _i64)
}

#: An opcode, how its immediates are read, the reader of all of them, and the numbers of one byte.
_Entry = tuple[Opcode, int, Callable[[Reader], Immediate], list[Immediate]]


def _entry(opcode: Opcode) -> _Entry:
    kinds = opcode.immediates
    if len(kinds) != 1:
        return opcode, _GENERAL if kinds else _NONE, _several(kinds), []
    shape = _NUMBER if kinds[0] in _ONE_BYTE else _MEMARG if kinds[0] is Imm.MEMARG else _GENERAL
    return opcode, shape, _READERS[kinds[0]], _ONE_BYTE.get(kinds[0], [])


def _several(kinds: tuple[Imm, ...]) -> Callable[[Reader], Immediate]:
    readers = [_READERS[kind] for kind in kinds]
    return lambda reader: tuple([read(reader) for read in readers])


def _page(features: frozenset[str], prefix: int | None) -> dict[int, _Entry]:
    return {
        code: _entry(opcode)
        for (found, code), opcode in BY_CODE.items()
        if found == prefix and opcode.feature in features
    }


_pages: dict[frozenset[str], tuple[list[_Entry | None], dict[int, dict[int, _Entry]]]] = {}


def _tables(features: frozenset[str]) -> tuple[list[_Entry | None], dict[int, dict[int, _Entry]]]:
    """Look-up tables for a feature set, made once each."""
    made = _pages.get(features)
    if made is None:
        first = _page(features, None)
        made = [first.get(code) for code in range(256)], {p: _page(features, p) for p in PREFIXES}
        _pages[features] = made
    return made


# What opens and closes nesting, by code: the decoder must know where an expression ends.
_BLOCK, _LOOP, _IF, _ELSE, _END, _TRY_TABLE = 0x02, 0x03, 0x04, 0x05, 0x0B, 0x1F


def expression(reader: Reader, module: ModuleSyntax) -> tuple[list[Opcode], list[Immediate], array[int]]:
    """Read instructions up to and including the `end` that closes the expression."""
    single, pages = _tables(module.features)
    ops: list[Opcode] = []
    immediates: list[Immediate] = []
    offsets: list[int] = []
    nesting = [_BLOCK]
    data, end = reader.data, reader.end
    pos = reader.pos
    while True:
        start = pos
        if pos >= end:
            raise MalformedError("unexpected end of section or function", offset=pos)
        code = data[pos]
        pos += 1
        entry = single[code]
        if entry is None:
            page = pages.get(code)
            if page is None:
                raise MalformedError(f"illegal opcode {code:02x}", offset=start)
            reader.pos = pos
            number = reader.u32()
            pos = reader.pos
            entry = page.get(number)
            if entry is None:
                raise MalformedError(f"illegal opcode {code:02x} {number:02x}", offset=start)
        opcode, shape, read, one_byte = entry
        ops.append(opcode)
        offsets.append(start)
        if shape == _NUMBER:
            if pos < end and (value := one_byte[data[pos]]) is not None:
                immediates.append(value)
                pos += 1
                continue
        elif shape == _NONE:
            immediates.append(None)
            if code == _END:
                nesting.pop()
                if not nesting:
                    reader.pos = pos
                    return ops, immediates, array("Q", offsets)
            elif code == _ELSE:
                if nesting[-1] != _IF:
                    raise MalformedError("unexpected else", offset=start)
                nesting[-1] = _ELSE
            continue
        elif shape == _MEMARG:
            if pos + 1 < end and (align := data[pos]) < HAS_MEMORY and (offset := data[pos + 1]) < 0x80:
                immediates.append(_shared_memarg(align, offset))
                pos += 2
                continue
        elif _BLOCK <= code <= _IF or code == _TRY_TABLE:
            nesting.append(code)
        reader.pos = pos
        immediates.append(read(reader))
        pos = reader.pos


def constant(reader: Reader, module: ModuleSyntax) -> Code:
    """A constant expression."""
    return Code((), *expression(reader, module))


#: Instructions that name a data segment: in a function body they ask for the data count section.
_NAMES_DATA = frozenset(opcode for opcode in BY_CODE.values() if Imm.DATA in opcode.immediates)
_BYTES_OF_THOSE = frozenset(opcode.encoding[:1] for opcode in _NAMES_DATA)


def body(module: ModuleSyntax, index: int) -> Code:
    """The body of the `index`-th defined function, decoded unless it came as text. Raises MalformedError."""
    if module.bodies is not None:
        return module.bodies[index]
    reader = Reader(module.source, module.body_start[index], module.body_end[index])
    runs: list[tuple[int, ValType]] = []
    total = 0
    for _ in range(reader.length()):
        start = reader.pos
        count = reader.u32()
        total += count
        if total > 0xFFFF_FFFF:
            raise reader.fail("too many locals", start)
        runs.append((count, valtype(reader)))
    code = Code(tuple(runs), *expression(reader, module))
    # To look for the bytes that such an instruction begins with is faster than to look at every instruction.
    if (
        module.data_count is None
        and any([module.source.find(byte, code.offsets[0], reader.pos) >= 0 for byte in _BYTES_OF_THOSE])
        and not _NAMES_DATA.isdisjoint(code.ops)
    ):
        place = next(n for n, opcode in enumerate(code.ops) if opcode in _NAMES_DATA)
        raise MalformedError("data count section required", code.offsets[place])
    if not reader.exhausted:
        raise reader.fail("section size mismatch: bytes follow the end of the function body")
    return code
