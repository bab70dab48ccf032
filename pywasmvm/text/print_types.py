"""Types as text: the counterpart of `types`."""

from __future__ import annotations

from collections.abc import Iterator

from pywasmvm.syntax import ModuleSyntax
from pywasmvm.text.identifiers import NAMELESS, Identifiers, Space
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
    TableType,
    ValType,
)


class TypePrinter:
    """Prints types of one module; those that name a defined type do so by its identifier."""

    def __init__(self, module: ModuleSyntax, ids: Identifiers) -> None:
        self.module, self.ids = module, ids

    def heap(self, heap: HeapType | int | DefType) -> str:
        """A heap type as written. Raises TypeError for a closed one, which belongs to no module."""
        if isinstance(heap, DefType):
            raise TypeError("a module's syntax names its types by index")
        return self.ids.types.reference(heap) if isinstance(heap, int) else heap.value

    def value(self, type_: ValType) -> str:
        """A value type or a packed type."""
        if isinstance(type_, RefType) and not isinstance(type_.heap, HeapType):
            return f"(ref {'null ' if type_.nullable else ''}{self.heap(type_.heap)})"
        return type_.name

    def values(self, word: str, types: tuple[ValType, ...]) -> str:
        """`(result t1 t2)`."""
        return f"({' '.join([word, *map(self.value, types)])})"

    # -- definitions -------------------------------------------------------------------------------------

    def definitions(self) -> Iterator[str]:
        """All type definitions, in lines."""
        first = 0
        for size in self.module.groups:
            if size == 1:
                yield f"  {self._definition(first)}"
            else:
                yield "  (rec"
                for index in range(first, first + size):
                    yield f"    {self._definition(index)}"
                yield "  )"
            first += size

    def _definition(self, index: int) -> str:
        subtype = self.module.types[index]
        text = f"({self._composite(subtype.composite, index)})"
        if subtype.supers or not subtype.final:
            words = [
                "sub",
                *(["final"] if subtype.final else []),
                *map(self.ids.types.reference, subtype.supers),
            ]
            text = f"({' '.join(words)} {text})"
        return f"(type {self.ids.types.definition(index)}(;{index};) {text})"

    def _composite(self, composite: CompType, index: int) -> str:
        if isinstance(composite, FuncType):
            return "func" + self._signature(composite, NAMELESS)
        if isinstance(composite, ArrayType):
            return f"array {self._field(composite.field)}"
        names = self.ids.fields.get(index, NAMELESS)
        fields = (f" (field {names.definition(n)}{self._field(f)})" for n, f in enumerate(composite.fields))
        return "struct" + "".join(fields)

    def _field(self, field: FieldType) -> str:
        text = self.value(field.storage)
        return f"(mut {text})" if field.mutable else text

    def _signature(self, type_: FuncType, names: Space) -> str:
        params = (
            f" (param {names.definition(n)}{self.value(param)})" for n, param in enumerate(type_.params)
        )
        return "".join(params) + (f" {self.values('result', type_.results)}" if type_.results else "")

    # -- what others need to know ------------------------------------------------------------------------

    def params(self, index: int) -> tuple[ValType, ...]:
        """The parameters of a function type; none when there is no such type."""
        composite = self.module.types[index].composite if index < len(self.module.types) else None
        return composite.params if isinstance(composite, FuncType) else ()

    # -- uses --------------------------------------------------------------------------------------------

    def use(self, index: int, names: Space) -> str:
        """A type use with its signature written out; `names` are those of the parameters."""
        text = f"(type {self.ids.types.reference(index)})"
        composite = self.module.types[index].composite if index < len(self.module.types) else None
        return text + self._signature(composite, names) if isinstance(composite, FuncType) else text

    @staticmethod
    def _limits(limits: Limits, address: NumType) -> str:
        words = ["i64"] if address is I64 else []
        return " ".join([*words, str(limits.min), *([] if limits.max is None else [str(limits.max)])])

    def memory(self, type_: MemoryType) -> str:
        """The type of a memory."""
        return self._limits(type_.limits, type_.address)

    def table(self, type_: TableType) -> str:
        """The type of a table."""
        return f"{self._limits(type_.limits, type_.address)} {self.value(type_.element)}"

    def global_(self, type_: GlobalType) -> str:
        """The type of a global."""
        text = self.value(type_.value)
        return f"(mut {text})" if type_.mutable else text
