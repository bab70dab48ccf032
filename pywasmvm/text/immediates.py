"""Immediates of instructions in text: one reader for each kind, and the abbreviations of some instructions.

What is read is in the order of the binary format, which is what the columns of `Code` hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.isa import Imm, Opcode
from pywasmvm.syntax import Catch, MemArg
from pywasmvm.text import literals
from pywasmvm.text.cursor import Cursor
from pywasmvm.text.lexer import ID, WORD
from pywasmvm.text.names import Labels, Names, Space
from pywasmvm.text.types import TypeReader

#: Lanes of a v128 constant: how many, how wide, and whether they are integers.
_SHAPES = {
    b"i8x16": (16, 8, True),
    b"i16x8": (8, 16, True),
    b"i32x4": (4, 32, True),
    b"i64x2": (2, 64, True),
    b"f32x4": (4, 32, False),
    b"f64x2": (2, 64, False),
}


def v128(cursor: Cursor) -> int:
    """A shape and its lanes."""
    shape = _SHAPES.get(cursor.text) if cursor.kind == WORD else None
    if shape is None:
        raise cursor.unexpected("a shape such as i32x4")
    cursor.pos += 1
    count, bits, integer = shape
    value = 0
    kinds = cursor.kinds[cursor.pos : min(cursor.pos + count, cursor.end)]
    if kinds.count(WORD) < count:
        raise cursor.fail(f"wrong number of lane literals: {kinds.count(WORD)} of {count}")
    for lane in range(count):
        if not literals.is_number(cursor.text.decode()):
            raise cursor.unexpected("a number")
        if integer:
            found = cursor.integer(bits)
        else:
            found = float_bits(cursor.float(bits), bits)
        value |= found << lane * bits
    if cursor.at_number():
        raise cursor.fail("wrong number of lane literals: unexpected token")
    return value


def float_bits(value: float, bits: int) -> int:
    """The bit pattern of a float constant."""
    from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits

    return f32_to_bits(value) if bits == 32 else f64_to_bits(value)


class ImmediateReader:
    """Reads the immediates of instructions of one function or expression.

    `locals` and `labels` are what is in scope; constant expressions have none.
    """

    def __init__(self, types: TypeReader, names: Names) -> None:
        self.types, self.names = types, names
        self.locals = names.space("local")
        self.labels = Labels()

    def read(self, cursor: Cursor, opcode: Opcode) -> Any:
        """All immediates of an instruction whose word has been taken."""
        kinds = opcode.immediates
        if not kinds:
            return None
        special = _SPECIAL.get(kinds)
        if special is not None:
            return special(self, cursor, opcode)
        if len(kinds) == 1:
            return _READERS[kinds[0]](self, cursor)
        return tuple([_READERS[kind](self, cursor) for kind in kinds])

    # -- one kind each -----------------------------------------------------------------------------------

    def label(self, cursor: Cursor) -> int:
        """A label."""
        if not cursor.at_index():
            raise cursor.unexpected("a label")
        return self.labels.index(cursor)

    def table_of_labels(self, cursor: Cursor) -> tuple[int, ...]:
        """Labels of a br_table, the default one last."""
        found = [self.label(cursor)]
        while cursor.at_index():
            found.append(self.labels.index(cursor))
        return tuple(found)

    def index(self, cursor: Cursor, space: Space) -> int:
        """An index into a space."""
        if not cursor.at_index():
            raise cursor.unexpected(f"a {space.what}")
        return space.index(cursor)

    def data(self, cursor: Cursor) -> int:
        """A data segment."""
        self.names.uses_data = True
        return self.index(cursor, self.names.data)

    def optional(self, cursor: Cursor, space: Space) -> int:
        """An index that may be left out, and then is 0."""
        return space.index(cursor) if cursor.at_index() else 0

    def memarg(self, cursor: Cursor, opcode: Opcode) -> MemArg:
        """`offset=` and `align=`, each optional, behind an optional memory."""
        memory = 0
        if cursor.kind == ID or (cursor.at_number() and self._memory_comes_first(cursor, opcode)):
            memory = self.names.memories.index(cursor)
        offset = self._part(cursor, b"offset=", 64)
        align = self._part(cursor, b"align=", 64)
        if align is not None and (align == 0 or align & align - 1):
            raise cursor.fail("alignment must be a power of two", cursor.pos - 1)
        access = opcode.access
        natural = access.natural_alignment if access is not None else 0
        exponent = natural if align is None else align.bit_length() - 1
        return MemArg(exponent, offset or 0, memory)

    def _memory_comes_first(self, cursor: Cursor, opcode: Opcode) -> bool:
        """A single number is the lane, where the instruction has one."""
        if Imm.LANE not in opcode.immediates:
            return True
        following = Cursor(cursor.tokens, cursor.pos + 1, cursor.end)
        word = following.text if following.kind == WORD else b""
        return following.at_number() or word.startswith((b"offset=", b"align="))

    def _part(self, cursor: Cursor, start: bytes, bits: int) -> int | None:
        if cursor.kind != WORD or not cursor.text.startswith(start):
            return None
        text = cursor.text[len(start) :].decode()
        try:
            value = literals.unsigned(text, bits)
        except ValueError as error:
            raise cursor.fail(str(error)) from None
        cursor.pos += 1
        return value

    def lane(self, cursor: Cursor) -> int:
        """A lane: a byte here, its range is checked later."""
        at = cursor.pos
        if cursor.kind == WORD and cursor.text[:1] in b"+-":
            raise cursor.unexpected("a lane without sign")
        value = cursor.unsigned(32)
        if value > 255:
            raise cursor.fail(f"i8 constant out of range: lane {value}", at)
        return value

    def lanes(self, cursor: Cursor) -> bytes:
        """The sixteen lanes of a shuffle."""
        found = []
        while cursor.kind == WORD and literals.is_number(cursor.text.decode()):
            if not cursor.at_number() or not literals.is_integer(cursor.text.decode()):
                raise cursor.fail("i8 constant out of range: a lane is a number from 0 to 31")
            found.append(self.lane(cursor))
        if len(found) != 16:
            raise cursor.fail(f"invalid lane length: {len(found)} lanes instead of 16")
        return bytes(found)

    def catches(self, cursor: Cursor) -> tuple[Catch, ...]:
        """The clauses of a try_table; their labels count from outside of it."""
        found = []
        while kind := cursor.take_form(b"catch", b"catch_ref", b"catch_all", b"catch_all_ref"):
            tag = None if kind.startswith(b"catch_all") else self.index(cursor, self.names.tags)
            found.append(Catch(kind.decode(), tag, self.label(cursor)))
            cursor.right()
        return tuple(found)

    # -- abbreviations -----------------------------------------------------------------------------------

    def two_of(self, cursor: Cursor, space: Space) -> tuple[int, int]:
        """Two indices, or none for 0 and 0."""
        if not cursor.at_index():
            return 0, 0
        first = space.index(cursor)
        return first, self.index(cursor, space)

    def segment(self, cursor: Cursor, target: Space, segments: Space) -> tuple[int, int]:
        """A segment, before it the memory or table unless that is 0."""
        if not cursor.at_index():
            raise cursor.unexpected(f"a {segments.what}")
        after = Cursor(cursor.tokens, cursor.pos + 1, cursor.end)
        place = target.index(cursor) if after.at_index() else 0
        self.names.uses_data |= segments is self.names.data
        return segments.index(cursor), place

    def field(self, cursor: Cursor) -> tuple[int, int]:
        """A struct type and one of its fields."""
        type_ = self.index(cursor, self.names.types)
        return type_, self.index(cursor, self.names.fields.get(type_) or self.names.space("field"))

    def cast(self, cursor: Cursor) -> tuple[int, Any, Any]:
        """A label and two reference types."""
        return self.label(cursor), self.types.reftype(cursor), self.types.reftype(cursor)

    def through_table(self, cursor: Cursor) -> tuple[int, int]:
        """A table unless it is 0, and a type use."""
        table = self.optional(cursor, self.names.tables)
        return self.types.use(cursor, named=False), table


Reader = Callable[[ImmediateReader, Cursor], Any]

_READERS: dict[Imm, Reader] = {
    Imm.BLOCKTYPE: lambda r, c: r.types.block(c),
    Imm.LABEL: lambda r, c: r.label(c),
    Imm.LABELS: lambda r, c: r.table_of_labels(c),
    Imm.FUNC: lambda r, c: r.index(c, r.names.funcs),
    Imm.TYPE: lambda r, c: r.index(c, r.names.types),
    Imm.TABLE: lambda r, c: r.optional(c, r.names.tables),
    Imm.ELEM: lambda r, c: r.index(c, r.names.elems),
    Imm.MEMORY: lambda r, c: r.optional(c, r.names.memories),
    Imm.DATA: lambda r, c: r.data(c),
    Imm.LOCAL: lambda r, c: r.index(c, r.locals),
    Imm.GLOBAL: lambda r, c: r.index(c, r.names.globals),
    Imm.I32: lambda r, c: c.integer(32),
    Imm.I64: lambda r, c: c.integer(64),
    Imm.F32: lambda r, c: c.float(32),
    Imm.F64: lambda r, c: c.float(64),
    Imm.V128: lambda r, c: v128(c),
    Imm.VALTYPES: lambda r, c: r.types.results(c),
    Imm.HEAPTYPE: lambda r, c: r.types.heaptype(c),
    Imm.REF: lambda r, c: r.types.reftype(c),
    Imm.REFNULL: lambda r, c: r.types.reftype(c),
    Imm.CAST: lambda r, c: r.cast(c),
    Imm.TAG: lambda r, c: r.index(c, r.names.tags),
    Imm.CATCHES: lambda r, c: r.catches(c),
    Imm.COUNT: lambda r, c: c.unsigned(),
    Imm.LANE: lambda r, c: r.lane(c),
    Imm.LANES: lambda r, c: r.lanes(c),
}

#: Instructions whose immediates depend on each other, or stand in another order than in the binary format.
_SPECIAL: dict[tuple[Imm, ...], Callable[[ImmediateReader, Cursor, Opcode], Any]] = {
    (Imm.MEMARG,): lambda r, c, op: r.memarg(c, op),
    (Imm.MEMARG, Imm.LANE): lambda r, c, op: (r.memarg(c, op), r.lane(c)),
    (Imm.MEMORY, Imm.MEMORY): lambda r, c, op: r.two_of(c, r.names.memories),
    (Imm.TABLE, Imm.TABLE): lambda r, c, op: r.two_of(c, r.names.tables),
    (Imm.DATA, Imm.MEMORY): lambda r, c, op: r.segment(c, r.names.memories, r.names.data),
    (Imm.ELEM, Imm.TABLE): lambda r, c, op: r.segment(c, r.names.tables, r.names.elems),
    (Imm.TYPE, Imm.TABLE): lambda r, c, op: r.through_table(c),
    (Imm.TYPE, Imm.FIELD): lambda r, c, op: r.field(c),
}

#: Kinds a reader exists for; the completeness test asks.
READ = frozenset(_READERS) | frozenset(kind for kinds in _SPECIAL for kind in kinds)
