"""The row of the instruction table: everything about one instruction that is not its meaning.

A family file (`numeric.py`, `memory.py`, ...) is a list of rows; `registry.py` joins them. The decoder reads
codes and immediates, the validator signatures, the text format names, both engines the lot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pywasmvm import features
from pywasmvm.types import BY_NAME, NumType, ValType, VecType


class Imm(Enum):
    """Kinds of immediate operands, in the words of the specification."""

    BLOCKTYPE = "blocktype"
    LABEL = "label"
    LABELS = "labels"  # br_table: a vector of labels and the default one
    FUNC = "func"
    TYPE = "type"
    TABLE = "table"
    ELEM = "elem"
    MEMORY = "memory"
    DATA = "data"
    LOCAL = "local"
    GLOBAL = "global"
    MEMARG = "memarg"  # alignment exponent, memory index, offset
    I32 = "i32"
    I64 = "i64"
    F32 = "f32"
    F64 = "f64"
    V128 = "v128"
    VALTYPES = "valtypes"  # typed select
    HEAPTYPE = "heaptype"
    REF = "ref"  # a heap type that stands for the non-null reference to it
    REFNULL = "refnull"  # a heap type that stands for the nullable reference to it
    CAST = "cast"  # br_on_cast: a label and two reference types whose nullability is a byte of flags
    TAG = "tag"
    CATCHES = "catches"  # try_table: a vector of clauses
    FIELD = "field"  # of the struct type before it
    COUNT = "count"  # array.new_fixed
    LANE = "lane"
    LANES = "lanes"  # i8x16.shuffle: sixteen of them


class AddressMarker:
    """Stands in a signature for the address type of the memory that the immediate names."""

    def __repr__(self) -> str:
        return "addr"


ADDR = AddressMarker()
Operand = ValType | AddressMarker


@dataclass(frozen=True, slots=True)
class Signature:
    """Operands an instruction pops (the last one is on top) and pushes."""

    params: tuple[Operand, ...]
    results: tuple[Operand, ...]

    def __str__(self) -> str:
        return f"{' '.join(map(repr, self.params))} -> {' '.join(map(repr, self.results))}".strip()


@dataclass(frozen=True, slots=True)
class Access:
    """What a load or store does to memory: how many bytes, and how they become a value.

    `kind` is `u`, `s` (zero or sign extended) or `f` with the width in bits, as in `s16`; for vectors also
    `v128`, lanes that are widened (`s8x8`), and `splat`, `zero` and `lane` with the width of one lane.
    """

    kind: str
    size: int
    type: NumType | VecType

    @property
    def natural_alignment(self) -> int:
        """The largest alignment exponent a memarg may claim."""
        return self.size.bit_length() - 1


@dataclass(frozen=True, slots=True, eq=False)
class Opcode:
    """One instruction. `prefix` is None for single-byte codes; rows are compared by identity."""

    name: str
    code: int
    prefix: int | None
    immediates: tuple[Imm, ...]
    signature: Signature | None
    feature: str
    access: Access | None = None

    @property
    def function_name(self) -> str:
        """The name of its function in `numerics`, if it has one."""
        return self.name.replace(".", "_")

    @property
    def plain(self) -> bool:
        """A signature and no immediates: no stage needs code of its own for this row."""
        return self.signature is not None and not self.immediates

    @property
    def lanes(self) -> int:
        """How many lanes its lane immediate can name: those of its shape; a shuffle those of two vectors."""
        if Imm.LANES in self.immediates:
            return 32
        if self.access is not None:  # a load or store of one lane
            return 16 // self.access.size
        return int(self.name.partition(".")[0].partition("x")[2])

    @property
    def encoding(self) -> bytes:
        """The bytes it starts with in the binary format."""
        if self.prefix is None:
            return bytes([self.code])
        low, rest = self.code & 0x7F, self.code >> 7
        return bytes([self.prefix, low | 0x80, rest]) if rest else bytes([self.prefix, low])

    def __repr__(self) -> str:
        return f"<{self.name}>"


def signature(text: str) -> Signature:
    """Read `"addr i32 -> i32"`: value types, and `addr` for the address type of the named memory."""
    left, _, right = text.partition("->")

    def operands(side: str) -> tuple[Operand, ...]:
        return tuple(ADDR if word == "addr" else BY_NAME[word] for word in side.split())

    return Signature(operands(left), operands(right))


def row(
    code: int,
    name: str,
    sig: str | None = None,
    imm: str = "",
    *,
    prefix: int | None = None,
    feature: str = features.MVP,
    access: str | None = None,
) -> Opcode:
    """Write a row. `imm` lists immediate kinds by name; `access` is e.g. `"s16"`, see `Access`."""
    parsed = signature(sig) if sig is not None else None
    found = None
    if access is not None:
        # The value type is the prefix of the name: i64.load8_u reads one byte into an i64.
        value_type = BY_NAME[name.split(".")[0]]
        if not isinstance(value_type, NumType | VecType):
            raise TypeError(f"{name} does not start with a number or vector type")
        width, _, count = access.lstrip("abcdefghijklmnopqrstuvwxyz").partition("x")
        found = Access(access, int(width) * int(count or 1) // 8, value_type)
    return Opcode(name, code, prefix, tuple(Imm(word) for word in imm.split()), parsed, feature, found)
