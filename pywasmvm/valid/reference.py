"""Rules of the reference instructions."""

from __future__ import annotations

from pywasmvm.errors import InvalidError
from pywasmvm.types import BOTTOM, FUNCREF, I32, HeapType, RefType, ref
from pywasmvm.valid.code import CodeValidator, rule


@rule("ref.null")
def _ref_null(v: CodeValidator, heap: HeapType) -> None:
    v.push(ref(True, heap))


@rule("ref.is_null")
def _ref_is_null(v: CodeValidator, immediate: None) -> None:
    found = v.pop()
    if found is not BOTTOM and not isinstance(found, RefType):
        raise InvalidError(f"type mismatch: expected a reference, found {found}")
    v.push(I32)


@rule("ref.func")
def _ref_func(v: CodeValidator, index: int) -> None:
    v.context.function(index)
    if index not in v.context.declared:
        raise InvalidError("undeclared function reference")
    v.push(FUNCREF)
