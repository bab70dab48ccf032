"""Instruction sequences in text, plain and folded, to columns (spec: Text Format, Instructions).

Folded instructions may nest as deeply as a file is long, so what is open is kept on a list of our own and not
on Python's stack.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

from pywasmvm.errors import InvalidError
from pywasmvm.isa import ROWS, Imm, Opcode, op
from pywasmvm.syntax import Code, Immediate
from pywasmvm.text.annotations import HINTED
from pywasmvm.text.cursor import Cursor
from pywasmvm.text.immediates import ImmediateReader
from pywasmvm.text.lexer import LEFT, RIGHT, WORD, position
from pywasmvm.text.names import Names, Space
from pywasmvm.text.types import TypeReader
from pywasmvm.types import ValType

_BLOCKS = frozenset({b"block", b"loop", b"if", b"try_table"})
_IF, _ELSE, _END = op("if"), op("else"), op("end")


def _rows() -> dict[bytes, list[Opcode]]:
    found: dict[bytes, list[Opcode]] = {}
    for opcode in ROWS:
        found.setdefault(opcode.name.encode(), []).append(opcode)
    return found


#: Rows by their word; three words have two rows each.
_BY_WORD = _rows()


@dataclass(slots=True)
class _Open:
    """Something that is not complete yet.

    `kind` is `plain` (a block up to its `end`), `block` (one up to its parenthesis), `if` (folded, before its
    `then`), `arms` (between and after the arms of a folded if), `arm`, or `folded` (an instruction whose
    operands are being read). `opcode`, `immediate` and `offset` wait to be written.
    """

    kind: str
    opcode: Opcode
    immediate: Immediate
    offset: int
    label: bytes | None = None
    shown: str | None = None
    hint: bytes | None = None
    has_else: bool = False


class CodeReader:
    """Reads the body of one function, or one constant expression."""

    def __init__(self, types: TypeReader, names: Names, features: frozenset[str]) -> None:
        self.immediates = ImmediateReader(types, names)
        self.features = features
        self.ops: list[Opcode] = []
        self.values: list[Immediate] = []
        self.offsets = array("Q")
        self.opened: list[_Open] = []
        #: Branch hints to take out by the token they stand before; the numbers of instructions that have one.
        self._hints: dict[int, bytes] = {}
        self.hinted: list[tuple[int, bytes]] = []

    def body(self, cursor: Cursor, locals_: Space) -> Code:
        """Locals and instructions up to the parenthesis that closes the function."""
        self.immediates.locals = locals_
        self._hints = self.immediates.names.hints
        runs: list[tuple[int, ValType]] = []
        while cursor.take_form(b"local"):
            name = cursor.take_id()
            while name is not None or cursor.kind != RIGHT:
                locals_.add(cursor, name)
                type_ = self.immediates.types.valtype(cursor)
                if runs and runs[-1][1] == type_:
                    runs[-1] = (runs[-1][0] + 1, type_)
                else:
                    runs.append((1, type_))
                if name is not None:
                    break
            cursor.right()
        self._sequence(cursor)
        return self._code(cursor, tuple(runs))

    def expression(self, cursor: Cursor) -> Code:
        """Instructions up to the parenthesis that closes what they stand in."""
        self._sequence(cursor)
        return self._code(cursor, ())

    def single(self, cursor: Cursor) -> Code:
        """One folded instruction: the abbreviation of an expression."""
        if cursor.kind != LEFT:
            raise cursor.unexpected("(")
        self._left(cursor)
        while self.opened:
            self._next(cursor)
        return self._code(cursor, ())

    def _code(self, cursor: Cursor, runs: tuple[tuple[int, ValType], ...]) -> Code:
        self._emit(_END, None, cursor.tokens.offset(cursor.pos))
        return Code(runs, self.ops, self.values, self.offsets)

    def _emit(self, opcode: Opcode, immediate: Immediate, offset: int, hint: bytes | None = None) -> None:
        if hint is not None:
            self.hinted.append((len(self.ops), hint))
        self.ops.append(opcode)
        self.values.append(immediate)
        self.offsets.append(offset)

    # -- sequences -----------------------------------------------------------------------------------------

    def _sequence(self, cursor: Cursor) -> None:
        while cursor.kind != RIGHT or self.opened:
            if cursor.kind < 0 and not self.opened:
                return
            self._next(cursor)

    def _next(self, cursor: Cursor) -> None:
        kind = cursor.kind
        if kind == WORD:
            if self.opened and self.opened[-1].kind in ("folded", "if", "arms"):
                raise cursor.unexpected("( or )")
            self._word(cursor)
        elif kind == LEFT:
            self._left(cursor)
        elif kind == RIGHT and self.opened and self.opened[-1].kind != "plain":
            self._right(cursor)
        else:
            raise cursor.unexpected("an instruction")

    def _word(self, cursor: Cursor) -> None:
        """A plain instruction."""
        text, offset = cursor.text, cursor.tokens.offset(cursor.pos)
        hint = self._hint(cursor, cursor.pos) if self._hints else None
        if text in _BLOCKS:
            opened = self._header(cursor, "plain")
            self._emit(opened.opcode, opened.immediate, offset, hint)
            self._open(opened)
        elif text == b"end":
            opened = self._innermost(cursor)
            cursor.pos += 1
            self._same_label(cursor, opened)
            self._emit(_END, None, offset)
            self._close()
        elif text == b"else":
            opened = self._innermost(cursor)
            if opened.opcode is not _IF or opened.has_else:
                raise cursor.unexpected("an instruction")
            cursor.pos += 1
            self._same_label(cursor, opened)
            opened.has_else = True
            self._emit(_ELSE, None, offset)
        else:
            opcode, immediate = self._instruction(cursor)
            self._emit(opcode, immediate, offset, hint)

    def _hint(self, cursor: Cursor, before: int) -> bytes | None:
        """The hint that stands before a token, where the cursor is at the word of the instruction."""
        hint = self._hints.pop(before, None)
        if hint is not None and cursor.text.decode() not in HINTED:
            offset = cursor.tokens.offset(cursor.pos)
            line, column = position(cursor.source, offset)
            message = "@metadata.code.branch_hint annotation: invalid target"
            raise InvalidError(message, None, offset, cursor.text.decode(), line, column)
        return hint

    def _innermost(self, cursor: Cursor) -> _Open:
        if not self.opened or self.opened[-1].kind != "plain":
            raise cursor.unexpected("an instruction")
        return self.opened[-1]

    def _left(self, cursor: Cursor) -> None:
        """A folded instruction, or an arm of a folded if."""
        cursor.left()
        offset = cursor.tokens.offset(cursor.pos)
        if cursor.kind != WORD:
            raise cursor.unexpected("an instruction")
        text = cursor.text
        hint = self._hint(cursor, cursor.pos - 1) if self._hints else None
        inside = self.opened[-1].kind if self.opened else ""
        if inside == "if" and text == b"then":
            condition = self.opened[-1]
            cursor.pos += 1
            self._emit(condition.opcode, condition.immediate, condition.offset, condition.hint)
            self.immediates.labels.enter(condition.label, condition.shown)
            condition.kind = "arms"
            self.opened.append(_Open("arm", _END, None, offset))
        elif inside == "arms":
            arms = self.opened[-1]
            if text != b"else" or arms.has_else:
                raise cursor.unexpected(")")
            cursor.pos += 1
            arms.has_else = True
            self._emit(_ELSE, None, offset)
            self.opened.append(_Open("arm", _END, None, offset))
        elif text == b"if":
            self.opened.append(self._header(cursor, "if"))
            self.opened[-1].hint = hint
        elif text in _BLOCKS:
            opened = self._header(cursor, "block")
            self._emit(opened.opcode, opened.immediate, offset)
            self._open(opened)
        else:
            if text in (b"then", b"else", b"end"):
                raise cursor.unexpected("an instruction")
            opcode, immediate = self._instruction(cursor)
            self.opened.append(_Open("folded", opcode, immediate, offset, hint=hint))

    def _right(self, cursor: Cursor) -> None:
        opened = self.opened[-1]
        if opened.kind == "if":
            raise cursor.unexpected("(then")
        if opened.kind == "folded":
            self._emit(opened.opcode, opened.immediate, opened.offset, opened.hint)
            self.opened.pop()
        elif opened.kind == "arm":
            self.opened.pop()
        else:
            self._emit(_END, None, cursor.tokens.offset(cursor.pos))
            self._close()
        cursor.pos += 1

    # -- blocks ----------------------------------------------------------------------------------------------

    def _header(self, cursor: Cursor, kind: str) -> _Open:
        """The word of a block, its label and its type."""
        offset = cursor.tokens.offset(cursor.pos)
        opcode = self._row(cursor, cursor.text)[0]
        cursor.pos += 1
        label = cursor.take_id()
        annotated = self.immediates.names.annotated
        shown = annotated.pop(cursor.pos, None) if annotated else None
        return _Open(kind, opcode, self.immediates.read(cursor, opcode), offset, label, shown)

    def _open(self, opened: _Open) -> None:
        self.opened.append(opened)
        self.immediates.labels.enter(opened.label, opened.shown)

    def _close(self) -> None:
        self.opened.pop()
        self.immediates.labels.leave()

    def _same_label(self, cursor: Cursor, opened: _Open) -> None:
        """The name that may stand behind `else` and `end` is that of the block."""
        at = cursor.pos
        name = cursor.take_id()
        if name is not None and name != opened.label:
            raise cursor.fail("mismatching label", at)

    # -- instructions ------------------------------------------------------------------------------------

    def _row(self, cursor: Cursor, word: bytes) -> list[Opcode]:
        rows = _BY_WORD.get(word)
        if rows is None:
            raise cursor.unexpected("an instruction")
        if rows[0].feature not in self.features:
            raise cursor.fail(f"unknown operator {word.decode()}")
        return rows

    def _instruction(self, cursor: Cursor) -> tuple[Opcode, Any]:
        """A word and its immediates."""
        rows = self._row(cursor, cursor.text)
        cursor.pos += 1
        opcode = rows[0]
        if len(rows) == 1:
            return opcode, self.immediates.read(cursor, opcode)
        if opcode.name == "select":
            if not cursor.at_form(b"result"):
                return opcode, None
            return rows[1], self.immediates.read(cursor, rows[1])
        # A cast has one row for each nullability of its type.
        wanted = self.immediates.types.reftype(cursor)
        kind = Imm.REFNULL if wanted.nullable else Imm.REF
        return next(row for row in rows if row.immediates == (kind,)), wanted
