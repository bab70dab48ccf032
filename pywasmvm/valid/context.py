"""The typing context of a module: its index spaces, imports first (spec: Validation, Conventions).

Types stand here closed: every index in a type as written has become the canonical `DefType` it names.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TypeVar

from pywasmvm.errors import InvalidError
from pywasmvm.matching import close, close_types
from pywasmvm.syntax import ModuleSyntax
from pywasmvm.types import (
    ArrayType,
    DefType,
    FuncType,
    GlobalType,
    HeapType,
    MemoryType,
    RefType,
    StructType,
    TableType,
    ValType,
)

T = TypeVar("T")

_EMPTY = FuncType()

#: How many operands an instruction takes, their types, and that of its result, if it has one.
Shape = tuple[int, tuple[ValType, ...], ValType | None]


class Context:
    """Index spaces and the look-ups rules make in them; an index out of range is `unknown ...`.

    Raises InvalidError where a type refers to something that is not there.
    """

    def __init__(self, module: ModuleSyntax) -> None:
        self.module = module
        self.types: list[DefType] = close_types(module.types, module.groups)
        self._block_types: dict[object, FuncType] = {None: _EMPTY}
        self.functions: list[DefType] = []
        self.tables: list[TableType] = []
        self.memories: list[MemoryType] = []
        self.tags: list[DefType] = []
        self.globals: list[GlobalType] = []
        self.data_count = len(module.data)
        #: Functions that `ref.func` in code may name: those that occur outside of function bodies.
        self.declared: set[int] = set()
        for entry in module.imports:
            if isinstance(entry.type, int):
                (self.functions if entry.kind == "func" else self.tags).append(self.func_type(entry.type))
            elif isinstance(entry.type, TableType):
                self.tables.append(self._table_type(entry.type))
            elif isinstance(entry.type, MemoryType):
                self.memories.append(entry.type)
            else:
                self.globals.append(self._global_type(entry.type))
        self.imported_functions = len(self.functions)
        self.imported_tables = len(self.tables)
        self.imported_memories = len(self.memories)
        self.imported_tags = len(self.tags)
        self.imported_globals = len(self.globals)
        self.functions += [self.func_type(index) for index in module.functions]
        self.tables += [self._table_type(table.type) for table in module.tables]
        self.memories += module.memories
        self.tags += [self.func_type(index) for index in module.tags]
        self.globals += [self._global_type(entry.type) for entry in module.globals]
        #: The element types of the segments.
        self.elems: list[RefType] = [self.close_ref(elem.type) for elem in module.elems]
        #: The address type of the first memory, if there is one.
        self.address = self.memories[0].address if self.memories else None
        #: Shapes that rules have found, by opcode and immediate: see `CodeValidator.run`.
        self.shapes: defaultdict[object, dict[object, Shape]] = defaultdict(dict)

    # -- closing types -------------------------------------------------------------------------------

    def close(self, type_: ValType) -> ValType:
        """A value type as written, with its type index resolved."""
        return close(type_, self.types)

    def close_ref(self, type_: RefType) -> RefType:
        """`close`, of a reference type."""
        closed = close(type_, self.types)
        if not isinstance(closed, RefType):
            raise TypeError(f"{type_} is not a reference type")
        return closed

    def heap(self, heap: HeapType | DefType | int) -> HeapType | DefType:
        """A heap type as written, with its type index resolved."""
        return self.type(heap) if isinstance(heap, int) else heap

    def block_type(self, immediate: object) -> FuncType:
        """What a block takes and gives, from its immediate: None, a value type or a type index."""
        found = self._block_types.get(immediate)
        if found is None:
            if isinstance(immediate, ValType):
                found = FuncType((), (self.close(immediate),))
            elif isinstance(immediate, int):
                found = self.func_type(immediate).func
            else:
                raise TypeError(f"{immediate!r} is no block type")
            self._block_types[immediate] = found
        return found

    def _table_type(self, type_: TableType) -> TableType:
        return TableType(self.close_ref(type_.element), type_.limits, type_.address)

    def _global_type(self, type_: GlobalType) -> GlobalType:
        return GlobalType(self.close(type_.value), type_.mutable)

    # -- looking up ----------------------------------------------------------------------------------

    @staticmethod
    def _get(space: list[T], index: int, what: str) -> T:
        if index >= len(space):
            raise InvalidError(f"unknown {what} {index}")
        return space[index]

    def type(self, index: int) -> DefType:
        """A defined type."""
        return self._get(self.types, index, "type")

    def func_type(self, index: int) -> DefType:
        """A defined type that must be a function type."""
        found = self.type(index)
        if found.kind != "func":
            raise InvalidError(f"type mismatch: type {index} is not a function type but a {found.kind}")
        return found

    def struct(self, index: int) -> StructType:
        """The struct type with this index."""
        composite = self.type(index).composite
        if not isinstance(composite, StructType):
            raise InvalidError(f"type mismatch: type {index} is not a struct type")
        return composite

    def array(self, index: int) -> ArrayType:
        """The array type with this index."""
        composite = self.type(index).composite
        if not isinstance(composite, ArrayType):
            raise InvalidError(f"type mismatch: type {index} is not an array type")
        return composite

    def function(self, index: int) -> DefType:
        """The type of a function."""
        return self._get(self.functions, index, "function")

    def table(self, index: int) -> TableType:
        """The type of a table."""
        return self._get(self.tables, index, "table")

    def memory(self, index: int) -> MemoryType:
        """The type of a memory."""
        return self._get(self.memories, index, "memory")

    def tag(self, index: int) -> DefType:
        """The type of a tag."""
        return self._get(self.tags, index, "tag")

    def global_(self, index: int) -> GlobalType:
        """The type of a global."""
        return self._get(self.globals, index, "global")

    def elem(self, index: int) -> RefType:
        """The element type of an element segment."""
        return self._get(self.elems, index, "elem segment")

    def data(self, index: int) -> None:
        """Check that a data segment exists."""
        if index >= self.data_count:
            raise InvalidError(f"unknown data segment {index}")
