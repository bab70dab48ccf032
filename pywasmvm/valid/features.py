"""Which proposals a module uses and where; what is switched off is refused.

The decoder and the text parser do not know the instructions of a proposal that is off. The rest of what
proposals bring - types, kinds of definitions, how many of them there may be - is well-formed always and is
found here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice

from pywasmvm import features
from pywasmvm.binary import code as binary_code
from pywasmvm.errors import InvalidError
from pywasmvm.isa import ROWS, Imm, Opcode
from pywasmvm.syntax import Code, Elem, Immediate, ModuleSyntax
from pywasmvm.types import (
    I64,
    V128,
    ArrayType,
    GlobalType,
    HeapType,
    MemoryType,
    RefType,
    StructType,
    SubType,
    TableType,
    ValType,
    ref,
)


@dataclass(slots=True)
class Use:
    """One thing in a module that belongs to a proposal.

    `what` names it (`v128.load`, `a parameter of type externref`), `where` says in which part of the module
    it stands first (`type 2`, `function 5`) and `offset` at which byte of the binary or of the text, if it is
    in code; `count` is how often it occurs.
    """

    feature: str
    what: str
    where: str
    offset: int | None = None
    function: int | None = None
    count: int = 1

    def __str__(self) -> str:
        place = self.where if self.offset is None else f"{self.where}, offset {self.offset:#x}"
        return f"{self.feature}: {self.what} ({place})"


def uses(module: ModuleSyntax) -> list[Use]:
    """What a module uses of each proposal beyond version 1.0: each thing once, where it stands first.

    Raises MalformedError for a body that was not read before and is not well-formed.
    """
    return _Search(module).found


def features_used(module: ModuleSyntax) -> list[str]:
    """Names of the proposals that a module uses, version 1.0 included, in the order of their arrival."""
    found = {features.MVP, *(use.feature for use in uses(module))}
    return [name for name in features.DESCRIPTIONS if name in found]


def refuse(module: ModuleSyntax) -> None:
    """Raise InvalidError for the first thing that belongs to a feature the module may not use."""
    for use in uses(module):
        if use.feature not in module.features:
            message = f"{use.what} in {use.where} needs the feature {use.feature}, which is switched off"
            raise InvalidError(message, use.function, use.offset)


#: Where heap types come from, if not from the proposal that brought typed references at all.
_HEAPS: dict[HeapType, str] = {
    HeapType.FUNC: features.REFERENCE_TYPES,
    HeapType.EXTERN: features.REFERENCE_TYPES,
    HeapType.EXN: features.EXCEPTIONS,
    HeapType.NOEXN: features.EXCEPTIONS,
    **dict.fromkeys(
        (
            HeapType.ANY,
            HeapType.EQ,
            HeapType.I31,
            HeapType.STRUCT,
            HeapType.ARRAY,
            HeapType.NONE,
            HeapType.NOFUNC,
            HeapType.NOEXTERN,
        ),
        features.GC,
    ),
}

_ARITHMETIC = frozenset(f"{type_}.{name}" for type_ in ("i32", "i64") for name in ("add", "sub", "mul"))

#: Rows whose immediates hold types.
_TYPED = frozenset(
    opcode
    for opcode in ROWS
    if {Imm.BLOCKTYPE, Imm.VALTYPES, Imm.HEAPTYPE, Imm.REF, Imm.REFNULL, Imm.CAST} & set(opcode.immediates)
)


class _Search:
    """Goes through a module from types to data, as the specification orders its parts."""

    def __init__(self, module: ModuleSyntax) -> None:
        self.module = module
        self.found: list[Use] = []
        self._known: dict[tuple[str, str], Use] = {}
        self.where = ""
        self.offset: int | None = None
        self.function: int | None = None
        self.imported = Counter(entry.kind for entry in module.imports)
        self._types()
        self._imports()
        self._definitions()
        self._exports()
        for index, elem in enumerate(module.elems):
            self.where = f"element segment {index}"
            self._elem(elem)
        self._data()
        self._bodies()

    def _use(self, feature: str, what: str) -> None:
        if feature == features.MVP:
            return
        known = self._known.get((feature, what))
        if known is None:
            known = self._known[feature, what] = Use(feature, what, self.where, self.offset, self.function)
            self.found.append(known)
        else:
            known.count += 1

    # -- types -----------------------------------------------------------------------------------------

    def _types(self) -> None:
        rest = enumerate(self.module.types)
        for size in self.module.groups:
            for index, subtype in islice(rest, size):
                self.where = f"type {index}"
                self._type(subtype)
            if size != 1:
                self._use(features.GC, "a recursion group")

    def _valtype(self, type_: ValType, what: str) -> None:
        """A value type, used for `what`; also references to functions are no part of version 1.0."""
        if type_ is V128:
            self._use(features.SIMD, f"{what} of type v128")
        elif isinstance(type_, RefType):
            self._reftype(type_, what)

    def _reftype(self, type_: RefType, what: str, usual: str = features.REFERENCE_TYPES) -> None:
        """A reference type; `usual` is the feature that brought funcref to this place."""
        text = f"{what} of type {type_}" if isinstance(type_.heap, HeapType) else f"{what} of a defined type"
        if not isinstance(type_.heap, HeapType):
            self._use(features.FUNCTION_REFERENCES, text)
            return
        if not type_.nullable:
            self._use(features.FUNCTION_REFERENCES, text)
        self._use(usual if type_.heap is HeapType.FUNC else _HEAPS[type_.heap], text)

    def _type(self, subtype: SubType) -> None:
        composite = subtype.composite
        if subtype.supers or not subtype.final:
            self._use(features.GC, "a type with a declared place among subtypes")
        if isinstance(composite, StructType | ArrayType):
            struct = isinstance(composite, StructType)
            self._use(features.GC, "a struct type" if struct else "an array type")
            for field in composite.fields if isinstance(composite, StructType) else (composite.field,):
                self._valtype(field.storage, "a field")
        else:
            if len(composite.results) > 1:
                self._use(features.MULTI_VALUE, "a function type with several results")
            for type_ in composite.params:
                self._valtype(type_, "a parameter")
            for type_ in composite.results:
                self._valtype(type_, "a result")

    # -- definitions -----------------------------------------------------------------------------------

    def _table(self, type_: TableType) -> None:
        self._reftype(type_.element, "a table", usual=features.MVP)
        if type_.address is I64:
            self._use(features.MEMORY64, "a table with 64-bit addresses")

    def _memory(self, type_: MemoryType) -> None:
        if type_.address is I64:
            self._use(features.MEMORY64, "a memory with 64-bit addresses")

    def _imports(self) -> None:
        for entry in self.module.imports:
            self.where = f"import {entry.module}.{entry.name}"
            if isinstance(entry.type, TableType):
                self._table(entry.type)
            elif isinstance(entry.type, MemoryType):
                self._memory(entry.type)
            elif isinstance(entry.type, GlobalType):
                self._valtype(entry.type.value, "a global")
                if entry.type.mutable:
                    self._use(features.MUTABLE_GLOBALS, "an imported mutable global")
            elif entry.kind == "tag":
                self._use(features.EXCEPTIONS, "a tag")

    def _definitions(self) -> None:
        module = self.module
        tables, memories = self.imported["table"], self.imported["memory"]
        for index, table in enumerate(module.tables, tables):
            self.where = f"table {index}"
            self._table(table.type)
            if table.init is not None:
                self._use(features.FUNCTION_REFERENCES, "a table with an initial value")
                self._constant(table.init)
        if tables + len(module.tables) > 1:
            self.where = "table 1"
            self._use(features.REFERENCE_TYPES, "more than one table")
        for index, memory in enumerate(module.memories, memories):
            self.where = f"memory {index}"
            self._memory(memory)
        if memories + len(module.memories) > 1:
            self.where = "memory 1"
            self._use(features.MULTI_MEMORY, "more than one memory")
        for index in range(len(module.tags)):
            self.where = f"tag {self.imported['tag'] + index}"
            self._use(features.EXCEPTIONS, "a tag")
        for index, entry in enumerate(module.globals, self.imported["global"]):
            self.where = f"global {index}"
            self._valtype(entry.type.value, "a global")
            self._constant(entry.init)

    def _exports(self) -> None:
        types = [entry.type for entry in self.module.imported("global")]
        types += [entry.type for entry in self.module.globals]
        for export in self.module.exports:
            self.where = f"export {export.name}"
            if export.kind == "tag":
                self._use(features.EXCEPTIONS, "an exported tag")
            elif export.kind == "global" and export.index < len(types):
                type_ = types[export.index]
                if isinstance(type_, GlobalType) and type_.mutable:
                    self._use(features.MUTABLE_GLOBALS, "an exported mutable global")

    def _elem(self, elem: Elem) -> None:
        if elem.mode == "passive":
            self._use(features.BULK_MEMORY, "a passive element segment")
        elif elem.mode == "declarative":
            self._use(features.REFERENCE_TYPES, "a declarative element segment")
        if elem.offset is not None:
            self._constant(elem.offset)
        expressions = [item for item in elem.items if isinstance(item, Code)]
        # A list of function indices is written without a type, and its type is then not nullable.
        if expressions or elem.type is not ref(False, HeapType.FUNC):
            self._reftype(elem.type, "an element segment")
        if expressions:
            self._use(features.REFERENCE_TYPES, "an element segment of expressions")
        for item in expressions:
            self._constant(item)

    def _data(self) -> None:
        for index, (memory, offset) in enumerate(
            zip(self.module.data.memory, self.module.data.offset, strict=True)
        ):
            if memory < 0:
                self.where = f"data segment {index}"
                self._use(features.BULK_MEMORY, "a passive data segment")
            elif isinstance(offset, Code):
                self.where = f"data segment {index}"
                self._constant(offset)
        if self.module.data_count is not None:
            self.where = "data count section"
            self._use(features.BULK_MEMORY, "a count of data segments")

    # -- code --------------------------------------------------------------------------------------------

    def _constant(self, code: Code) -> None:
        for opcode, immediate, offset in zip(code.ops, code.immediates, code.offsets, strict=True):
            self.offset = offset
            self._instruction(opcode, immediate)
            if opcode.name in _ARITHMETIC:
                self._use(features.EXTENDED_CONST, f"{opcode.name} in a constant expression")
            elif (
                opcode.name == "global.get"
                and isinstance(immediate, int)
                and immediate >= self.imported["global"]
            ):
                self._use(features.GC, "a constant expression that reads a global of this module")
        self.offset = None

    def _bodies(self) -> None:
        module = self.module
        for index in range(len(module.functions)):
            self.function = self.imported["func"] + index
            self.where = f"function {self.function}"
            code = binary_code.body(module, index)
            for _, type_ in code.locals:
                self._valtype(type_, "a local")
            for opcode, immediate, offset in zip(code.ops, code.immediates, code.offsets, strict=True):
                if opcode in _NOTEWORTHY:
                    self.offset = offset
                    self._instruction(opcode, immediate)
            self.offset = None
        self.function = None

    def _instruction(self, opcode: Opcode, immediate: Immediate) -> None:
        self._use(opcode.feature, opcode.name)
        if opcode in _TYPED:
            parts = immediate if isinstance(immediate, tuple) else (immediate,)
            for part in parts:
                if isinstance(part, int):
                    if opcode.immediates[0] is Imm.BLOCKTYPE:
                        self._use(features.MULTI_VALUE, "a block with parameters or several results")
                    elif opcode.immediates[0] is Imm.HEAPTYPE:
                        self._use(features.FUNCTION_REFERENCES, f"{opcode.name} of a defined type")
                elif isinstance(part, HeapType):
                    self._use(_HEAPS[part], f"{opcode.name} {part.value}")
                elif isinstance(part, ValType):
                    what = "a block" if opcode.immediates[0] is Imm.BLOCKTYPE else opcode.name
                    self._valtype(part, what)


#: Rows that a body may use something with; the others are version 1.0 whatever their immediates are.
_NOTEWORTHY = frozenset(opcode for opcode in ROWS if opcode.feature != features.MVP or opcode in _TYPED)
