"""`ModuleSyntax` to canonical text: parsing it gives an equal module (spec: Text Format).

Instructions stand plain, one to a line, indented by the blocks around them. Names come from the name section:
identifiers where they are unique, annotations where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator

from pywasmvm.binary import code as binary_code
from pywasmvm.binary import custom
from pywasmvm.syntax import Code, Elem, Import, ModuleSyntax
from pywasmvm.text.annotations import BRANCH_HINT, SECTION_WORDS, Hints, read_hints
from pywasmvm.text.identifiers import NAMELESS, Identifiers, Space, bytes_text
from pywasmvm.text.instructions import InstructionPrinter
from pywasmvm.text.print_types import TypePrinter
from pywasmvm.types import HeapType, MemoryType, StructType, TableType, ref

_FUNCTIONS = ref(False, HeapType.FUNC)
_OPENING = frozenset({"block", "loop", "if", "try_table"})

#: Nesting is shown no deeper than the eye can follow: a module could be printed as nothing but blanks.
_DEEPEST = 40

#: The text format has no runs of locals. More than this are no program, and printing them would take forever.
MAX_LOCALS = 1_000_000


def print_module(module: ModuleSyntax) -> str:
    """The module as text.

    Raises MalformedError for a body that is not well-formed, ValueError for one with over a million locals.
    """
    return "\n".join(_Printer(module).lines()) + "\n"


class _Printer:
    def __init__(self, module: ModuleSyntax) -> None:
        self.module = module
        self.names = custom.names(module)
        #: Those of them that the text shows, so far.
        self.shown = _existing(self.names, module)
        self.ids = Identifiers(self.shown)
        self.types = TypePrinter(module, self.ids)
        self.code = InstructionPrinter(self.ids, self.types)
        self.hints: Hints | None = read_hints(module)
        self.counts = dict.fromkeys(self.ids.of_kind, 0)

    def lines(self) -> Iterator[str]:
        module = self.module
        yield f"(module {self.ids.module.definition(0)}".rstrip()
        yield from self.types.definitions()
        for entry in module.imports:
            yield f"  {self.import_(entry)}"
        for place, type_index in enumerate(module.functions):
            yield from self.function(place, type_index)
        for table in module.tables:
            init = "" if table.init is None else f" {self.expression(table.init)}"
            yield f"  (table {self.begin('table')}{self.types.table(table.type)}{init})"
        for memory in module.memories:
            yield f"  (memory {self.begin('memory')}{self.types.memory(memory)})"
        for tag in module.tags:
            yield f"  (tag {self.begin('tag')}{self.types.use(tag, NAMELESS)})"
        for global_ in module.globals:
            init = self.expression(global_.init)
            yield f"  (global {self.begin('global')}{self.types.global_(global_.type)} {init})"
        for export in module.exports:
            target = self.ids.of_kind[export.kind].reference(export.index)
            yield f"  (export {bytes_text(export.name.encode())} ({export.kind} {target}))"
        if module.start is not None:
            yield f"  (start {self.ids.functions.reference(module.start)})"
        for index, elem in enumerate(module.elems):
            yield f"  {self.elem(index, elem)}"
        yield from self.data()
        yield from self.customs()
        yield ")"

    # -- fields ------------------------------------------------------------------------------------------

    def begin(self, kind: str) -> str:
        """The beginning of the next definition of a kind: its name, and its index as a comment."""
        index = self.counts[kind]
        self.counts[kind] += 1
        return f"{self.ids.of_kind[kind].definition(index)}(;{index};) "

    def import_(self, entry: Import) -> str:
        index = self.counts[entry.kind]
        head = self.begin(entry.kind)
        if isinstance(entry.type, int):
            locals_ = NAMELESS
            if entry.kind == "func":
                locals_ = self.locals_of(index, len(self.types.params(entry.type)))
            type_ = self.types.use(entry.type, locals_)
        elif isinstance(entry.type, TableType):
            type_ = self.types.table(entry.type)
        elif isinstance(entry.type, MemoryType):
            type_ = self.types.memory(entry.type)
        else:
            type_ = self.types.global_(entry.type)
        place = f"{bytes_text(entry.module.encode())} {bytes_text(entry.name.encode())}"
        return f"(import {place} ({entry.kind} {head}{type_}))"

    def locals_of(self, function: int, count: int) -> Space:
        """The names of a function's parameters and locals."""
        if function not in self.names.locals:
            return NAMELESS
        found = self.shown.locals[function] = _below(self.names.locals[function], count)
        return Space(found)

    def labels_of(self, function: int, code: Code) -> Space:
        """The names of a function's labels."""
        if function not in self.names.labels:
            return NAMELESS
        count = sum(opcode.name in _OPENING for opcode in code.ops)
        found = self.shown.labels[function] = _below(self.names.labels[function], count)
        return Space(found, shadowing=True)

    def function(self, place: int, type_index: int) -> Iterator[str]:
        index = self.counts["func"]
        code = binary_code.body(self.module, place)
        if code.local_count > MAX_LOCALS:
            raise ValueError(f"function {index} has {code.local_count} locals: too many to write them out")
        params = len(self.types.params(type_index))
        locals_ = self.locals_of(index, params + code.local_count)
        yield f"  (func {self.begin('func')}{self.types.use(type_index, locals_)}"
        yield from self.locals(code, params, locals_)
        self.code.begin(locals_)
        hints = self.hints.get(index, {}) if self.hints is not None else {}
        yield from self.body(code, self.labels_of(index, code), hints)
        yield "  )"

    def locals(self, code: Code, first: int, names: Space) -> Iterator[str]:
        for count, type_ in code.locals:
            text = self.types.value(type_)
            for index in range(first, first + count):
                yield f"    (local {names.definition(index)}{text})"
            first += count

    def body(self, code: Code, labels: Space, hints: dict[int, bytes]) -> Iterator[str]:
        depth, blocks = 2, 0
        # The end of the function is its parenthesis.
        for place, (opcode, immediate) in enumerate(zip(code.ops[:-1], code.immediates[:-1], strict=True)):
            if opcode.name in ("end", "else"):
                depth -= 1
            blanks = "  " * min(depth, _DEEPEST)
            if place in hints:
                yield f"{blanks}(@{BRANCH_HINT} {bytes_text(hints[place])})"
            if opcode.name in _OPENING:
                yield blanks + self.code.instruction(opcode, immediate, labels.definition(blocks))
                self.code.enter(labels.references.get(blocks))
                blocks += 1
                depth += 1
                continue
            yield blanks + self.code.instruction(opcode, immediate)
            if opcode.name == "else":
                depth += 1
            elif opcode.name == "end":
                self.code.leave()

    def expression(self, code: Code) -> str:
        """A constant expression on one line; a single instruction, the usual case, stands in parentheses."""
        self.code.begin(NAMELESS)
        parts = list(map(self.code.instruction, code.ops[:-1], code.immediates[:-1]))
        return f"({parts[0]})" if len(parts) == 1 else " ".join(parts)

    def offset(self, offset: int | Code | None) -> str:
        if isinstance(offset, Code):
            text = self.expression(offset)
            return f"{text} " if len(offset) == 2 else f"(offset {text}) "
        return "" if offset is None else f"(i32.const {offset}) "

    def elem(self, index: int, elem: Elem) -> str:
        text = f"(elem {self.ids.elems.definition(index)}(;{index};) "
        if elem.mode == "declarative":
            text += "declare "
        elif elem.mode == "active":
            if elem.table != 0:
                text += f"(table {self.ids.tables.reference(elem.table)}) "
            text += self.offset(elem.offset)
        if elem.type is _FUNCTIONS and all(isinstance(item, int) for item in elem.items):
            functions = (self.ids.functions.reference(item) for item in elem.items if isinstance(item, int))
            return text + " ".join(["func", *functions]) + ")"
        return text + " ".join([self.types.value(elem.type), *map(self.item, elem.items)]) + ")"

    def item(self, item: int | Code) -> str:
        if isinstance(item, int):
            return f"(ref.func {self.ids.functions.reference(item)})"
        text = self.expression(item)
        return text if len(item) == 2 else f"(item {text})"

    def data(self) -> Iterator[str]:
        data, source = self.module.data, self.module.source
        for index in range(len(data)):
            text = f"  (data {self.ids.data.definition(index)}(;{index};) "
            memory = data.memory[index]
            if memory > 0:
                text += f"(memory {self.ids.memories.reference(memory)}) "
            if memory >= 0:
                text += self.offset(data.offset[index])
            start = data.start[index]
            yield text + bytes_text(source[start : start + data.length[index]]) + ")"

    # -- custom sections -----------------------------------------------------------------------------------

    def customs(self) -> Iterator[str]:
        """The custom sections, but for those that other parts of the text say all about."""
        words = {number: word for word, number in SECTION_WORDS.items()}
        for section in self.module.customs:
            contents = self.module.source[section.start : section.end]
            if section.name == "name" and custom.encode_names(self.shown) == contents:
                continue  # it may hold more than can be shown, and there may be several of them
            if section.name == BRANCH_HINT and self.hints is not None:
                continue
            place = ""
            if section.after is not None:
                place = f" (after {words[section.after]})" if section.after else " (before first)"
            yield f"  (@custom {bytes_text(section.name.encode())}{place} {bytes_text(contents)})"


def _existing(names: custom.Names, module: ModuleSyntax) -> custom.Names:
    """The names of what the module really has; those of locals and labels are left out.

    A name section may name anything.
    """
    flat = {
        "functions": (names.functions, "func", len(module.functions)),
        "tables": (names.tables, "table", len(module.tables)),
        "memories": (names.memories, "memory", len(module.memories)),
        "globals": (names.globals, "global", len(module.globals)),
        "tags": (names.tags, "tag", len(module.tags)),
        "types": (names.types, "", len(module.types)),
        "elems": (names.elems, "", len(module.elems)),
        "data": (names.data, "", len(module.data)),
    }
    found = custom.Names(module=names.module)
    for attribute, (of, kind, defined) in flat.items():
        setattr(found, attribute, _below(of, defined + len(module.imported(kind))))
    for owner, fields in names.fields.items():
        composite = module.types[owner].composite if owner < len(module.types) else None
        if isinstance(composite, StructType):
            found.fields[owner] = _below(fields, len(composite.fields))
    return found


def _below(names: dict[int, str], count: int) -> dict[int, str]:
    return {index: name for index, name in names.items() if index < count}
