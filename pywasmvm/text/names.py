"""Identifiers and the index spaces they name (spec: Text Format, Identifier Contexts)."""

from __future__ import annotations

from pywasmvm.text.cursor import Cursor
from pywasmvm.text.lexer import ID


class Space:
    """One index space: how many things it has, and the names of some of them.

    `annotated` are the names that annotations give, by the token they stand before.
    """

    __slots__ = ("_annotated", "_shown", "count", "names", "what")

    def __init__(self, what: str, annotated: dict[int, str]) -> None:
        self.what, self.count = what, 0
        self.names: dict[bytes, int] = {}
        self._annotated = annotated
        self._shown: dict[int, str] = {}

    def add(self, cursor: Cursor, name: bytes | None) -> int:
        """One more thing, whose identifier has just been read; its index.

        Raises MalformedError for an identifier that is taken.
        """
        index = self.count
        if self._annotated and cursor.pos in self._annotated:
            self._shown[index] = self._annotated.pop(cursor.pos)
        if name is not None:
            if name in self.names:
                raise cursor.fail(f"duplicate {self.what} ${name.decode()}", cursor.pos - 1)
            self.names[name] = index
        self.count += 1
        return index

    def index(self, cursor: Cursor) -> int:
        """Read an index: a number, or an identifier that must be bound."""
        if cursor.kind != ID:
            return cursor.unsigned()
        name = cursor.tokens.identifier(cursor.pos)
        found = self.names.get(name)
        if found is None:
            raise cursor.fail(f"unknown {self.what} ${name.decode()}")
        cursor.pos += 1
        return found

    def by_index(self) -> dict[int, str]:
        """The names by index, for the name section; an annotation has the last word."""
        return {index: name.decode() for name, index in self.names.items()} | self._shown


class Labels:
    """The labels of a function: those that are in scope, and the names of all there were.

    The same name may occur again further in. Blocks are numbered in the order of their instructions.
    """

    __slots__ = ("_depths", "_open", "count", "names")

    def __init__(self) -> None:
        self._open: list[bytes | None] = []
        # Where the open labels of one name stand, innermost last: blocks may nest very deeply.
        self._depths: dict[bytes, list[int]] = {}
        self.count = 0
        self.names: dict[int, str] = {}

    def enter(self, name: bytes | None, shown: str | None = None) -> None:
        """A block begins; `shown` is the name that an annotation gives it."""
        if name is not None:
            self._depths.setdefault(name, []).append(len(self._open))
            self.names[self.count] = name.decode()
        if shown is not None:
            self.names[self.count] = shown
        self._open.append(name)
        self.count += 1

    def leave(self) -> None:
        """The innermost block ends."""
        name = self._open.pop()
        if name is not None:
            self._depths[name].pop()

    def index(self, cursor: Cursor) -> int:
        """Read a label: a number of blocks outwards, or the innermost with this name."""
        if cursor.kind != ID:
            return cursor.unsigned()
        wanted = cursor.tokens.identifier(cursor.pos)
        depths = self._depths.get(wanted)
        if not depths:
            raise cursor.fail(f"unknown label ${wanted.decode()}")
        cursor.pos += 1
        return len(self._open) - 1 - depths[-1]


class Names:
    """All index spaces of a module.

    `annotated` and `hints` are names and branch hints that annotations give, by the token they stand before;
    who uses one takes it out.
    """

    def __init__(self, annotated: dict[int, str], hints: dict[int, bytes]) -> None:
        self.annotated, self.hints = annotated, hints
        self.module: str | None = None
        #: What was defined first, as messages call it: no import may follow.
        self.defined: str | None = None
        #: Whether code names a data segment: then the binary has to announce how many there are.
        self.uses_data = False
        self.types = self.space("type")
        self.funcs = self.space("func")
        self.tables = self.space("table")
        self.memories = self.space("memory")
        self.globals = self.space("global")
        self.tags = self.space("tag")
        self.elems = self.space("elem segment")
        self.data = self.space("data segment")
        #: Fields of struct types, locals and labels of functions, by the index of their owner.
        self.fields: dict[int, Space] = {}
        self.locals: dict[int, Space] = {}
        self.labels: dict[int, dict[int, str]] = {}

    def space(self, what: str) -> Space:
        """An empty index space."""
        return Space(what, self.annotated)
