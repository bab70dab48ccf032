"""Result patterns: what `assert_return` may expect (the suite's script language, results).

Numbers agree when their bits do, so -0.0 is not 0.0 and the payload of a NaN counts, unless the pattern is
one of the two NaN classes. A pattern sees the static type beside the value: an i31 that was made external is
the same Python object, and only its type tells that it is an external reference now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pywasmvm.matching import top_heap
from pywasmvm.numerics.bits import f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from pywasmvm.runtime.func import Func
from pywasmvm.runtime.gc import I31, Array, Struct
from pywasmvm.runtime.tag import Exn
from pywasmvm.types import F32, F64, V128, HeapType, NumType, RefType, ValType


@dataclass(frozen=True, slots=True)
class HostRef:
    """A reference that belongs to the script: `(ref.host n)`, in its external form `(ref.extern n)`."""

    number: int


class Pattern(Protocol):
    """What one result has to be."""

    def accepts(self, type_: ValType, value: Any) -> bool:
        """Whether a canonical value of a static type agrees."""
        ...


def to_bits(type_: ValType, value: Any) -> int:
    """The bit pattern of a canonical number or vector."""
    if type_ is F32:
        return f32_to_bits(value)
    return f64_to_bits(value) if type_ is F64 else value


def from_bits(type_: ValType, bits: int) -> Any:
    """The canonical number or vector with these bits."""
    if type_ is F32:
        return f32_from_bits(bits)
    return f64_from_bits(bits) if type_ is F64 else bits


@dataclass(frozen=True, slots=True)
class Exact:
    """A number or vector, bit by bit."""

    type: ValType
    bits: int

    def accepts(self, type_: ValType, value: Any) -> bool:
        """See Pattern."""
        return type_ is self.type and to_bits(type_, value) == self.bits

    def __str__(self) -> str:
        return show(self.type, from_bits(self.type, self.bits))


#: By width: all bits but the sign, the pattern of the canonical NaN.
_NUMBER = {32: 0x7FFFFFFF, 64: 0x7FFFFFFFFFFFFFFF}
_CANONICAL = {32: 0x7FC00000, 64: 0x7FF8000000000000}


def is_nan(kind: str, width: int, bits: int) -> bool:
    """Whether the bits are a NaN of a class, of either sign.

    `nan:canonical`: the payload is exactly its top bit. `nan:arithmetic`: the top bit is set.
    """
    quiet = _CANONICAL[width]
    return (bits & (_NUMBER[width] if kind == "nan:canonical" else quiet)) == quiet


@dataclass(frozen=True, slots=True)
class NaN:
    """`nan:canonical` or `nan:arithmetic`."""

    type: NumType
    kind: str

    def accepts(self, type_: ValType, value: Any) -> bool:
        """See Pattern."""
        return type_ is self.type and is_nan(self.kind, self.type.bits, to_bits(type_, value))

    def __str__(self) -> str:
        return f"{self.type}:{self.kind}"


@dataclass(frozen=True, slots=True)
class Lanes:
    """A vector of floats, some of which may be any NaN of a class: a lane is its bits, or that class."""

    width: int
    lanes: tuple[int | str, ...]

    def accepts(self, type_: ValType, value: Any) -> bool:
        """See Pattern."""
        if type_ is not V128:
            return False
        mask = (1 << self.width) - 1
        for place, lane in enumerate(self.lanes):
            bits = value >> (place * self.width) & mask
            if not (is_nan(lane, self.width, bits) if isinstance(lane, str) else lane == bits):
                return False
        return True

    def __str__(self) -> str:
        parts = [lane if isinstance(lane, str) else f"{lane:#x}" for lane in self.lanes]
        return f"v128:{self.width}x{len(parts)} {' '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Either:
    """Any one of several patterns."""

    patterns: tuple[Pattern, ...]

    def accepts(self, type_: ValType, value: Any) -> bool:
        """See Pattern."""
        return any(pattern.accepts(type_, value) for pattern in self.patterns)

    def __str__(self) -> str:
        return f"either {' or '.join(map(str, self.patterns))}"


@dataclass(frozen=True, slots=True)
class Null:
    """`(ref.null)`, or with a heap type a null of that type's hierarchy."""

    heap: HeapType | None

    def accepts(self, type_: ValType, value: Any) -> bool:
        """See Pattern."""
        if value is not None or not isinstance(type_, RefType):
            return False
        return self.heap is None or _hierarchy(type_) is top_heap(self.heap)

    def __str__(self) -> str:
        return "(ref.null)" if self.heap is None else f"(ref.null {self.heap.value})"


def _hierarchy(type_: RefType) -> HeapType | None:
    return None if isinstance(type_.heap, int) else top_heap(type_.heap)


#: What an object has to be for `(ref.struct)` and its like.
_CLASSES: dict[str, tuple[type, ...]] = {
    "func": (Func,),
    "exn": (Exn,),
    "i31": (I31,),
    "struct": (Struct,),
    "array": (Array,),
    "eq": (I31, Struct, Array),
    "any": (object,),
    "extern": (object,),
}

REFERENCES = tuple(_CLASSES)


@dataclass(frozen=True, slots=True)
class Reference:
    """`(ref.struct)` and its like: any reference to such a thing that is not null."""

    word: str

    def accepts(self, type_: ValType, value: Any) -> bool:
        """See Pattern."""
        if value is None or not isinstance(type_, RefType):
            return False
        return _hierarchy(type_) is top_heap(HeapType(self.word)) and isinstance(value, _CLASSES[self.word])

    def __str__(self) -> str:
        return f"(ref.{self.word})"


@dataclass(frozen=True, slots=True)
class Host:
    """`(ref.host n)`, or with `external` `(ref.extern n)`."""

    number: int
    external: bool

    def accepts(self, type_: ValType, value: Any) -> bool:
        """See Pattern."""
        if not isinstance(type_, RefType) or value != HostRef(self.number):
            return False
        return not self.external or _hierarchy(type_) is HeapType.EXTERN

    def __str__(self) -> str:
        return f"(ref.{'extern' if self.external else 'host'} {self.number})"


def show(type_: ValType, value: Any) -> str:
    """A result for a message: floats with their bits, because that is what is compared."""
    if type_ is V128:
        return f"v128:{value:#034x}"
    if type_ is F32 or type_ is F64:
        return f"{type_}:{value!r} ({to_bits(type_, value):#x})"
    return f"{type_}:{value}"


def mismatch(patterns: Sequence[Pattern], types: Sequence[ValType], values: Sequence[Any]) -> str | None:
    """None when every result agrees with its pattern, else what is wrong."""
    if len(values) != len(patterns):
        return f"got {len(values)} results, expected {len(patterns)}"
    for place, (pattern, type_, value) in enumerate(zip(patterns, types, values, strict=True)):
        if not pattern.accepts(type_, value):
            which = f"result {place}: " if len(values) > 1 else ""
            return f"{which}got {show(type_, value)}, expected {pattern}"
    return None
