"""Identifiers and the index spaces they name (spec: Text Format, Identifier Contexts)."""

from __future__ import annotations

from pywasmvm.text.cursor import Cursor
from pywasmvm.text.lexer import ID


class Space:
    """One index space: how many things it has, and the names of some of them."""

    __slots__ = ("count", "names", "what")

    def __init__(self, what: str) -> None:
        self.what, self.count = what, 0
        self.names: dict[bytes, int] = {}

    def add(self, cursor: Cursor, name: bytes | None) -> int:
        """One more thing; its index. Raises MalformedError for a name that is taken."""
        index = self.count
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
        """The names by index, for the name section."""
        return {index: name.decode() for name, index in self.names.items()}


class Labels:
    """The labels that are open, innermost last; the same name may occur again further in."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: list[bytes | None] = []

    def index(self, cursor: Cursor) -> int:
        """Read a label: a number of blocks outwards, or the innermost with this name."""
        if cursor.kind != ID:
            return cursor.unsigned()
        wanted = cursor.tokens.identifier(cursor.pos)
        for depth, name in enumerate(reversed(self.names)):
            if name == wanted:
                cursor.pos += 1
                return depth
        raise cursor.fail(f"unknown label ${wanted.decode()}")


class Names:
    """All index spaces of a module."""

    def __init__(self) -> None:
        self.module: bytes | None = None
        #: What was defined first, as messages call it: no import may follow.
        self.defined: str | None = None
        self.types = Space("type")
        self.funcs = Space("func")
        self.tables = Space("table")
        self.memories = Space("memory")
        self.globals = Space("global")
        self.tags = Space("tag")
        self.elems = Space("elem segment")
        self.data = Space("data segment")
        #: Fields of struct types and locals of functions, by the index of their owner.
        self.fields: dict[int, Space] = {}
        self.locals: dict[int, Space] = {}
