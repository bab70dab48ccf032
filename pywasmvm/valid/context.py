"""The typing context of a module: its index spaces, imports first (spec: Validation, Conventions)."""

from __future__ import annotations

from typing import TypeVar

from pywasmvm.errors import InvalidError
from pywasmvm.syntax import Elem, ModuleSyntax
from pywasmvm.types import FuncType, GlobalType, MemoryType, TableType

T = TypeVar("T")


class Context:
    """Index spaces and the look-ups rules make in them; an index out of range is `unknown ...`."""

    def __init__(self, module: ModuleSyntax) -> None:
        self.module = module
        self.types = module.types
        self.functions: list[FuncType] = []
        self.tables: list[TableType] = []
        self.memories: list[MemoryType] = []
        self.globals: list[GlobalType] = []
        self.elems: list[Elem] = module.elems
        self.data_count = len(module.data)
        #: Functions that `ref.func` in code may name: those that occur outside of function bodies.
        self.declared: set[int] = set()
        for entry in module.imports:
            if isinstance(entry.type, FuncType):
                self.type(entry.type_index)
                self.functions.append(entry.type)
            elif isinstance(entry.type, TableType):
                self.tables.append(entry.type)
            elif isinstance(entry.type, MemoryType):
                self.memories.append(entry.type)
            else:
                self.globals.append(entry.type)
        self.imported_functions = len(self.functions)
        self.imported_globals = len(self.globals)
        self.functions += [self.type(index) for index in module.functions]
        self.tables += [table.type for table in module.tables]
        self.memories += module.memories
        self.globals += [entry.type for entry in module.globals]

    @staticmethod
    def _get(space: list[T], index: int, what: str) -> T:
        if index >= len(space):
            raise InvalidError(f"unknown {what} {index}")
        return space[index]

    def type(self, index: int) -> FuncType:
        """The function type with this index."""
        return self._get(self.types, index, "type")

    def function(self, index: int) -> FuncType:
        """The type of a function."""
        return self._get(self.functions, index, "function")

    def table(self, index: int) -> TableType:
        """The type of a table."""
        return self._get(self.tables, index, "table")

    def memory(self, index: int) -> MemoryType:
        """The type of a memory."""
        return self._get(self.memories, index, "memory")

    def global_(self, index: int) -> GlobalType:
        """The type of a global."""
        return self._get(self.globals, index, "global")

    def elem(self, index: int) -> Elem:
        """An element segment."""
        return self._get(self.elems, index, "elem segment")

    def data(self, index: int) -> None:
        """Check that a data segment exists."""
        if index >= self.data_count:
            raise InvalidError(f"unknown data segment {index}")
