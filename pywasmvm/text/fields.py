"""The fields of a module: functions, tables, memories, globals, tags, imports, exports, segments, start."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from pywasmvm.isa import op
from pywasmvm.syntax import (
    Code,
    Elem,
    Export,
    Global,
    Import,
    ModuleSyntax,
    Table,
)
from pywasmvm.text.code import CodeReader
from pywasmvm.text.cursor import Cursor
from pywasmvm.text.lexer import LEFT, RIGHT
from pywasmvm.text.names import Names
from pywasmvm.text.types import TypeReader
from pywasmvm.types import (
    FUNCREF,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    NumType,
    RefType,
    TableType,
    ref,
)

_CONST = {32: op("i32.const"), 64: op("i64.const")}
_END, _REF_FUNC = op("end"), op("ref.func")

#: What a list of function indices holds.
FUNCTIONS = ref(False, HeapType.FUNC)

_PAGE = 1 << 16


class FieldReader:
    """Reads fields into a module whose index spaces have been numbered."""

    def __init__(self, module: ModuleSyntax, names: Names) -> None:
        self.module, self.names = module, names
        self.types = TypeReader(module, names)
        self.bodies: list[Code] = []
        module.bodies = self.bodies
        #: Branch hints by function: its code, the numbers of the instructions that have one, and the hints.
        self.hints: dict[int, tuple[Code, list[tuple[int, bytes]]]] = {}
        #: Bytes of data segments and custom sections: the module's `source`.
        self.blob = bytearray()
        # How many of each there are already: the index of the next one.
        self._next = dict.fromkeys(("func", "table", "memory", "global", "tag"), 0)

    def keep(self, data: bytes) -> int:
        """Append bytes to the source; where they start."""
        start = len(self.blob)
        self.blob += data
        return start

    def type_field(self, cursor: Cursor) -> None:
        """Read a field if it defines types."""
        if cursor.take_form(b"type", b"rec"):
            self.types.group(cursor)
            self._ended(cursor)

    def field(self, cursor: Cursor) -> None:
        """Read a field that defines no types."""
        cursor.left()
        read = _FIELDS.get(cursor.text) if cursor.kind >= 0 else None
        if read is None:
            if cursor.kind >= 0 and cursor.text in (b"type", b"rec"):
                return
            raise cursor.unexpected("a module field")
        cursor.pos += 1
        read(self, cursor)
        self._ended(cursor)

    def _ended(self, cursor: Cursor) -> None:
        if cursor.pos != cursor.end:
            raise cursor.unexpected(")")

    # -- what several fields share -----------------------------------------------------------------------

    def _begin(self, cursor: Cursor, kind: str) -> tuple[int, tuple[str, str] | None]:
        """The identifier and inline exports of a definition, and its inline import; the index it gets."""
        cursor.take_id()
        index = self._next[kind]
        self._next[kind] += 1
        while cursor.take_form(b"export"):
            self.module.exports.append(Export(cursor.name(), kind, index))
            cursor.right()
        imported = None
        if cursor.take_form(b"import"):
            imported = cursor.name(), cursor.name()
            cursor.right()
        return index, imported

    def _import(
        self, place: tuple[str, str], kind: str, type_: int | TableType | MemoryType | GlobalType
    ) -> None:
        self.module.imports.append(Import(*place, kind, type_))

    def _code(self) -> CodeReader:
        return CodeReader(self.types, self.names, self.module.features)

    def _constant(self, cursor: Cursor) -> Code:
        """An expression up to the parenthesis that closes what it stands in."""
        return self._code().expression(cursor)

    def _offset(self, cursor: Cursor) -> Code:
        """`(offset ...)`, or one folded instruction."""
        if cursor.take_form(b"offset"):
            found = self._constant(cursor)
            cursor.right()
            return found
        return self._code().single(cursor)

    def _address(self, cursor: Cursor, value: int, address: NumType) -> Code:
        """The offset of a segment that is written inside of its table or memory."""
        at = cursor.tokens.offset(cursor.pos)
        return Code((), [_CONST[address.bits], _END], [value, None], array("Q", [at, at]))

    # -- definitions -------------------------------------------------------------------------------------

    def func(self, cursor: Cursor) -> None:
        """A function."""
        index, imported = self._begin(cursor, "func")
        locals_ = self.names.space("local")
        type_ = self.types.use(cursor, locals_)
        if imported is not None:
            self._import(imported, "func", type_)
        else:
            self.module.functions.append(type_)
            reader = self._code()
            body = reader.body(cursor, locals_)
            if reader.immediates.labels.names:
                self.names.labels[index] = reader.immediates.labels.names
            if reader.hinted:
                self.hints[index] = body, reader.hinted
            self.bodies.append(body)
        self.names.locals[index] = locals_

    def tag(self, cursor: Cursor) -> None:
        """A tag."""
        _, imported = self._begin(cursor, "tag")
        type_ = self.types.use(cursor, self.names.space("local"))
        if imported is not None:
            self._import(imported, "tag", type_)
        else:
            self.module.tags.append(type_)

    def global_(self, cursor: Cursor) -> None:
        """A global."""
        _, imported = self._begin(cursor, "global")
        type_ = self.types.global_(cursor)
        if imported is not None:
            self._import(imported, "global", type_)
        else:
            self.module.globals.append(Global(type_, self._constant(cursor)))

    def memory(self, cursor: Cursor) -> None:
        """A memory, perhaps with the data it starts with."""
        index, imported = self._begin(cursor, "memory")
        if imported is not None:
            self._import(imported, "memory", self.types.memory(cursor))
            return
        before = cursor.pos
        address = self.types.address(cursor)
        if not cursor.take_form(b"data"):
            cursor.pos = before
            self.module.memories.append(self.types.memory(cursor))
            return
        data = cursor.strings()
        cursor.right()
        pages = -(-len(data) // _PAGE)
        self.module.memories.append(MemoryType(Limits(pages, pages), address))
        self._data_segment(index, self._address(cursor, 0, address), data)

    def table(self, cursor: Cursor) -> None:
        """A table, perhaps with an initial value or the elements it starts with."""
        index, imported = self._begin(cursor, "table")
        if imported is not None:
            self._import(imported, "table", self.types.table(cursor))
            return
        address = self.types.address(cursor)
        if cursor.at_number():
            limits = self.types.limits(cursor)
            type_ = TableType(self.types.reftype(cursor), limits, address)
            init = self._constant(cursor) if cursor.pos != cursor.end else None
            self.module.tables.append(Table(type_, init))
            return
        element = self.types.reftype(cursor)
        if not cursor.take_form(b"elem"):
            raise cursor.unexpected("(elem")
        at = cursor.tokens.offset(cursor.pos)
        items: list[int] | list[Code]
        if cursor.at_index():
            functions = self._indices(cursor)
            # As the binary has it: functions of a plain table are listed by index.
            items = functions if element is FUNCREF else [self._ref_func(n, at) for n in functions]
            of = FUNCTIONS if element is FUNCREF else element
        else:
            items, of = self._items(cursor), element
            if not items and element is FUNCREF:
                items, of = [], FUNCTIONS
        cursor.right()
        count = len(items)
        self.module.tables.append(Table(TableType(element, Limits(count, count), address)))
        offset = self._address(cursor, 0, address)
        self.module.elems.append(Elem(of, "active", items, index, offset, at))

    def import_(self, cursor: Cursor) -> None:
        """An import written on its own."""
        place = cursor.name(), cursor.name()
        word = cursor.take_form(b"func", b"table", b"memory", b"global", b"tag")
        if word is None:
            raise cursor.unexpected("(func, (table, (memory, (global or (tag")
        kind = word.decode()
        cursor.take_id()
        index = self._next[kind]
        self._next[kind] += 1
        if kind in ("func", "tag"):
            locals_ = self.names.space("local")
            self._import(place, kind, self.types.use(cursor, locals_))
            if kind == "func":
                self.names.locals[index] = locals_
        elif kind == "table":
            self._import(place, kind, self.types.table(cursor))
        elif kind == "memory":
            self._import(place, kind, self.types.memory(cursor))
        else:
            self._import(place, kind, self.types.global_(cursor))
        cursor.right()

    def export(self, cursor: Cursor) -> None:
        """An export written on its own."""
        name = cursor.name()
        spaces = {
            b"func": self.names.funcs,
            b"table": self.names.tables,
            b"memory": self.names.memories,
            b"global": self.names.globals,
            b"tag": self.names.tags,
        }
        word = cursor.take_form(*spaces)
        if word is None:
            raise cursor.unexpected("(func, (table, (memory, (global or (tag")
        self.module.exports.append(Export(name, word.decode(), spaces[word].index(cursor)))
        cursor.right()

    def start(self, cursor: Cursor) -> None:
        """The start function."""
        if self.module.start is not None:
            raise cursor.fail("multiple start sections", cursor.pos - 1)
        self.module.start = self.names.funcs.index(cursor)

    # -- segments ----------------------------------------------------------------------------------------

    def data(self, cursor: Cursor) -> None:
        """A data segment."""
        cursor.take_id()
        memory, offset = -1, None
        if cursor.take_form(b"memory"):
            memory = self.names.memories.index(cursor)
            cursor.right()
            offset = self._offset(cursor)
        elif cursor.kind == LEFT:
            memory, offset = 0, self._offset(cursor)
        self._data_segment(memory, offset, cursor.strings())

    def _data_segment(self, memory: int, offset: Code | None, contents: bytes) -> None:
        data = self.module.data
        data.memory.append(memory)
        single = offset is not None and len(offset) == 2 and offset.ops[0] is _CONST[32]
        first = offset.immediates[0] if offset is not None else None
        data.offset.append(first if single and isinstance(first, int) else offset)
        data.start.append(self.keep(contents))
        data.length.append(len(contents))

    def elem(self, cursor: Cursor) -> None:
        """An element segment."""
        at = cursor.tokens.offset(cursor.pos)
        cursor.take_id()
        table, offset, mode = 0, None, "passive"
        explicit = False
        if cursor.take_word(b"declare"):
            mode = "declarative"
        elif cursor.take_form(b"table"):
            table, explicit = self.names.tables.index(cursor), True
            cursor.right()
            offset, mode = self._offset(cursor), "active"
        elif cursor.kind == LEFT and not cursor.at_form(b"ref"):
            offset, mode = self._offset(cursor), "active"
        items: list[int] | list[Code]
        of: RefType
        if cursor.take_word(b"func"):
            items, of = self._indices(cursor), FUNCTIONS
        elif cursor.at_index() or (cursor.kind in (RIGHT, -1) and offset is not None and not explicit):
            if offset is None or explicit:
                raise cursor.unexpected("func or a reference type")
            items, of = self._indices(cursor), FUNCTIONS
        else:
            of = self.types.reftype(cursor)
            items = self._items(cursor)
        self.module.elems.append(Elem(of, mode, items, table, offset, at))

    def _indices(self, cursor: Cursor) -> list[int]:
        found = []
        while cursor.at_index():
            found.append(self.names.funcs.index(cursor))
        return found

    def _items(self, cursor: Cursor) -> list[Code]:
        """`(item ...)`, or folded instructions."""
        found = []
        while cursor.kind == LEFT:
            if cursor.take_form(b"item"):
                found.append(self._constant(cursor))
                cursor.right()
            else:
                found.append(self._code().single(cursor))
        return found

    def _ref_func(self, index: int, at: int) -> Code:
        return Code((), [_REF_FUNC, _END], [index, None], array("Q", [at, at]))


_FIELDS: dict[bytes, Callable[[FieldReader, Cursor], None]] = {
    b"func": FieldReader.func,
    b"table": FieldReader.table,
    b"memory": FieldReader.memory,
    b"global": FieldReader.global_,
    b"tag": FieldReader.tag,
    b"import": FieldReader.import_,
    b"export": FieldReader.export,
    b"start": FieldReader.start,
    b"elem": FieldReader.elem,
    b"data": FieldReader.data,
}
