"""Function bodies and constant expressions to columns of instructions, driven by the table.

The loop below runs once per instruction of every module, so single-byte instructions without immediates and
single-byte indices are handled in line; everything else goes through one reader function per immediate kind.
"""

from __future__ import annotations

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


def _blocktype(reader: Reader, module: ModuleSyntax) -> Immediate:
    """Empty, one value type, or a type index as a positive s33."""
    start = reader.pos
    byte = reader.data[start] if start < reader.end else 0
    if byte == EMPTY_BLOCK:
        reader.byte()
        return None
    if byte in SINGLE or byte in (REF, REF_NULL):
        return valtype(reader)
    index = reader.signed(33)
    if index < 0:
        raise reader.fail("malformed block type", start)
    return index


#: In the alignment field of a memarg: a memory index follows.
HAS_MEMORY = 0x40


def _memarg(reader: Reader, module: ModuleSyntax) -> MemArg:
    start = reader.pos
    align = reader.u32()
    if align >= 2 * HAS_MEMORY:
        raise reader.fail("malformed memop flags", start)
    memory = reader.u32() if align & HAS_MEMORY else 0
    return MemArg(align & ~HAS_MEMORY, reader.unsigned(64), memory)


def _labels(reader: Reader, module: ModuleSyntax) -> tuple[int, ...]:
    count = reader.length()
    return tuple([reader.u32() for _ in range(count + 1)])


def _i32(reader: Reader, module: ModuleSyntax) -> int:
    return reader.signed(32) & 0xFFFF_FFFF


def _i64(reader: Reader, module: ModuleSyntax) -> int:
    return reader.signed(64) & 0xFFFF_FFFF_FFFF_FFFF


def _f32(reader: Reader, module: ModuleSyntax) -> float:
    bits: int = _u32(reader.data, reader.take(4))[0]
    return f32_from_bits(bits)


def _f64const(reader: Reader, module: ModuleSyntax) -> float:
    value: float = _f64(reader.data, reader.take(8))[0]
    return value


def _valtypes(reader: Reader, module: ModuleSyntax) -> tuple[ValType, ...]:
    return tuple([valtype(reader) for _ in range(reader.length())])


def _heaptype(reader: Reader, module: ModuleSyntax) -> HeapType | int:
    return heaptype(reader)


def _ref(reader: Reader, module: ModuleSyntax) -> RefType:
    return ref(False, heaptype(reader))


def _ref_null(reader: Reader, module: ModuleSyntax) -> RefType:
    return ref(True, heaptype(reader))


def _cast(reader: Reader, module: ModuleSyntax) -> tuple[int, RefType, RefType]:
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


def _catches(reader: Reader, module: ModuleSyntax) -> tuple[Catch, ...]:
    found = []
    for _ in range(reader.length()):
        start = reader.pos
        code = reader.byte()
        if code >= len(CATCHES):
            raise reader.fail("malformed catch clause", start)
        tag = reader.u32() if code < 2 else None
        found.append(Catch(CATCHES[code], tag, reader.u32()))
    return tuple(found)


def _v128(reader: Reader, module: ModuleSyntax) -> int:
    start = reader.take(16)
    return int.from_bytes(reader.data[start : start + 16], "little")


def _lane(reader: Reader, module: ModuleSyntax) -> int:
    return reader.byte()


def _lanes(reader: Reader, module: ModuleSyntax) -> bytes:
    start = reader.take(16)
    return reader.data[start : start + 16]


def _index(reader: Reader, module: ModuleSyntax) -> int:
    return reader.u32()


_READERS: dict[Imm, Callable[[Reader, ModuleSyntax], Immediate]] = {
    Imm.BLOCKTYPE: _blocktype,
    Imm.LABEL: _index,
    Imm.LABELS: _labels,
    Imm.FUNC: _index,
    Imm.TYPE: _index,
    Imm.TABLE: _index,
    Imm.ELEM: _index,
    Imm.MEMORY: _index,
    Imm.DATA: _index,
    Imm.LOCAL: _index,
    Imm.GLOBAL: _index,
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
    Imm.TAG: _index,
    Imm.CATCHES: _catches,
    Imm.FIELD: _index,
    Imm.COUNT: _index,
    Imm.LANE: _lane,
    Imm.LANES: _lanes,
}

#: Immediates that are one unsigned number and nothing to check.
_INDEX_KINDS = frozenset(kind for kind, read in _READERS.items() if read is _index)

# How an opcode's immediates are read: 0 none, 1 one plain index, 2 in general.
_NONE, _ONE_INDEX, _GENERAL = range(3)

_Entry = tuple[Opcode, int]


def _page(features: frozenset[str], prefix: int | None) -> dict[int, _Entry]:
    page: dict[int, _Entry] = {}
    for (found, code), opcode in BY_CODE.items():
        if found != prefix or opcode.feature not in features:
            continue
        if not opcode.immediates:
            shape = _NONE
        elif len(opcode.immediates) == 1 and opcode.immediates[0] in _INDEX_KINDS:
            shape = _ONE_INDEX
        else:
            shape = _GENERAL
        page[code] = (opcode, shape)
    return page


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
    offsets = array("Q")
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
        opcode, shape = entry
        ops.append(opcode)
        offsets.append(start)
        if shape == _NONE:
            immediates.append(None)
            if code == _END:
                nesting.pop()
                if not nesting:
                    reader.pos = pos
                    return ops, immediates, offsets
            elif code == _ELSE:
                if nesting[-1] != _IF:
                    raise MalformedError("unexpected else", offset=start)
                nesting[-1] = _ELSE
        elif shape == _ONE_INDEX:
            if pos < end and data[pos] < 0x80:
                immediates.append(data[pos])
                pos += 1
            else:
                reader.pos = pos
                immediates.append(reader.u32())
                pos = reader.pos
        else:
            reader.pos = pos
            if len(opcode.immediates) == 1:
                immediates.append(_READERS[opcode.immediates[0]](reader, module))
            else:
                immediates.append(tuple([_READERS[kind](reader, module) for kind in opcode.immediates]))
            pos = reader.pos
            if _BLOCK <= code <= _IF or code == _TRY_TABLE:
                nesting.append(code)


def constant(reader: Reader, module: ModuleSyntax) -> Code:
    """A constant expression."""
    return Code((), *expression(reader, module))


#: Instructions that name a data segment: in a function body they ask for the data count section.
_NAMES_DATA = frozenset(opcode for opcode in BY_CODE.values() if Imm.DATA in opcode.immediates)


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
    if module.data_count is None and not _NAMES_DATA.isdisjoint(code.ops):
        place = next(n for n, opcode in enumerate(code.ops) if opcode in _NAMES_DATA)
        raise MalformedError("data count section required", code.offsets[place])
    if not reader.exhausted:
        raise reader.fail("section size mismatch: bytes follow the end of the function body")
    return code
