"""Value, reference, function and store-object types (spec: Structure, Types).

Value types are interned: the same type is the same object, so the hot comparisons of validation are
identity tests. Heap types other than the abstract ones join `HeapType` with the GC proposal.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum
from typing import Annotated


class ValType:
    """A value type; `name` is its text form."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return (_by_name, (self.name,))  # unpickling and copying keep identity


class NumType(ValType):
    """i32, i64, f32 or f64; `bits` is the width, `integer` tells the two families apart."""

    __slots__ = ("bits", "integer")

    def __init__(self, name: str, bits: int, integer: bool) -> None:
        super().__init__(name)
        self.bits, self.integer = bits, integer


class HeapType(Enum):
    """What a reference may point at; the value is the text form."""

    FUNC = "func"
    EXTERN = "extern"


class RefType(ValType):
    """`(ref null? heap)`; make one with `ref`."""

    __slots__ = ("heap", "nullable")

    def __init__(self, nullable: bool, heap: HeapType) -> None:
        super().__init__(f"{heap.value}ref" if nullable else f"(ref {heap.value})")
        self.nullable, self.heap = nullable, heap


class BottomType(ValType):
    """The type of an operand that unreachable code pops from nowhere: it matches everything."""

    __slots__ = ()


@functools.cache
def ref(nullable: bool, heap: HeapType) -> RefType:
    """The one object for this reference type."""
    return RefType(nullable, heap)


I32 = NumType("i32", 32, True)
I64 = NumType("i64", 64, True)
F32 = NumType("f32", 32, False)
F64 = NumType("f64", 64, False)
FUNCREF = ref(True, HeapType.FUNC)
EXTERNREF = ref(True, HeapType.EXTERN)
BOTTOM = BottomType("bot")

#: Every value type that can be written by a single word.
BY_NAME: dict[str, ValType] = {t.name: t for t in (I32, I64, F32, F64, FUNCREF, EXTERNREF)}


def _by_name(name: str) -> ValType:
    return BOTTOM if name == BOTTOM.name else BY_NAME[name]


@dataclass(frozen=True, slots=True)
class FuncType:
    """Parameter and result types."""

    params: tuple[ValType, ...] = ()
    results: tuple[ValType, ...] = ()

    @staticmethod
    @functools.cache
    def parse(text: str) -> FuncType:
        """Read `"i32 i64 -> i32"`; either side may be empty. Raises ValueError for an unknown type."""
        left, arrow, right = text.partition("->")
        if not arrow:
            raise ValueError(f"a function type needs an arrow: {text!r}")
        try:
            params, results = ([BY_NAME[word] for word in side.split()] for side in (left, right))
        except KeyError as error:
            raise ValueError(f"unknown value type {error.args[0]!r} in {text!r}") from None
        return FuncType(tuple(params), tuple(results))

    def __str__(self) -> str:
        left, right = (" ".join(t.name for t in side) for side in (self.params, self.results))
        return f"{left} -> {right}".strip()

    def __repr__(self) -> str:
        return f"FuncType([{', '.join(map(repr, self.params))}], [{', '.join(map(repr, self.results))}])"


@dataclass(frozen=True, slots=True)
class Limits:
    """The spec's pair of sizes: pages for memories, elements for tables; `max` None means unbounded."""

    min: int
    max: int | None = None

    def __str__(self) -> str:
        return f"{self.min}" if self.max is None else f"{self.min}..{self.max}"


@dataclass(frozen=True, slots=True)
class MemoryType:
    """Limits in pages of 64 KiB; `address` is the type of its addresses."""

    limits: Limits
    address: NumType = I32

    def __str__(self) -> str:
        return f"memory {self.limits}"


@dataclass(frozen=True, slots=True)
class TableType:
    """Element type and limits in elements."""

    element: RefType
    limits: Limits
    address: NumType = I32

    def __str__(self) -> str:
        return f"table {self.limits} {self.element}"


@dataclass(frozen=True, slots=True)
class GlobalType:
    """Value type and whether it may be set."""

    value: ValType
    mutable: bool = False

    def __str__(self) -> str:
        return f"global (mut {self.value})" if self.mutable else f"global {self.value}"


ExternType = FuncType | TableType | MemoryType | GlobalType

#: The word for each kind of extern, as messages and listings use it.
EXTERN_KINDS: dict[type, str] = {
    FuncType: "func",
    TableType: "table",
    MemoryType: "memory",
    GlobalType: "global",
}


@dataclass(frozen=True, slots=True)
class HostValue:
    """How a host function sees a parameter or result: the wasm type, and whether integers are signed."""

    type: NumType
    signed: bool = True


# Annotations for host functions: type checkers see int and float, the linker sees the wasm type.
i32 = Annotated[int, HostValue(I32)]
i64 = Annotated[int, HostValue(I64)]
u32 = Annotated[int, HostValue(I32, signed=False)]
u64 = Annotated[int, HostValue(I64, signed=False)]
f32 = Annotated[float, HostValue(F32)]
f64 = Annotated[float, HostValue(F64)]
