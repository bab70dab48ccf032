"""Abstract syntax of a decoded module (spec: Structure, Modules).

A big Go module has 57,000 data segments and 1.6 million instructions, so what comes in such numbers is kept
in columns (one list per field) and never as one object each; `Instr` objects are made on demand for tools.
Function bodies are remembered as byte ranges and decoded when somebody asks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from pywasmvm.isa.opcode import Opcode
from pywasmvm.types import GlobalType, MemoryType, RefType, SubType, TableType, ValType

#: Immediates of one instruction as decoder and parser make them: None for no immediate, an int for an index
#: or an integer constant (canonical unsigned), a float for a float constant, a tuple for several. A block
#: type is None (empty), a value type (one result) or the index of a function type.
Immediate = object


@dataclass(frozen=True, slots=True)
class Instr:
    """One instruction; `offset` is its byte offset in the module."""

    opcode: Opcode
    immediates: Immediate
    offset: int

    def __str__(self) -> str:
        if self.immediates is None:
            return self.opcode.name
        return f"{self.opcode.name} {self.immediates}"


@dataclass(frozen=True, slots=True)
class MemArg:
    """Alignment exponent, static offset in bytes and memory index of a load or store."""

    align: int
    offset: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Catch:
    """A clause of `try_table`: `kind` is catch, catch_ref, catch_all or catch_all_ref; those for all have no
    tag.
    """

    kind: str
    tag: int | None
    label: int


@dataclass(slots=True)
class Code:
    """Instructions in columns: `ops[i]` with `immediates[i]` stands at byte `offsets[i]` of the module.

    `locals` are runs of (count, type) beyond the parameters, as the binary has them: a module may declare
    billions in a few bytes, so they are never expanded before validation has counted them.
    """

    locals: tuple[tuple[int, ValType], ...]
    ops: list[Opcode]
    immediates: list[Immediate]
    offsets: array[int]

    def __iter__(self) -> Iterator[Instr]:
        return map(Instr, self.ops, self.immediates, self.offsets)

    def __len__(self) -> int:
        return len(self.ops)

    @property
    def local_count(self) -> int:
        """Declared locals, parameters not counted."""
        return sum(count for count, _ in self.locals)


@dataclass(frozen=True, slots=True)
class Import:
    """What a module asks for: `kind` is func, table, memory, global or tag; functions and tags name their
    type by index.
    """

    module: str
    name: str
    kind: str
    type: int | TableType | MemoryType | GlobalType


@dataclass(frozen=True, slots=True)
class Export:
    """A name for something in an index space; `kind` is func, table, memory, global or tag."""

    name: str
    kind: str
    index: int


@dataclass(frozen=True, slots=True)
class Table:
    """A defined table; `init` fills it, None means null."""

    type: TableType
    init: Code | None = None


@dataclass(frozen=True, slots=True)
class Global:
    """A defined global and its initial value."""

    type: GlobalType
    init: Code


@dataclass(frozen=True, slots=True)
class Elem:
    """An element segment: `mode` is active, passive or declarative.

    `items` are function indices, or constant expressions where the segment is written that way.
    """

    type: RefType
    mode: str
    items: list[int] | list[Code]
    table: int = 0
    offset: Code | None = None
    position: int = 0  # byte offset in the module, for messages


@dataclass(slots=True)
class DataSegments:
    """All data segments in columns.

    `memory[i]` is the memory of an active segment and -1 for a passive one; `offset[i]` is an int where the
    offset is written as a single `i32.const` (nearly always), else a constant expression; the bytes are
    `start[i]:start[i] + length[i]` of the module.
    """

    memory: list[int] = field(default_factory=list)
    offset: list[int | Code | None] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.memory)


@dataclass(frozen=True, slots=True)
class CustomSection:
    """A custom section: its name and where its contents stand in the module's bytes.

    `after` is the number of the section that it comes behind, 0 for none; None where nobody said.
    """

    name: str
    start: int
    end: int
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A section as found in the binary; for listings."""

    id: int
    name: str
    start: int
    end: int


@dataclass(slots=True)
class ModuleSyntax:
    """The decoded or parsed module: well-formed, not yet validated; types are as written, by index.

    Index spaces count imports first; the fields hold what the module itself defines. `groups` are the sizes
    of the recursion groups that `types` falls into; `functions[i]` and `tags[i]` are type indices.

    Of a module in binary form `source` is the whole binary, and the code of function `i` stands in
    `source[body_start[i]:body_end[i]]`, decoded when somebody asks. A module in text form has its `bodies` at
    once, and `source` holds no more than the bytes of data segments and custom sections; positions of
    instructions then count in `text`, its source.
    """

    source: bytes
    features: frozenset[str]
    types: list[SubType] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    memories: list[MemoryType] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)
    globals: list[Global] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    start: int | None = None
    elems: list[Elem] = field(default_factory=list)
    data: DataSegments = field(default_factory=DataSegments)
    data_count: int | None = None
    body_start: array[int] = field(default_factory=lambda: array("Q"))
    body_end: array[int] = field(default_factory=lambda: array("Q"))
    bodies: list[Code] | None = None
    customs: list[CustomSection] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    text: bytes | None = None

    def imported(self, kind: str) -> list[Import]:
        """Imports of one kind (`func`, `table`, ...), in order."""
        return [entry for entry in self.imports if entry.kind == kind]
