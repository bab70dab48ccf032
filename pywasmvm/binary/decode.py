"""The sections of a binary to `ModuleSyntax` (spec: Binary Format, Modules).

Function bodies are only located here, not read: `binary.code.body` decodes one when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pywasmvm import features as feature_names
from pywasmvm.binary import code
from pywasmvm.binary.reader import Reader
from pywasmvm.binary.types import global_type, memory_type, rectype, reftype, table_type
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import (
    Code,
    CustomSection,
    DataSegments,
    Elem,
    Export,
    Global,
    Import,
    ModuleSyntax,
    Section,
    Table,
)
from pywasmvm.types import FUNCREF, GlobalType, HeapType, MemoryType, RefType, TableType, ref

MAGIC = b"\0asm"
VERSION = b"\1\0\0\0"

#: Section ids in the order in which sections must stand, with their names.
SECTION_NAMES: dict[int, str] = {
    1: "type",
    2: "import",
    3: "function",
    4: "table",
    5: "memory",
    13: "tag",
    6: "global",
    7: "export",
    8: "start",
    9: "element",
    12: "data count",
    10: "code",
    11: "data",
}
_CODE = 10
_POSITION = {number: position for position, number in enumerate(SECTION_NAMES)}

#: Kinds of imports and exports in the order of their codes.
KINDS = ("func", "table", "memory", "global", "tag")


def decode(
    data: bytes,
    *,
    features: Iterable[str] | None = None,
    bodies: bool = True,
    segments: DataSegments | None = None,
) -> ModuleSyntax:
    """Decode a module. Raises MalformedError with the byte offset.

    With `bodies` every function body is read once to check that it is well-formed; without, that check waits
    until the body is needed. `features` names the proposals that may be used (None: all that there are).
    `segments` is what an earlier reading of the same bytes found in the data section.
    """
    module = ModuleSyntax(bytes(data), feature_names.resolve(features))
    if segments is not None:
        module.data = segments
    reader = Reader(module.source)
    if not data.startswith(MAGIC):
        raise MalformedError("unexpected end" if len(data) < len(MAGIC) else "magic header not detected", 0)
    if data[4:8] != VERSION:
        raise MalformedError(
            "unexpected end" if VERSION.startswith(data[4:8]) and len(data) < 8 else "unknown binary version",
            4,
        )
    reader.pos = 8
    last, after = -1, 0
    while not reader.exhausted:
        start = reader.pos
        number = reader.byte()
        size = reader.u32()
        if size > reader.end - reader.pos:
            raise reader.fail("length out of bounds", start + 1)
        section = Reader(module.source, reader.pos, reader.pos + size)
        reader.pos += size
        if number == 0:
            name = section.name()
            module.customs.append(CustomSection(name, section.pos, section.end, after))
            module.sections.append(Section(0, name, section.pos, section.end))
            continue
        if number not in _POSITION:
            raise MalformedError("malformed section id", start)
        if _POSITION[number] <= last:
            raise MalformedError("unexpected content after last section", start)
        last, after = _POSITION[number], number
        module.sections.append(Section(number, SECTION_NAMES[number], section.pos, section.end))
        _SECTIONS[number](section, module)
        if bodies and number == _CODE:
            for index in range(len(module.body_start)):
                code.body(module, index)
        if not section.exhausted:
            raise section.fail("section size mismatch")
    if len(module.functions) != len(module.body_start):
        raise MalformedError("function and code section have inconsistent lengths", reader.pos)
    if module.data_count is not None and module.data_count != len(module.data):
        raise MalformedError("data count and data section have inconsistent lengths", reader.pos)
    return module


def _types(reader: Reader, module: ModuleSyntax) -> None:
    for _ in range(reader.length()):
        group = rectype(reader)
        module.types += group
        module.groups.append(len(group))


def _tag_type(reader: Reader) -> int:
    """The type index of a tag, after a byte that is reserved for other kinds of tags."""
    start = reader.pos
    if reader.byte() != 0:
        raise reader.fail("malformed tag attribute", start)
    return reader.u32()


def _imports(reader: Reader, module: ModuleSyntax) -> None:
    read: tuple[Callable[[Reader], int | TableType | MemoryType | GlobalType], ...]
    read = (Reader.u32, table_type, memory_type, global_type, _tag_type)
    for _ in range(reader.length()):
        module_name, name = reader.name(), reader.name()
        start = reader.pos
        kind = reader.byte()
        if kind >= len(KINDS):
            raise reader.fail("malformed import kind", start)
        module.imports.append(Import(module_name, name, KINDS[kind], read[kind](reader)))


def _functions(reader: Reader, module: ModuleSyntax) -> None:
    module.functions = [reader.u32() for _ in range(reader.length())]


#: What a table with an initial value starts with; no reference type does.
TABLE_WITH_VALUE = b"\x40\x00"


def _tables(reader: Reader, module: ModuleSyntax) -> None:
    for _ in range(reader.length()):
        if reader.data.startswith(TABLE_WITH_VALUE[:1], reader.pos):
            start = reader.take(len(TABLE_WITH_VALUE))
            if not reader.data.startswith(TABLE_WITH_VALUE, start):
                raise reader.fail("malformed table", start + 1)
            type_ = table_type(reader)
            module.tables.append(Table(type_, code.constant(reader, module)))
        else:
            module.tables.append(Table(table_type(reader)))


def _memories(reader: Reader, module: ModuleSyntax) -> None:
    module.memories = [memory_type(reader) for _ in range(reader.length())]


def _tags(reader: Reader, module: ModuleSyntax) -> None:
    module.tags = [_tag_type(reader) for _ in range(reader.length())]


def _globals(reader: Reader, module: ModuleSyntax) -> None:
    for _ in range(reader.length()):
        type_ = global_type(reader)
        module.globals.append(Global(type_, code.constant(reader, module)))


def _exports(reader: Reader, module: ModuleSyntax) -> None:
    for _ in range(reader.length()):
        name = reader.name()
        start = reader.pos
        kind = reader.byte()
        if kind >= len(KINDS):
            raise reader.fail("malformed export kind", start)
        module.exports.append(Export(name, KINDS[kind], reader.u32()))


def _start(reader: Reader, module: ModuleSyntax) -> None:
    module.start = reader.u32()


def _elements(reader: Reader, module: ModuleSyntax) -> None:
    """Bit 0: passive or declarative; bit 1: explicit table, or declarative; bit 2: expressions."""
    for _ in range(reader.length()):
        start = reader.pos
        flags = reader.u32()
        if flags > 7:
            raise reader.fail("malformed elements segment kind", start)
        table, offset = 0, None
        if flags & 1:
            mode = "declarative" if flags & 2 else "passive"
        else:
            mode = "active"
            table = reader.u32() if flags & 2 else 0
            offset = code.constant(reader, module)
        # Function indices are never null.
        type_: RefType = FUNCREF if flags & 4 else ref(False, HeapType.FUNC)
        if flags & 3:
            if flags & 4:
                type_ = reftype(reader)
            elif reader.byte() != 0:
                raise reader.fail("malformed element kind", reader.pos - 1)
        items: list[int] | list[Code]
        if flags & 4:
            items = [code.constant(reader, module) for _ in range(reader.length())]
        else:
            items = [reader.u32() for _ in range(reader.length())]
        module.elems.append(Elem(type_, mode, items, table, offset, start))


def _data_count(reader: Reader, module: ModuleSyntax) -> None:
    module.data_count = reader.u32()


def _code(reader: Reader, module: ModuleSyntax) -> None:
    for _ in range(reader.length()):
        size = reader.u32()
        start = reader.take(size)
        module.body_start.append(start)
        module.body_end.append(start + size)


_I32_CONST, _END = 0x41, 0x0B


def _data(reader: Reader, module: ModuleSyntax) -> None:
    data = module.data
    if len(data):  # known before
        reader.pos = reader.end
        return
    source = reader.data
    for _ in range(reader.length()):
        start = reader.pos
        flags = reader.u32()
        if flags > 2:
            raise reader.fail("malformed data segment kind", start)
        if flags == 1:
            data.memory.append(-1)
            data.offset.append(None)
        else:
            data.memory.append(reader.u32() if flags == 2 else 0)
            # Go links tens of thousands of segments; each has a single constant for its offset.
            expression_start = reader.pos
            offset: int | Code | None = None
            if expression_start < reader.end and source[expression_start] == _I32_CONST:
                reader.pos += 1
                offset = reader.signed(32) & 0xFFFF_FFFF
                if reader.pos < reader.end and source[reader.pos] == _END:
                    reader.pos += 1
                else:
                    offset = None
                    reader.pos = expression_start
            if offset is None:
                offset = code.constant(reader, module)
            data.offset.append(offset)
        length = reader.u32()
        data.start.append(reader.take(length))
        data.length.append(length)


_SECTIONS: dict[int, Callable[[Reader, ModuleSyntax], None]] = {
    1: _types,
    2: _imports,
    3: _functions,
    4: _tables,
    5: _memories,
    6: _globals,
    7: _exports,
    8: _start,
    9: _elements,
    10: _code,
    11: _data,
    12: _data_count,
    13: _tags,
}
