"""Rules of the reference instructions: nulls, function references, branches and casts on references."""

from __future__ import annotations

from pywasmvm.errors import InvalidError
from pywasmvm.matching import matches, top_heap
from pywasmvm.types import ANYREF, EXTERNREF, I32, DefType, HeapType, RefType, ref
from pywasmvm.valid.code import CodeValidator, rule


@rule("ref.null")
def _ref_null(v: CodeValidator, heap: HeapType | int) -> None:
    v.push(ref(True, v.context.heap(heap)))


@rule("ref.is_null")
def _ref_is_null(v: CodeValidator, immediate: None) -> None:
    v.pop_ref()
    v.push(I32)


@rule("ref.func")
def _ref_func(v: CodeValidator, index: int) -> None:
    type_ = v.context.function(index)
    if index not in v.context.declared:
        raise InvalidError("undeclared function reference")
    v.push(type_.ref)


@rule("ref.as_non_null")
def _ref_as_non_null(v: CodeValidator, immediate: None) -> None:
    v.push(ref(False, v.pop_ref().heap))


@rule("br_on_null")
def _br_on_null(v: CodeValidator, depth: int) -> None:
    found = v.pop_ref()
    operands = v.label(depth).operands
    v.pop_all(operands)
    v.push_all(operands)
    v.push(ref(False, found.heap))


def _carried_reference(v: CodeValidator, depth: int) -> RefType:
    """The last operand of a label that a branch gives a reference to."""
    operands = v.label(depth).operands
    if not operands or not isinstance(operands[-1], RefType):
        raise InvalidError(f"type mismatch: label {depth} takes no reference")
    return operands[-1]


@rule("br_on_non_null")
def _br_on_non_null(v: CodeValidator, depth: int) -> None:
    v.pop(ref(True, _carried_reference(v, depth).heap))
    rest = v.label(depth).operands[:-1]
    v.pop_all(rest)
    v.push_all(rest)


def _closed(v: CodeValidator, type_: RefType) -> tuple[RefType, HeapType | DefType]:
    closed = v.context.close_ref(type_)
    return closed, v.context.heap(closed.heap)


@rule("ref.test")
def _ref_test(v: CodeValidator, wanted: RefType) -> None:
    _, heap = _closed(v, wanted)
    v.pop(ref(True, top_heap(heap)))
    v.push(I32)


@rule("ref.cast")
def _ref_cast(v: CodeValidator, wanted: RefType) -> None:
    closed, heap = _closed(v, wanted)
    v.pop(ref(True, top_heap(heap)))
    v.push(closed)


def _cast_branch(v: CodeValidator, immediate: tuple[int, RefType, RefType], taken_on_success: bool) -> None:
    depth, *written = immediate
    before, after = (v.context.close_ref(type_) for type_ in written)
    if not matches(after, before):
        raise InvalidError(f"type mismatch: {after} is not below {before}")
    # What is left of the type when the cast did not succeed: a nullable target has caught the nulls.
    rest = ref(before.nullable and not after.nullable, before.heap)
    carried, kept = (after, rest) if taken_on_success else (rest, after)
    label = _carried_reference(v, depth)
    if not matches(carried, label):
        raise InvalidError(f"type mismatch: label {depth} takes {label}, not {carried}")
    v.pop(before)
    operands = v.label(depth).operands[:-1]
    v.pop_all(operands)
    v.push_all(operands)
    v.push(kept)


@rule("br_on_cast")
def _br_on_cast(v: CodeValidator, immediate: tuple[int, RefType, RefType]) -> None:
    _cast_branch(v, immediate, taken_on_success=True)


@rule("br_on_cast_fail")
def _br_on_cast_fail(v: CodeValidator, immediate: tuple[int, RefType, RefType]) -> None:
    _cast_branch(v, immediate, taken_on_success=False)


def _convert(v: CodeValidator, operand: RefType, result: HeapType) -> None:
    found = v.pop(operand)
    v.push(ref(isinstance(found, RefType) and found.nullable, result))


@rule("any.convert_extern")
def _any_convert_extern(v: CodeValidator, immediate: None) -> None:
    _convert(v, EXTERNREF, HeapType.ANY)


@rule("extern.convert_any")
def _extern_convert_any(v: CodeValidator, immediate: None) -> None:
    _convert(v, ANYREF, HeapType.EXTERN)


@rule("ref.i31")
def _ref_i31(v: CodeValidator, immediate: None) -> None:
    v.pop(I32)
    v.push(ref(False, HeapType.I31))
