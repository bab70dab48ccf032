"""`ModuleSyntax` to canonical text: parsing it gives an equal module (spec: Text Format).

Instructions stand plain, one to a line, indented by the blocks around them. Names come from the name section
where they are unique.
"""

from __future__ import annotations

from collections.abc import Iterator

from pywasmvm.binary import code as binary_code
from pywasmvm.binary import custom
from pywasmvm.syntax import Code, Elem, Import, ModuleSyntax
from pywasmvm.text.instructions import InstructionPrinter, bytes_text, identifier
from pywasmvm.types import (
    I64,
    ArrayType,
    CompType,
    DefType,
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

_FUNCTIONS = ref(False, HeapType.FUNC)
_DEEPEST = 40
_OPENING = frozenset({"block", "loop", "if", "try_table"})


def print_module(module: ModuleSyntax) -> str:
    """The module as text. Raises MalformedError for a body that is not well-formed."""
    return "\n".join(_Printer(module).lines()) + "\n"


def unique(names: dict[int, str]) -> dict[int, str]:
    """Those names that no other index has too, as identifiers."""
    count: dict[str, int] = {}
    for name in names.values():
        count[name] = count.get(name, 0) + 1
    return {index: identifier(name) for index, name in names.items() if name and count[name] == 1}


class Identifiers:
    """What a module's index spaces are called, for text."""

    def __init__(self, names: custom.Names) -> None:
        self.types, self.functions = unique(names.types), unique(names.functions)
        self.tables, self.memories = unique(names.tables), unique(names.memories)
        self.globals, self.tags = unique(names.globals), unique(names.tags)
        self.elems, self.data = unique(names.elems), unique(names.data)
        self.fields = {index: unique(fields) for index, fields in names.fields.items()}
        self.locals = {index: unique(locals_) for index, locals_ in names.locals.items()}
        # Labels may share a name: the innermost is meant.
        self.labels = {
            index: {n: identifier(label) for n, label in labels.items() if label}
            for index, labels in names.labels.items()
        }
        self.module = identifier(names.module) if names.module else None


class _Printer:
    def __init__(self, module: ModuleSyntax) -> None:
        self.module = module
        self.ids = Identifiers(custom.names(module))
        self.code = InstructionPrinter(self.ids, self.type_text)
        self.counts = dict.fromkeys(("func", "table", "memory", "global", "tag"), 0)
        self.spaces = {
            "func": self.ids.functions,
            "table": self.ids.tables,
            "memory": self.ids.memories,
            "global": self.ids.globals,
            "tag": self.ids.tags,
        }

    def lines(self) -> Iterator[str]:
        module = self.module
        yield "(module" + (f" {self.ids.module}" if self.ids.module else "")
        yield from self.types()
        for entry in module.imports:
            yield f"  {self.import_(entry)}"
        for place, type_index in enumerate(module.functions):
            yield from self.function(place, type_index)
        for table in module.tables:
            init = "" if table.init is None else f" {self.expression(table.init)}"
            yield f"  (table {self.named('table')}{self.table_type(table.type)}{init})"
        for memory in module.memories:
            yield f"  (memory {self.named('memory')}{self.memory_type(memory)})"
        for tag in module.tags:
            yield f"  (tag {self.named('tag')}(type {self.type_id(tag)}))"
        for entry_ in module.globals:
            init = self.expression(entry_.init)
            yield f"  (global {self.named('global')}{self.global_type(entry_.type)} {init})"
        for export in module.exports:
            target = self.spaces[export.kind].get(export.index, export.index)
            yield f"  (export {bytes_text(export.name.encode())} ({export.kind} {target}))"
        if module.start is not None:
            yield f"  (start {self.ids.functions.get(module.start, module.start)})"
        for index, elem in enumerate(module.elems):
            yield f"  {self.elem(index, elem)}"
        yield from self.data()
        for section in module.customs:
            if section.name != "name":
                contents = bytes_text(module.source[section.start : section.end])
                yield f"  (@custom {bytes_text(section.name.encode())} {contents})"
        yield ")"

    # -- types -------------------------------------------------------------------------------------------

    def type_id(self, index: int) -> str:
        return self.ids.types.get(index, str(index))

    def heap(self, heap: HeapType | int | DefType) -> str:
        return self.type_id(heap) if isinstance(heap, int) else str(getattr(heap, "value", heap))

    def type_text(self, type_: ValType) -> str:
        """A value type; one that names a defined type does so by identifier."""
        if isinstance(type_, RefType) and isinstance(type_.heap, int):
            return f"(ref {'null ' if type_.nullable else ''}{self.type_id(type_.heap)})"
        return type_.name

    def types(self) -> Iterator[str]:
        first = 0
        for size in self.module.groups:
            members = range(first, first + size)
            if size == 1:
                yield f"  {self.definition(first)}"
            else:
                yield "  (rec"
                for index in members:
                    yield f"    {self.definition(index)}"
                yield "  )"
            first += size

    def definition(self, index: int) -> str:
        subtype: SubType = self.module.types[index]
        text = f"({self.composite(subtype.composite, index)})"
        if subtype.supers or not subtype.final:
            supers = "".join(f"{self.type_id(parent)} " for parent in subtype.supers)
            text = f"(sub {'final ' if subtype.final else ''}{supers}{text})"
        return f"(type {self.own(self.ids.types, index)}{text})"

    def composite(self, composite: CompType, index: int) -> str:
        if isinstance(composite, FuncType):
            return "func" + self.signature(composite, {})
        if isinstance(composite, StructType):
            names = self.ids.fields.get(index, {})
            fields = (
                f" (field {names[n] + ' ' if n in names else ''}{self.field(field)})"
                for n, field in enumerate(composite.fields)
            )
            return "struct" + "".join(fields)
        assert isinstance(composite, ArrayType)
        return f"array {self.field(composite.field)}"

    def field(self, field: FieldType) -> str:
        text = self.type_text(field.storage)
        return f"(mut {text})" if field.mutable else text

    def signature(self, type_: FuncType, names: dict[int, str]) -> str:
        text = ""
        for index, param in enumerate(type_.params):
            name = f"{names[index]} " if index in names else ""
            text += f" (param {name}{self.type_text(param)})"
        if type_.results:
            text += f" (result {' '.join(map(self.type_text, type_.results))})"
        return text

    @staticmethod
    def limits(limits: Limits, address: NumType) -> str:
        text = f"{'i64 ' if address is I64 else ''}{limits.min}"
        return text if limits.max is None else f"{text} {limits.max}"

    def memory_type(self, type_: MemoryType) -> str:
        return self.limits(type_.limits, type_.address)

    def table_type(self, type_: TableType) -> str:
        return f"{self.limits(type_.limits, type_.address)} {self.type_text(type_.element)}"

    def global_type(self, type_: GlobalType) -> str:
        text = self.type_text(type_.value)
        return f"(mut {text})" if type_.mutable else text

    # -- fields ------------------------------------------------------------------------------------------

    @staticmethod
    def own(ids: dict[int, str], index: int) -> str:
        """How a definition begins: its identifier if it has one, and its index as a comment."""
        name = f"{ids[index]} " if index in ids else ""
        return f"{name}(;{index};) "

    def named(self, kind: str) -> str:
        """The beginning of the next definition of a kind."""
        index = self.counts[kind]
        self.counts[kind] += 1
        return self.own(self.spaces[kind], index)

    def use(self, index: int, names: dict[int, str]) -> str:
        """A type use with its signature written out."""
        text = f"(type {self.type_id(index)})"
        if index < len(self.module.types):
            composite = self.module.types[index].composite
            if isinstance(composite, FuncType):
                text += self.signature(composite, names)
        return text

    def import_(self, entry: Import) -> str:
        index = self.counts[entry.kind]
        head = self.named(entry.kind)
        if isinstance(entry.type, int):
            names = self.ids.locals.get(index, {}) if entry.kind == "func" else {}
            type_ = self.use(entry.type, names)
        elif isinstance(entry.type, TableType):
            type_ = self.table_type(entry.type)
        elif isinstance(entry.type, MemoryType):
            type_ = self.memory_type(entry.type)
        else:
            type_ = self.global_type(entry.type)
        place = f"{bytes_text(entry.module.encode())} {bytes_text(entry.name.encode())}"
        return f"(import {place} ({entry.kind} {head}{type_}))"

    def function(self, place: int, type_index: int) -> Iterator[str]:
        index = self.counts["func"]
        names = self.ids.locals.get(index, {})
        yield f"  (func {self.named('func')}{self.use(type_index, names)}"
        code = binary_code.body(self.module, place)
        params = 0
        if type_index < len(self.module.types):
            composite = self.module.types[type_index].composite
            params = len(composite.params) if isinstance(composite, FuncType) else 0
        yield from self.locals(code, params, names)
        self.code.begin(names)
        yield from self.body(code, self.ids.labels.get(index, {}))
        yield "  )"

    def locals(self, code: Code, first: int, names: dict[int, str]) -> Iterator[str]:
        for count, type_ in code.locals:
            text = self.type_text(type_)
            for index in range(first, first + count):
                if index in names:
                    yield f"    (local {names[index]} {text})"
                else:
                    yield f"    (local {text})"
            first += count

    def body(self, code: Code, labels: dict[int, str]) -> Iterator[str]:
        blocks = 0
        depth = 2  # grows no further than the eye can follow, or deep nesting would be printed as blanks
        last = len(code) - 1
        for place, (opcode, immediate) in enumerate(zip(code.ops, code.immediates, strict=True)):
            if place == last:
                return  # the end of the function is its parenthesis
            if opcode.name in ("end", "else"):
                depth -= 1
            label = None
            if opcode.name in _OPENING:
                label = labels.get(blocks)
                blocks += 1
            yield "  " * min(depth, _DEEPEST) + self.code.instruction(opcode, immediate, label)
            if opcode.name in _OPENING:
                self.code.enter(label)
                depth += 1
            elif opcode.name == "else":
                depth += 1
            elif opcode.name == "end":
                self.code.leave()

    def expression(self, code: Code) -> str:
        """A constant expression on one line."""
        self.code.begin({})
        return " ".join(map(self.code.instruction, code.ops[:-1], code.immediates[:-1]))

    def offset(self, offset: int | Code | None) -> str:
        if isinstance(offset, Code):
            return f"(offset {self.expression(offset)})"
        return "" if offset is None else f"(offset i32.const {offset})"

    def elem(self, index: int, elem: Elem) -> str:
        text = f"(elem {self.own(self.ids.elems, index)}"
        if elem.mode == "declarative":
            text += "declare "
        elif elem.mode == "active":
            if elem.table != 0:
                text += f"(table {self.ids.tables.get(elem.table, elem.table)}) "
            text += self.offset(elem.offset) + " "
        if elem.type is _FUNCTIONS and all(isinstance(item, int) for item in elem.items):
            functions = (self.ids.functions.get(n, n) for n in elem.items if isinstance(n, int))
            return text + " ".join(["func", *map(str, functions)]) + ")"
        items = (
            f"(item {self.expression(item) if isinstance(item, Code) else f'ref.func {item}'})"
            for item in elem.items
        )
        return text + " ".join([self.type_text(elem.type), *items]) + ")"

    def data(self) -> Iterator[str]:
        data, source = self.module.data, self.module.source
        for index in range(len(data)):
            text = f"  (data {self.own(self.ids.data, index)}"
            memory = data.memory[index]
            if memory > 0:
                text += f"(memory {self.ids.memories.get(memory, memory)}) "
            if memory >= 0:
                text += self.offset(data.offset[index]) + " "
            start = data.start[index]
            yield text + bytes_text(source[start : start + data.length[index]]) + ")"
