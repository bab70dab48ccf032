"""Value, reference, composite and store-object types (spec: Structure, Types).

A type occurs in two forms. *As written*, in a decoded module, a reference names a type by its index, which
means something in that module only. *Closed*, after validation, it holds a `DefType`: the one object for a
type in the whole process, so that the comparisons of validation and of run-time checks are identity tests.
`matching.close_types` turns the first form into the second.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any


class ValType:
    """A value type; `name` is its text form."""

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (_by_name, (self.name,))  # unpickling and copying keep identity


class NumType(ValType):
    """i32, i64, f32 or f64; `bits` is the width, `integer` tells the two families apart."""

    __slots__ = ("bits", "integer")

    def __init__(self, name: str, bits: int, integer: bool) -> None:
        super().__init__(name)
        self.bits, self.integer = bits, integer


class VecType(ValType):
    """v128; `bits` is the width."""

    __slots__ = ("bits",)

    def __init__(self, name: str, bits: int) -> None:
        super().__init__(name)
        self.bits = bits


class HeapType(Enum):
    """Abstract heap types: what a reference may point at. The value is the text form."""

    FUNC = "func"
    NOFUNC = "nofunc"
    EXTERN = "extern"
    NOEXTERN = "noextern"
    ANY = "any"
    EQ = "eq"
    I31 = "i31"
    STRUCT = "struct"
    ARRAY = "array"
    NONE = "none"
    EXN = "exn"
    NOEXN = "noexn"
    #: Below all others: where a reference comes out of unreachable code. No module can write it.
    BOT = "bot"

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is slow


class RefType(ValType):
    """`(ref null? heap)`; make one with `ref`. `heap` is a type index only in types as written."""

    __slots__ = ("heap", "nullable")

    def __init__(self, nullable: bool, heap: HeapType | int | DefType) -> None:
        super().__init__(_ref_name(nullable, heap))
        self.nullable, self.heap = nullable, heap

    # Closed types are interned, but those with an index are made where they are met.
    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, RefType) and self.nullable == other.nullable and self.heap == other.heap
        )

    def __hash__(self) -> int:
        return hash((self.nullable, self.heap))

    def __reduce__(self) -> tuple[Any, ...]:
        return (ref, (self.nullable, self.heap))


class BottomType(ValType):
    """The type of an operand that unreachable code pops from nowhere: it matches everything."""

    __slots__ = ()


class PackedType(ValType):
    """i8 or i16: how a field is stored. Not the type of any operand."""

    __slots__ = ("bits",)

    def __init__(self, name: str, bits: int) -> None:
        super().__init__(name)
        self.bits = bits


#: Nullable references to abstract types have names of their own; these are not `<heap>ref`.
_SHORT_NAMES = {HeapType.NONE: "nullref", HeapType.NOFUNC: "nullfuncref", HeapType.NOEXTERN: "nullexternref"}
_SHORT_NAMES[HeapType.NOEXN] = "nullexnref"


def _ref_name(nullable: bool, heap: HeapType | int | DefType) -> str:
    if isinstance(heap, HeapType):
        return _SHORT_NAMES.get(heap, f"{heap.value}ref") if nullable else f"(ref {heap.value})"
    return f"(ref null {heap})" if nullable else f"(ref {heap})"


@functools.cache
def _abstract(nullable: bool, heap: HeapType) -> RefType:
    return RefType(nullable, heap)


def ref(nullable: bool, heap: HeapType | int | DefType) -> RefType:
    """The reference type; one object for each closed one."""
    if isinstance(heap, HeapType):
        return _abstract(nullable, heap)
    if isinstance(heap, int):
        return RefType(nullable, heap)
    return heap.nullable_ref if nullable else heap.ref


I32 = NumType("i32", 32, True)
I64 = NumType("i64", 64, True)
F32 = NumType("f32", 32, False)
F64 = NumType("f64", 64, False)
V128 = VecType("v128", 128)
FUNCREF = ref(True, HeapType.FUNC)
EXTERNREF = ref(True, HeapType.EXTERN)
ANYREF = ref(True, HeapType.ANY)
EQREF = ref(True, HeapType.EQ)
EXNREF = ref(True, HeapType.EXN)
BOTTOM = BottomType("bot")
I8 = PackedType("i8", 8)
I16 = PackedType("i16", 16)

#: Every value type that can be written by a single word.
BY_NAME: dict[str, ValType] = {
    t.name: t for t in (I32, I64, F32, F64, V128, *(ref(True, h) for h in HeapType if h is not HeapType.BOT))
}

_SINGLETONS: dict[str, ValType] = {**BY_NAME, **{t.name: t for t in (BOTTOM, I8, I16)}}


def _by_name(name: str) -> ValType:
    return _SINGLETONS[name]


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
class FieldType:
    """A field of a struct, or what an array holds: a value type or a packed type."""

    storage: ValType
    mutable: bool = False

    def __str__(self) -> str:
        return f"(mut {self.storage})" if self.mutable else str(self.storage)

    @property
    def value(self) -> ValType:
        """The operand type a field is read and written as: i32 for packed ones."""
        return I32 if isinstance(self.storage, PackedType) else self.storage


@dataclass(frozen=True, slots=True)
class StructType:
    """A struct's fields in order."""

    fields: tuple[FieldType, ...] = ()

    def __str__(self) -> str:
        return "struct" + "".join(f" {f}" for f in self.fields)


@dataclass(frozen=True, slots=True)
class ArrayType:
    """What every element of an array is."""

    field: FieldType

    def __str__(self) -> str:
        return f"array {self.field}"


CompType = FuncType | StructType | ArrayType


@dataclass(frozen=True, slots=True)
class SubType:
    """A type definition as written: `supers` are type indices, references name types by index."""

    composite: CompType
    final: bool = True
    supers: tuple[int, ...] = ()


class DefType:
    """A defined type, closed and canonical: two that are equal in the specification's sense are one object.

    `composite` is what it is with all references closed, `supers` are its ancestors, the nearest first.
    Types of one recursion group are kept alive together by `group`.
    """

    __slots__ = ("__weakref__", "composite", "final", "group", "kind", "nullable_ref", "ref", "supers")

    def __init__(self, composite: CompType, final: bool, group: object) -> None:
        # As written until `matching` has closed it: inside a group types refer to each other.
        self.composite: CompType = composite
        self.final, self.group = final, group
        self.supers: tuple[DefType, ...] = ()
        #: func, struct or array. References show this word and no more, since a type may lead back to itself.
        self.kind = _KINDS[type(composite)]
        self.ref = RefType(False, self)
        self.nullable_ref = RefType(True, self)

    @property
    def func(self) -> FuncType:
        """Its function type. Raises TypeError for a struct or an array."""
        if not isinstance(self.composite, FuncType):
            raise TypeError(f"{self.composite} is not a function type")
        return self.composite

    @property
    def struct(self) -> StructType:
        """Its struct type. Raises TypeError for anything else."""
        if not isinstance(self.composite, StructType):
            raise TypeError(f"{self.composite} is not a struct type")
        return self.composite

    @property
    def field(self) -> FieldType:
        """What the elements of its array type are. Raises TypeError for anything else."""
        if not isinstance(self.composite, ArrayType):
            raise TypeError(f"{self.composite} is not an array type")
        return self.composite.field

    def is_sub(self, other: DefType) -> bool:
        """Whether this is the other type or declared below it."""
        return self is other or other in self.supers

    def __str__(self) -> str:
        return f"<a {self.kind} type>"

    def __repr__(self) -> str:
        return f"<DefType {self.kind}: {self.composite}>"


_KINDS: dict[type, str] = {FuncType: "func", StructType: "struct", ArrayType: "array"}


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
        return f"memory {'i64 ' if self.address is I64 else ''}{self.limits}"


@dataclass(frozen=True, slots=True)
class TableType:
    """Element type and limits in elements."""

    element: RefType
    limits: Limits
    address: NumType = I32

    def __str__(self) -> str:
        return f"table {'i64 ' if self.address is I64 else ''}{self.limits} {self.element}"


@dataclass(frozen=True, slots=True)
class GlobalType:
    """Value type and whether it may be set."""

    value: ValType
    mutable: bool = False

    def __str__(self) -> str:
        return f"global (mut {self.value})" if self.mutable else f"global {self.value}"


@dataclass(frozen=True, slots=True)
class TagType:
    """What an exception with this tag carries: the parameters of a function type without results."""

    type: FuncType

    def __str__(self) -> str:
        return f"tag ({self.type})"


ExternType = FuncType | TableType | MemoryType | GlobalType | TagType

#: The word for each kind of extern, as messages and listings use it.
EXTERN_KINDS: dict[type, str] = {
    FuncType: "func",
    TableType: "table",
    MemoryType: "memory",
    GlobalType: "global",
    TagType: "tag",
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
