"""`ModuleSyntax` to bytes: the counterpart of `decode` (spec: Binary Format, Modules).

Numbers are as short as they can be, sections stand in the order of the specification, custom sections behind
them. The tables of codes are the decoder's own.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable

from pywasmvm.binary import code as binary_code
from pywasmvm.binary.code import CATCHES, HAS_MEMORY
from pywasmvm.binary.decode import KINDS, MAGIC, SECTION_NAMES, TABLE_WITH_VALUE, VERSION
from pywasmvm.binary.types import (
    ARRAY,
    FUNC,
    HAS_MAX,
    HEAPS,
    IS_64,
    PACKED,
    REC,
    REF,
    REF_NULL,
    SINGLE,
    STRUCT,
    SUB,
    SUB_FINAL,
)
from pywasmvm.binary.values import signed, text, unsigned, vector
from pywasmvm.isa import ROWS, Imm, Opcode, op
from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits, s32, s64
from pywasmvm.syntax import Catch, Code, Elem, Export, Global, Immediate, Import, MemArg, ModuleSyntax, Table
from pywasmvm.types import (
    FUNCREF,
    I64,
    DefType,
    FieldType,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    NumType,
    RefType,
    StructType,
    SubType,
    TableType,
    ValType,
    ref,
)

# -- types -----------------------------------------------------------------------------------------------

_SINGLE = {type_: bytes([byte]) for byte, type_ in (SINGLE | dict(PACKED)).items()}
_HEAPS = {heap: bytes([byte]) for byte, heap in HEAPS.items()}


def _valtype(type_: ValType) -> bytes:
    found = _SINGLE.get(type_)
    if found is not None:
        return found
    if not isinstance(type_, RefType):
        raise TypeError(f"{type_} has no encoding")
    return bytes([REF_NULL if type_.nullable else REF]) + _heaptype(type_.heap)


def _heaptype(heap: HeapType | int | DefType) -> bytes:
    if isinstance(heap, DefType):
        raise TypeError("a module's syntax names its types by index")
    return signed(heap) if isinstance(heap, int) else _HEAPS[heap]


def _field(field: FieldType) -> bytes:
    return _valtype(field.storage) + bytes([field.mutable])


def _subtype(subtype: SubType) -> bytes:
    composite = subtype.composite
    if isinstance(composite, FuncType):
        body = (
            bytes([FUNC]) + vector(map(_valtype, composite.params)) + vector(map(_valtype, composite.results))
        )
    elif isinstance(composite, StructType):
        body = bytes([STRUCT]) + vector(map(_field, composite.fields))
    else:
        body = bytes([ARRAY]) + _field(composite.field)
    if subtype.final and not subtype.supers:
        return body
    return bytes([SUB_FINAL if subtype.final else SUB]) + vector(map(unsigned, subtype.supers)) + body


def _groups(module: ModuleSyntax) -> list[bytes]:
    found, rest = [], iter(module.types)
    for size in module.groups:
        members = [_subtype(next(rest)) for _ in range(size)]
        found.append(members[0] if size == 1 else bytes([REC]) + vector(members))
    return found


def _limits(limits: Limits, address: NumType) -> bytes:
    flags = (HAS_MAX if limits.max is not None else 0) | (IS_64 if address is I64 else 0)
    return bytes([flags]) + unsigned(limits.min) + (b"" if limits.max is None else unsigned(limits.max))


def _table_type(type_: TableType) -> bytes:
    return _valtype(type_.element) + _limits(type_.limits, type_.address)


def _global_type(type_: GlobalType) -> bytes:
    return _valtype(type_.value) + bytes([type_.mutable])


def _tag(index: int) -> bytes:
    return b"\0" + unsigned(index)


# -- instructions ----------------------------------------------------------------------------------------


def _blocktype(immediate: Immediate) -> bytes:
    if immediate is None:
        return bytes([binary_code.EMPTY_BLOCK])
    return _valtype(immediate) if isinstance(immediate, ValType) else signed(immediate)  # type: ignore[arg-type]


def _memarg(memarg: MemArg) -> bytes:
    if memarg.memory == 0:
        return unsigned(memarg.align) + unsigned(memarg.offset)
    return unsigned(memarg.align | HAS_MEMORY) + unsigned(memarg.memory) + unsigned(memarg.offset)


def _cast(immediate: tuple[int, RefType, RefType]) -> bytes:
    label, before, after = immediate
    flags = before.nullable | after.nullable << 1
    return bytes([flags]) + unsigned(label) + _heaptype(before.heap) + _heaptype(after.heap)


def _catch(clause: Catch) -> bytes:
    tag = b"" if clause.tag is None else unsigned(clause.tag)
    return bytes([CATCHES.index(clause.kind)]) + tag + unsigned(clause.label)


def _labels(labels: tuple[int, ...]) -> bytes:
    return vector(map(unsigned, labels[:-1])) + unsigned(labels[-1])


_WRITERS: dict[Imm, Callable[..., bytes]] = {
    Imm.BLOCKTYPE: _blocktype,
    Imm.LABELS: _labels,
    Imm.MEMARG: _memarg,
    Imm.I32: lambda value: signed(s32(value)),
    Imm.I64: lambda value: signed(s64(value)),
    Imm.F32: lambda value: struct.pack("<I", f32_to_bits(value)),
    Imm.F64: lambda value: struct.pack("<Q", f64_to_bits(value)),
    Imm.V128: lambda value: value.to_bytes(16, "little"),
    Imm.VALTYPES: lambda types: vector(map(_valtype, types)),
    Imm.HEAPTYPE: _heaptype,
    Imm.REF: lambda type_: _heaptype(type_.heap),
    Imm.REFNULL: lambda type_: _heaptype(type_.heap),
    Imm.CAST: _cast,
    Imm.CATCHES: lambda clauses: vector(map(_catch, clauses)),
    Imm.LANE: lambda lane: bytes([lane]),
    Imm.LANES: bytes,
}


#: How each row is written: its first bytes, and a writer for each immediate. What has no writer of its own is
#: an index.
_ROWS: dict[Opcode, tuple[bytes, tuple[Callable[..., bytes], ...]]] = {
    opcode: (opcode.encoding, tuple(_WRITERS.get(kind, unsigned) for kind in opcode.immediates))
    for opcode in ROWS
}


def instruction(opcode: Opcode, immediate: Immediate) -> bytes:
    """One instruction."""
    code, writers = _ROWS[opcode]
    if not writers:
        return code
    if len(writers) == 1:
        return code + writers[0](immediate)
    parts: Iterable[Immediate] = immediate  # type: ignore[assignment]
    return code + b"".join([write(part) for write, part in zip(writers, parts, strict=True)])


def _expression(code: Code) -> bytes:
    return b"".join(map(instruction, code.ops, code.immediates))


def _locals(code: Code) -> bytes:
    return vector(unsigned(count) + _valtype(type_) for count, type_ in code.locals)


def _body(code: Code) -> bytes:
    body = _locals(code) + _expression(code)
    return unsigned(len(body)) + body


def instruction_offsets(code: Code) -> list[int]:
    """Where each instruction of a function stands in its encoding, counted from where the locals begin.

    Code metadata names instructions in this way.
    """
    offset, found = len(_locals(code)), []
    for opcode, immediate in zip(code.ops, code.immediates, strict=True):
        found.append(offset)
        offset += len(instruction(opcode, immediate))
    return found


# -- sections --------------------------------------------------------------------------------------------


def _import(entry: Import) -> bytes:
    kind = KINDS.index(entry.kind)
    type_ = entry.type
    if isinstance(type_, int):
        what = unsigned(type_) if entry.kind == "func" else _tag(type_)
    elif isinstance(type_, TableType):
        what = _table_type(type_)
    elif isinstance(type_, MemoryType):
        what = _limits(type_.limits, type_.address)
    else:
        what = _global_type(type_)
    return text(entry.module) + text(entry.name) + bytes([kind]) + what


def _table(table: Table) -> bytes:
    if table.init is None:
        return _table_type(table.type)
    return TABLE_WITH_VALUE + _table_type(table.type) + _expression(table.init)


def _global(entry: Global) -> bytes:
    return _global_type(entry.type) + _expression(entry.init)


def _export(entry: Export) -> bytes:
    return text(entry.name) + bytes([KINDS.index(entry.kind)]) + unsigned(entry.index)


_FUNCTIONS = ref(False, HeapType.FUNC)
_REF_FUNC, _END = op("ref.func"), op("end")


def _elem(elem: Elem) -> bytes:
    """Bit 0: passive or declarative; bit 1: explicit table, or declarative; bit 2: expressions."""
    listed = elem.type is _FUNCTIONS and all(isinstance(item, int) for item in elem.items)
    usual = _FUNCTIONS if listed else FUNCREF
    flags = {"active": 0, "passive": 1, "declarative": 3}[elem.mode] | (0 if listed else 4)
    if elem.mode == "active" and (elem.table != 0 or elem.type is not usual):
        flags |= 2
    parts = [unsigned(flags)]
    if elem.mode == "active" and elem.offset is not None:
        parts += [unsigned(elem.table) if flags & 2 else b"", _expression(elem.offset)]
    if flags & 3:
        parts.append(b"\0" if listed else _valtype(elem.type))
    if listed:
        parts.append(vector(unsigned(item) for item in elem.items if isinstance(item, int)))
    else:
        parts.append(vector(_expression(_item(item)) for item in elem.items))
    return b"".join(parts)


def _item(item: int | Code) -> Code:
    if isinstance(item, Code):
        return item
    return Code((), [_REF_FUNC, _END], [item, None], array("Q", [0, 0]))


def _data(module: ModuleSyntax) -> list[bytes]:
    data, found = module.data, []
    constant = op("i32.const")
    for memory, offset, start, length in zip(data.memory, data.offset, data.start, data.length, strict=True):
        if memory < 0:
            head = b"\1"
        else:
            head = b"\0" if memory == 0 else b"\2" + unsigned(memory)
            if isinstance(offset, int):
                head += instruction(constant, offset) + _END.encoding
            elif offset is not None:
                head += _expression(offset)
        found.append(head + unsigned(length) + module.source[start : start + length])
    return found


def _bodies(module: ModuleSyntax) -> list[bytes]:
    return [_body(binary_code.body(module, index)) for index in range(len(module.functions))]


def _sections(module: ModuleSyntax) -> dict[str, bytes]:
    """Contents of the sections by name; empty where the module has nothing of the kind."""

    def items(parts: Iterable[bytes]) -> bytes:
        found = list(parts)
        return vector(found) if found else b""

    return {
        "type": items(_groups(module)),
        "import": items(map(_import, module.imports)),
        "function": items(map(unsigned, module.functions)),
        "table": items(map(_table, module.tables)),
        "memory": items(_limits(m.limits, m.address) for m in module.memories),
        "tag": items(map(_tag, module.tags)),
        "global": items(map(_global, module.globals)),
        "export": items(map(_export, module.exports)),
        "start": b"" if module.start is None else unsigned(module.start),
        "element": items(map(_elem, module.elems)),
        "data count": b"" if module.data_count is None else unsigned(module.data_count),
        "code": items(_bodies(module)),
        "data": items(_data(module)),
    }


def encode(module: ModuleSyntax) -> bytes:
    """The module in the binary format; decoding it gives an equal module.

    Custom sections stand where the module says; where it does not they follow all others, but code metadata
    goes before the code it is about and the names come last. What custom sections
    say about positions in the code is not adjusted to numbers that a linker had padded.

    Raises MalformedError for a body that was not read before and is not well-formed.
    """
    contents = _sections(module)
    customs = _custom_places(module)
    parts = [MAGIC, VERSION, *customs.get(0, ())]
    for number, name in SECTION_NAMES.items():
        if contents[name]:
            parts.append(_section(number, contents[name]))
        parts += customs.get(number, ())
    return b"".join(parts)


def _section(number: int, contents: bytes) -> bytes:
    return bytes([number]) + unsigned(len(contents)) + contents


_BEFORE_CODE, _LAST = list(SECTION_NAMES)[-3::2]


def _custom_places(module: ModuleSyntax) -> dict[int, list[bytes]]:
    """Custom sections by the number of the section they follow, 0 for none."""
    places: dict[int, list[bytes]] = {}

    def put(after: int, name: str, start: int, end: int) -> None:
        contents = text(name) + module.source[start:end]
        places.setdefault(after, []).append(_section(0, contents))

    for custom in sorted(module.customs, key=lambda custom: custom.after is None and custom.name == "name"):
        after = custom.after
        if after is None:
            after = _BEFORE_CODE if custom.name.startswith("metadata.code.") else _LAST
        put(after, custom.name, custom.start, custom.end)
    return places
