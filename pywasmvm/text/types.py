"""Types in the text format (spec: Text Format, Types; Modules, Type Uses)."""

from __future__ import annotations

from pywasmvm.syntax import ModuleSyntax
from pywasmvm.text.cursor import Cursor
from pywasmvm.text.lexer import LEFT, RIGHT, WORD
from pywasmvm.text.names import Names, Space
from pywasmvm.types import (
    BY_NAME,
    I8,
    I16,
    I32,
    I64,
    ArrayType,
    CompType,
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

_VALTYPES: dict[bytes, ValType] = {name.encode(): type_ for name, type_ in BY_NAME.items()}
_HEAPS: dict[bytes, HeapType] = {h.value.encode(): h for h in HeapType if h is not HeapType.BOT}
_PACKED: dict[bytes, ValType] = {b"i8": I8, b"i16": I16}


class TypeReader:
    """Reads types into a module; type uses may add to its types."""

    def __init__(self, module: ModuleSyntax, names: Names) -> None:
        self.module, self.names = module, names
        #: Indices of the function types that stand alone: an inline signature means the first that equals it.
        self._alone: dict[FuncType, int] = {}

    # -- value types -----------------------------------------------------------------------------------

    def valtype(self, cursor: Cursor) -> ValType:
        """A value type."""
        if cursor.kind == WORD:
            found = _VALTYPES.get(cursor.text)
            if found is not None:
                cursor.pos += 1
                return found
        elif cursor.at_form(b"ref"):
            return self.reftype(cursor)
        raise cursor.unexpected("a value type")

    def at_valtype(self, cursor: Cursor) -> bool:
        """Whether a value type comes next."""
        if cursor.kind == LEFT:
            return cursor.at_form(b"ref") is not None
        return cursor.kind == WORD and cursor.text in _VALTYPES

    def reftype(self, cursor: Cursor) -> RefType:
        """A reference type."""
        if cursor.take_form(b"ref"):
            nullable = cursor.take_word(b"null")
            found = ref(nullable, self.heaptype(cursor))
            cursor.right()
            return found
        if cursor.kind == WORD:
            short = _VALTYPES.get(cursor.text)
            if isinstance(short, RefType):
                cursor.pos += 1
                return short
        raise cursor.unexpected("a reference type")

    def heaptype(self, cursor: Cursor) -> HeapType | int:
        """A heap type, or the index of a type."""
        if cursor.kind == WORD:
            found = _HEAPS.get(cursor.text)
            if found is not None:
                cursor.pos += 1
                return found
        if cursor.at_index():
            return self.names.types.index(cursor)
        raise cursor.unexpected("a heap type")

    # -- definitions -------------------------------------------------------------------------------------

    def group(self, cursor: Cursor) -> None:
        """`(rec ...)` or one `(type ...)`, behind the keyword; names have been collected before."""
        first = len(self.module.types)
        if cursor.tokens.text(cursor.pos - 1) == b"rec":
            while cursor.take_form(b"type"):
                self._definition(cursor)
                cursor.right()
        else:
            self._definition(cursor)
        made = self.module.types[first:]
        self.module.groups.append(len(made))
        if (
            len(made) == 1
            and isinstance(made[0].composite, FuncType)
            and made[0].final
            and not made[0].supers
        ):
            self._alone.setdefault(made[0].composite, first)

    def _definition(self, cursor: Cursor) -> None:
        cursor.take_id()
        index = len(self.module.types)
        if not cursor.take_form(b"sub"):
            self.module.types.append(SubType(self._composite(cursor, index)))
            return
        final = cursor.take_word(b"final")
        supers = []
        while cursor.at_index():
            supers.append(self.names.types.index(cursor))
        composite = self._composite(cursor, index)
        cursor.right()
        self.module.types.append(SubType(composite, final, tuple(supers)))

    def _composite(self, cursor: Cursor, index: int) -> CompType:
        word = cursor.take_form(b"func", b"struct", b"array")
        composite: CompType
        if word == b"func":
            composite = self.signature(cursor, None)
        elif word == b"struct":
            composite = StructType(tuple(self._fields(cursor, index)))
        elif word == b"array":
            composite = ArrayType(self._field(cursor))
        else:
            raise cursor.unexpected("(func, (struct or (array")
        cursor.right()
        return composite

    def _fields(self, cursor: Cursor, index: int) -> list[FieldType]:
        fields: list[FieldType] = []
        space = self.names.fields.setdefault(index, self.names.space("field"))
        while cursor.take_form(b"field"):
            name = cursor.take_id()
            if name is not None:
                space.add(cursor, name)
                fields.append(self._field(cursor))
            else:
                while cursor.kind != RIGHT:
                    space.add(cursor, None)
                    fields.append(self._field(cursor))
            cursor.right()
        return fields

    def _field(self, cursor: Cursor) -> FieldType:
        if cursor.take_form(b"mut"):
            found = FieldType(self._storage(cursor), True)
            cursor.right()
            return found
        return FieldType(self._storage(cursor))

    def _storage(self, cursor: Cursor) -> ValType:
        if cursor.kind == WORD and cursor.text in _PACKED:
            found = _PACKED[cursor.text]
            cursor.pos += 1
            return found
        return self.valtype(cursor)

    # -- signatures and type uses ------------------------------------------------------------------------

    def signature(self, cursor: Cursor, params: Space | None, named: bool = True) -> FuncType:
        """`(param ...)* (result ...)*`; names of parameters go to `params`."""
        taken: list[ValType] = []
        while cursor.take_form(b"param"):
            name = cursor.take_id() if named else None
            if name is not None:
                if params is not None:
                    params.add(cursor, name)
                taken.append(self.valtype(cursor))
            else:
                while cursor.kind != RIGHT:
                    if params is not None:
                        params.add(cursor, None)
                    taken.append(self.valtype(cursor))
            cursor.right()
        return FuncType(tuple(taken), self.results(cursor))

    def results(self, cursor: Cursor) -> tuple[ValType, ...]:
        """`(result ...)*`."""
        found: list[ValType] = []
        while cursor.take_form(b"result"):
            while cursor.kind != RIGHT:
                found.append(self.valtype(cursor))
            cursor.right()
        return tuple(found)

    def use(self, cursor: Cursor, params: Space | None = None, named: bool = True) -> int:
        """A type use: a type by index, a signature, or both, which must then agree."""
        given = self._given(cursor)
        at = cursor.pos
        type_ = self.signature(cursor, params, named)
        if given is None:
            return self.alone(type_)
        self._agree(cursor, given, type_, at)
        if params is not None and params.count == 0:
            found = self._func(given)
            for _ in found.params if found is not None else ():
                params.add(cursor, None)
        return given

    def block(self, cursor: Cursor) -> ValType | int | None:
        """A block type: nothing, one result, or a type use without names."""
        given = self._given(cursor)
        at = cursor.pos
        type_ = self.signature(cursor, None, named=False)
        if given is not None:
            self._agree(cursor, given, type_, at)
            return given
        if type_.params or len(type_.results) > 1:
            return self.alone(type_)
        return type_.results[0] if type_.results else None

    def _given(self, cursor: Cursor) -> int | None:
        if not cursor.take_form(b"type"):
            return None
        index = self.names.types.index(cursor)
        cursor.right()
        return index

    def _func(self, index: int) -> FuncType | None:
        if index >= len(self.module.types):
            return None
        composite = self.module.types[index].composite
        return composite if isinstance(composite, FuncType) else None

    def _agree(self, cursor: Cursor, index: int, written: FuncType, at: int) -> None:
        if cursor.at_form(b"type", b"param", b"result"):
            raise cursor.unexpected("the parts of a type use in their order")
        if written == FuncType():
            return
        if index >= len(self.module.types):
            raise cursor.fail(f"unknown type {index}", at)
        if self._func(index) != written:
            raise cursor.fail("inline function type does not match the type it names", at)

    def alone(self, type_: FuncType) -> int:
        """The index of a function type: of the first that equals it, else of a new one behind all others."""
        found = self._alone.get(type_)
        if found is None:
            found = self._alone[type_] = len(self.module.types)
            self.module.types.append(SubType(type_))
            self.module.groups.append(1)
        return found

    # -- types of externs ----------------------------------------------------------------------------------

    def address(self, cursor: Cursor) -> NumType:
        """`i32` or `i64` where one is written, else i32."""
        if cursor.take_word(b"i64"):
            return I64
        cursor.take_word(b"i32")
        return I32

    def limits(self, cursor: Cursor) -> Limits:
        """A minimum and perhaps a maximum. What addresses can reach is for validation to say."""
        least = cursor.unsigned(64)
        return Limits(least, cursor.unsigned(64) if cursor.at_number() else None)

    def memory(self, cursor: Cursor) -> MemoryType:
        """The type of a memory."""
        address = self.address(cursor)
        return MemoryType(self.limits(cursor), address)

    def table(self, cursor: Cursor) -> TableType:
        """The type of a table."""
        address = self.address(cursor)
        limits = self.limits(cursor)
        return TableType(self.reftype(cursor), limits, address)

    def global_(self, cursor: Cursor) -> GlobalType:
        """The type of a global."""
        if cursor.take_form(b"mut"):
            found = GlobalType(self.valtype(cursor), True)
            cursor.right()
            return found
        return GlobalType(self.valtype(cursor))
