"""One instruction as text, with its immediates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pywasmvm.isa import Imm, Opcode
from pywasmvm.numerics.bits import f32_to_bits, f64_to_bits, s32, s64
from pywasmvm.syntax import Catch, MemArg
from pywasmvm.text.identifiers import NAMELESS, Identifiers, Space
from pywasmvm.text.literals import float32
from pywasmvm.text.print_types import TypePrinter
from pywasmvm.types import RefType, ValType


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
    if bits == 64:
        return repr(float(value))
    shortest = (f"{value:.{digits}g}" for digits in (6, 7, 8))
    return next((text for text in shortest if float32(text) == value), f"{value:.9g}")


class InstructionPrinter:
    """Prints instructions of one module."""

    def __init__(self, ids: Identifiers, types: TypePrinter) -> None:
        self.ids, self.types = ids, types
        self.begin(NAMELESS)

    def begin(self, locals_: Space) -> None:
        """A function or an expression begins; `locals_` are the names of its locals."""
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

    def instruction(self, opcode: Opcode, immediate: Any, label: str = "") -> str:
        """The instruction on one line; `label` is what introduces the label of a block."""
        text = self._immediates(opcode, immediate)
        return " ".join(part for part in (opcode.name, label.rstrip(), text) if part)

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

    def block_type(self, immediate: object) -> str:
        """A block type."""
        if isinstance(immediate, ValType):
            return self.types.values("result", (immediate,))
        return f"(type {self.ids.types.reference(immediate)})" if isinstance(immediate, int) else ""

    def catches(self, clauses: tuple[Catch, ...]) -> str:
        """The clauses of a try_table."""
        texts = []
        for clause in clauses:
            tag = "" if clause.tag is None else f" {self.ids.tags.reference(clause.tag)}"
            texts.append(f"({clause.kind}{tag} {self.label(clause.label)})")
        return " ".join(texts)

    def memarg(self, memarg: MemArg, opcode: Opcode) -> str:
        """Memory, offset and alignment, each where it is not the usual one."""
        parts = []
        if memarg.memory != 0:
            parts.append(self.ids.memories.reference(memarg.memory))
        if memarg.offset != 0:
            parts.append(f"offset={memarg.offset}")
        access = opcode.access
        if access is None or memarg.align != access.natural_alignment:
            parts.append(f"align={1 << memarg.align}")
        return " ".join(parts)

    def segment(self, immediate: tuple[int, int], segments: Space, places: Space) -> str:
        """A segment, before it its memory or table where that is not the first."""
        segment, place = immediate
        before = f"{places.reference(place)} " if place != 0 else ""
        return before + segments.reference(segment)

    def two(self, immediate: tuple[int, int], names: Space) -> str:
        """Two indices, unless both are the first."""
        if immediate == (0, 0):
            return ""
        return " ".join(names.reference(index) for index in immediate)

    def optional(self, index: int, names: Space) -> str:
        """An index, unless it is the first."""
        return names.reference(index) if index != 0 else ""

    def field(self, immediate: tuple[int, int]) -> str:
        """A struct type and one of its fields."""
        type_, number = immediate
        return f"{self.ids.types.reference(type_)} {self.ids.fields.get(type_, NAMELESS).reference(number)}"

    def through_table(self, immediate: tuple[int, int]) -> str:
        """A table unless it is the first, and a type."""
        type_, table = immediate
        before = f"{self.ids.tables.reference(table)} " if table != 0 else ""
        return f"{before}(type {self.ids.types.reference(type_)})"

    def cast(self, immediate: tuple[int, RefType, RefType]) -> str:
        """A label and two reference types."""
        label, before, after = immediate
        return f"{self.label(label)} {self.types.value(before)} {self.types.value(after)}"


def _v128(value: int) -> str:
    return "i32x4 " + " ".join(f"{value >> shift & 0xFFFF_FFFF:#010x}" for shift in (0, 32, 64, 96))


_PRINTERS: dict[Imm, Callable[[InstructionPrinter, Any], str]] = {
    Imm.BLOCKTYPE: InstructionPrinter.block_type,
    Imm.LABEL: InstructionPrinter.label,
    Imm.LABELS: lambda p, labels: " ".join(map(p.label, labels)),
    Imm.FUNC: lambda p, index: p.ids.functions.reference(index),
    Imm.TYPE: lambda p, index: p.ids.types.reference(index),
    Imm.TABLE: lambda p, index: p.optional(index, p.ids.tables),
    Imm.ELEM: lambda p, index: p.ids.elems.reference(index),
    Imm.MEMORY: lambda p, index: p.optional(index, p.ids.memories),
    Imm.DATA: lambda p, index: p.ids.data.reference(index),
    Imm.LOCAL: lambda p, index: p.locals.reference(index),
    Imm.GLOBAL: lambda p, index: p.ids.globals.reference(index),
    Imm.I32: lambda p, value: str(s32(value)),
    Imm.I64: lambda p, value: str(s64(value)),
    Imm.F32: lambda p, value: float_text(value, 32),
    Imm.F64: lambda p, value: float_text(value, 64),
    Imm.V128: lambda p, value: _v128(value),
    Imm.VALTYPES: lambda p, types: p.types.values("result", types),
    Imm.HEAPTYPE: lambda p, heap: p.types.heap(heap),
    Imm.REF: lambda p, type_: p.types.value(type_),
    Imm.REFNULL: lambda p, type_: p.types.value(type_),
    Imm.CAST: InstructionPrinter.cast,
    Imm.TAG: lambda p, index: p.ids.tags.reference(index),
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
