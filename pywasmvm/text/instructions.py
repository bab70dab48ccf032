"""One instruction as text, with its immediates; also strings, identifiers and floats as they are written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pywasmvm.isa import Imm, Opcode
from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits, s32, s64
from pywasmvm.syntax import Catch, MemArg
from pywasmvm.types import HeapType, RefType, ValType

if TYPE_CHECKING:
    from pywasmvm.text.printer import Identifiers

_SIMPLE = re.compile(r"[0-9A-Za-z!#$%&'*+\-./:<=>?@\\^_`|~]+")


def bytes_text(data: bytes) -> str:
    """Bytes as a string token: what is printable ASCII as it is, the rest escaped."""
    parts = []
    for byte in data:
        plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
        parts.append(chr(byte) if plain else f"\\{byte:02x}")
    return f'"{"".join(parts)}"'


def identifier(name: str) -> str:
    """A name as an identifier, quoted where its characters ask for it."""
    return f"${name}" if _SIMPLE.fullmatch(name) else f"${bytes_text(name.encode())}"


def float_text(value: float, bits: int) -> str:
    """A float constant that is read back to the very same bits."""
    if value != value:
        pattern = f32_to_bits(value) if bits == 32 else f64_to_bits(value)
        mantissa = 23 if bits == 32 else 52
        payload = pattern & (1 << mantissa) - 1
        sign = "-" if pattern >> bits - 1 else ""
        return f"{sign}nan" if payload == 1 << mantissa - 1 else f"{sign}nan:{payload:#x}"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # Nine digits tell all f32s apart, and Python's own form all f64s.
    return f"{value:.9g}" if bits == 32 else repr(float(value))


class InstructionPrinter:
    """Prints instructions of one module. `type_text` prints its value types."""

    def __init__(self, ids: Identifiers, type_text: Callable[[ValType], str]) -> None:
        self.ids, self.type_text = ids, type_text
        self.begin({})

    def begin(self, locals_: dict[int, str]) -> None:
        """A function or an expression begins; `locals_` are the identifiers of its locals."""
        self.locals = locals_
        self._labels: list[str | None] = []
        self._depths: dict[str, list[int]] = {}

    def enter(self, label: str | None) -> None:
        """A block begins; `label` is its identifier if it has one."""
        if label is not None:
            self._depths.setdefault(label, []).append(len(self._labels))
        self._labels.append(label)

    def leave(self) -> None:
        """The innermost block ends."""
        label = self._labels.pop()
        if label is not None:
            self._depths[label].pop()

    def label(self, index: int) -> str:
        """A label: its identifier, unless it has none or a block further in has the same."""
        place = len(self._labels) - 1 - index
        name = self._labels[place] if place >= 0 else None
        return name if name is not None and self._depths[name][-1] == place else str(index)

    def instruction(self, opcode: Opcode, immediate: Any, label: str | None = None) -> str:
        """The instruction on one line; `label` is the identifier of a block."""
        text = self._immediates(opcode, immediate)
        return " ".join(part for part in (opcode.name, label, text) if part)

    def _immediates(self, opcode: Opcode, immediate: Any) -> str:
        kinds = opcode.immediates
        if not kinds:
            return ""
        special = _SPECIAL.get(kinds)
        if special is not None:
            return special(self, immediate, opcode)
        if len(kinds) == 1:
            return _PRINTERS[kinds[0]](self, immediate)
        parts = [_PRINTERS[kind](self, part) for kind, part in zip(kinds, immediate, strict=True)]
        return " ".join(part for part in parts if part)

    @staticmethod
    def named(names: dict[int, str], index: int) -> str:
        """An index by its identifier, if it has one."""
        return names.get(index, str(index))

    def block_type(self, immediate: object) -> str:
        """A block type."""
        if isinstance(immediate, ValType):
            return f"(result {self.type_text(immediate)})"
        return f"(type {self.named(self.ids.types, immediate)})" if isinstance(immediate, int) else ""

    def heap(self, heap: HeapType | int) -> str:
        """A heap type."""
        return self.named(self.ids.types, heap) if isinstance(heap, int) else heap.value

    def catches(self, clauses: tuple[Catch, ...]) -> str:
        """The clauses of a try_table."""
        texts = []
        for clause in clauses:
            tag = "" if clause.tag is None else f" {self.named(self.ids.tags, clause.tag)}"
            texts.append(f"({clause.kind}{tag} {self.label(clause.label)})")
        return " ".join(texts)

    def memarg(self, memarg: MemArg, opcode: Opcode) -> str:
        """Memory, offset and alignment, each where it is not the usual one."""
        parts = []
        if memarg.memory != 0:
            parts.append(self.named(self.ids.memories, memarg.memory))
        if memarg.offset != 0:
            parts.append(f"offset={memarg.offset}")
        access = opcode.access
        if access is None or memarg.align != access.natural_alignment:
            parts.append(f"align={1 << memarg.align}")
        return " ".join(parts)

    def segment(self, immediate: tuple[int, int], segments: dict[int, str], places: dict[int, str]) -> str:
        """A segment, before it its memory or table where that is not the first."""
        segment, place = immediate
        before = f"{self.named(places, place)} " if place != 0 else ""
        return before + self.named(segments, segment)

    def two(self, immediate: tuple[int, int], names: dict[int, str]) -> str:
        """Two indices, unless both are the first."""
        if immediate == (0, 0):
            return ""
        return " ".join(self.named(names, index) for index in immediate)

    def optional(self, index: int, names: dict[int, str]) -> str:
        """An index, unless it is the first."""
        return self.named(names, index) if index != 0 else ""

    def field(self, immediate: tuple[int, int]) -> str:
        """A struct type and one of its fields."""
        type_, number = immediate
        return f"{self.named(self.ids.types, type_)} {self.named(self.ids.fields.get(type_, {}), number)}"

    def through_table(self, immediate: tuple[int, int]) -> str:
        """A table unless it is the first, and a type."""
        type_, table = immediate
        before = f"{self.named(self.ids.tables, table)} " if table != 0 else ""
        return f"{before}(type {self.named(self.ids.types, type_)})"

    def cast(self, immediate: tuple[int, RefType, RefType]) -> str:
        """A label and two reference types."""
        label, before, after = immediate
        return f"{self.label(label)} {self.type_text(before)} {self.type_text(after)}"


def _v128(value: int) -> str:
    return "i32x4 " + " ".join(f"{value >> shift & 0xFFFF_FFFF:#010x}" for shift in (0, 32, 64, 96))


_PRINTERS: dict[Imm, Callable[[InstructionPrinter, Any], str]] = {
    Imm.BLOCKTYPE: InstructionPrinter.block_type,
    Imm.LABEL: InstructionPrinter.label,
    Imm.LABELS: lambda p, labels: " ".join(map(p.label, labels)),
    Imm.FUNC: lambda p, index: p.named(p.ids.functions, index),
    Imm.TYPE: lambda p, index: p.named(p.ids.types, index),
    Imm.TABLE: lambda p, index: p.optional(index, p.ids.tables),
    Imm.ELEM: lambda p, index: p.named(p.ids.elems, index),
    Imm.MEMORY: lambda p, index: p.optional(index, p.ids.memories),
    Imm.DATA: lambda p, index: p.named(p.ids.data, index),
    Imm.LOCAL: lambda p, index: p.named(p.locals, index),
    Imm.GLOBAL: lambda p, index: p.named(p.ids.globals, index),
    Imm.I32: lambda p, value: str(s32(value)),
    Imm.I64: lambda p, value: str(s64(value)),
    Imm.F32: lambda p, value: float_text(value, 32),
    Imm.F64: lambda p, value: float_text(value, 64),
    Imm.V128: lambda p, value: _v128(value),
    Imm.VALTYPES: lambda p, types: f"(result {' '.join(map(p.type_text, types))})",
    Imm.HEAPTYPE: InstructionPrinter.heap,
    Imm.REF: lambda p, type_: p.type_text(type_),
    Imm.REFNULL: lambda p, type_: p.type_text(type_),
    Imm.CAST: InstructionPrinter.cast,
    Imm.TAG: lambda p, index: p.named(p.ids.tags, index),
    Imm.CATCHES: InstructionPrinter.catches,
    Imm.COUNT: lambda p, count: str(count),
    Imm.LANE: lambda p, lane: str(lane),
    Imm.LANES: lambda p, lanes: " ".join(map(str, lanes)),
}

#: Instructions whose immediates depend on each other or stand in another order in text.
_SPECIAL: dict[tuple[Imm, ...], Callable[[InstructionPrinter, Any, Opcode], str]] = {
    (Imm.MEMARG,): lambda p, i, op: p.memarg(i, op),
    (Imm.MEMARG, Imm.LANE): lambda p, i, op: f"{p.memarg(i[0], op)} {i[1]}".lstrip(),
    (Imm.MEMORY, Imm.MEMORY): lambda p, i, op: p.two(i, p.ids.memories),
    (Imm.TABLE, Imm.TABLE): lambda p, i, op: p.two(i, p.ids.tables),
    (Imm.DATA, Imm.MEMORY): lambda p, i, op: p.segment(i, p.ids.data, p.ids.memories),
    (Imm.ELEM, Imm.TABLE): lambda p, i, op: p.segment(i, p.ids.elems, p.ids.tables),
    (Imm.TYPE, Imm.TABLE): lambda p, i, op: p.through_table(i),
    (Imm.TYPE, Imm.FIELD): lambda p, i, op: p.field(i),
}

#: Kinds that can be printed; the completeness test asks.
PRINTED = frozenset(_PRINTERS) | frozenset(kind for kinds in _SPECIAL for kind in kinds)
