"""A listing of code: each instruction with its offset and its bytes, indented by the blocks around it.

function 0 $add (type 0) (param i32 i32) (result i32)
  000024  20 00               local.get 0
  000026  20 01               local.get 1
  000028  6a                  i32.add
  000029  0b                  end
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pywasmvm.binary import code as binary_code
from pywasmvm.binary.custom import names
from pywasmvm.binary.encode import instruction as encoded
from pywasmvm.isa import Imm
from pywasmvm.module import Function, Module
from pywasmvm.syntax import Code, ModuleSyntax
from pywasmvm.text.identifiers import NAMELESS, Identifiers
from pywasmvm.text.instructions import InstructionPrinter
from pywasmvm.text.print_types import TypePrinter


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: byte offset in the module (in the text of a module in text form), encoding, depth of
    the block it stands in (`else` and `end` stand at the depth of what they belong to) and text.
    """

    offset: int
    encoding: bytes
    depth: int
    text: str


#: Bytes in a row of the listing; what an instruction has more goes into rows below.
_BYTES = 6

#: Blocks deeper than this are no further indented: a body may nest as deeply as it is long.
_DEEPEST = 30


class Disassembler:
    """Lists functions of one module; indices count imported functions first."""

    def __init__(self, module: ModuleSyntax) -> None:
        self.module = module
        self._imported = module.imported("func")
        self._exports: dict[int, list[str]] = {}
        for export in module.exports:
            if export.kind == "func":
                self._exports.setdefault(export.index, []).append(export.name)
        self._ids = Identifiers(names(module))
        self._types = TypePrinter(module, self._ids)
        self._printer = InstructionPrinter(self._ids, self._types)

    def title(self, index: int) -> str:
        """Index, name and type of a function. Raises IndexError."""
        defined = index - len(self._imported)
        entry = self._imported[index] if defined < 0 else None
        type_index = self.module.functions[defined] if entry is None else entry.type
        if not isinstance(type_index, int):
            raise TypeError(f"a function is imported by its type's index, not by {type_index}")
        own = self._ids.functions.definition(index)
        use = self._types.use(type_index, self._ids.locals.get(index, NAMELESS))
        origin = "" if entry is None else f", imported as {entry.module}.{entry.name}"
        exported = "".join(f", exported as {name}" for name in self._exports.get(index, ()))
        return f"function {index} {own}{use}{origin}{exported}"

    def lines(self, index: int) -> Iterator[Line]:
        """The instructions of a function; none if it is imported. Raises IndexError, MalformedError."""
        defined = index - len(self._imported)
        if defined < 0:
            return
        code = binary_code.body(self.module, defined)
        printer, labels = self._printer, self._ids.labels.get(index, NAMELESS)
        printer.begin(self._ids.locals.get(index, NAMELESS))
        blocks = depth = 0
        for opcode, immediate, offset, encoding in zip(
            code.ops, code.immediates, code.offsets, self._encodings(code, defined), strict=True
        ):
            if opcode.name == "end" and depth:
                depth -= 1
                printer.leave()
            if Imm.BLOCKTYPE in opcode.immediates:
                text = printer.instruction(opcode, immediate, labels.definition(blocks))
                yield Line(offset, encoding, depth, text)
                printer.enter(labels.references.get(blocks))
                blocks += 1
                depth += 1
            else:
                outdent = opcode.name == "else"
                yield Line(offset, encoding, depth - outdent, printer.instruction(opcode, immediate))

    def _encodings(self, code: Code, defined: int) -> Iterator[bytes]:
        """The bytes in the module; of a module in text form those that its binary would have."""
        if self.module.bodies is not None:
            yield from map(encoded, code.ops, code.immediates)
            return
        ends = [*code.offsets[1:], self.module.body_end[defined]]
        for start, end in zip(code.offsets, ends, strict=True):
            yield self.module.source[start:end]

    def listing(self, index: int) -> Iterator[str]:
        """Title, locals and instructions of a function as rows of text."""
        yield self.title(index)
        defined = index - len(self._imported)
        if defined >= 0:
            runs = binary_code.body(self.module, defined).locals
            if runs:
                declared = ", ".join(f"{count} of {self._types.value(type_)}" for count, type_ in runs)
                yield f"  locals: {declared}"
        for line in self.lines(index):
            first, *more = _rows(line.encoding)
            yield f"  {line.offset:06x}  {first}  {'  ' * min(line.depth, _DEEPEST)}{line.text}"
            for row in more:
                yield f"          {row.rstrip()}"


def _rows(encoding: bytes) -> list[str]:
    width = 3 * _BYTES - 1
    return [encoding[i : i + _BYTES].hex(" ").ljust(width) for i in range(0, len(encoding), _BYTES)]


def _translated(module: Module, index: int) -> Iterator[str]:
    """Title and the Python that a function becomes, with offsets; the title alone of an imported one."""
    from pywasmvm.translate.listing import listing

    yield Disassembler(module.syntax).title(index)
    if index >= module.context.imported_functions:
        yield from listing(module, index)


def disassemble(what: Module | Function, *, translated: bool = False) -> str:
    """The listing of a function, or of all functions of a module with an empty line between them.

    `translated` shows the Python that the translator makes of them instead of their instructions.
    """
    if translated:
        module = what.module if isinstance(what, Function) else what
        indices = [what.index] if isinstance(what, Function) else range(len(module.context.functions))
        return "\n\n".join("\n".join(_translated(module, index)) for index in indices)
    if isinstance(what, Function):
        return "\n".join(Disassembler(what.module.syntax).listing(what.index))
    disassembler = Disassembler(what.syntax)
    count = len(what.context.functions)
    return "\n\n".join("\n".join(disassembler.listing(index)) for index in range(count))
