"""Rules of the control, parametric and variable instructions."""

from __future__ import annotations

from collections.abc import Sequence

from pywasmvm.errors import InvalidError
from pywasmvm.matching import matches
from pywasmvm.syntax import BlockType
from pywasmvm.types import BOTTOM, FUNCREF, I32, NumType, ValType
from pywasmvm.valid.code import CodeValidator, Label, rule


def _blocktype(v: CodeValidator, immediate: BlockType | int) -> BlockType:
    if isinstance(immediate, int):  # the decoder found no such type
        raise InvalidError(f"unknown type {immediate}")
    return immediate


@rule("unreachable")
def _unreachable(v: CodeValidator, immediate: None) -> None:
    v.unreachable()


@rule("nop")
def _nop(v: CodeValidator, immediate: None) -> None:
    pass


@rule("block")
def _block(v: CodeValidator, immediate: BlockType | int) -> None:
    type_ = _blocktype(v, immediate)
    v.pop_all(type_.params)
    v.enter("block", type_.params, type_.results)


@rule("loop")
def _loop(v: CodeValidator, immediate: BlockType | int) -> None:
    type_ = _blocktype(v, immediate)
    v.pop_all(type_.params)
    v.enter("loop", type_.params, type_.results)


@rule("if")
def _if(v: CodeValidator, immediate: BlockType | int) -> None:
    type_ = _blocktype(v, immediate)
    v.pop(I32)
    v.pop_all(type_.params)
    v.enter("if", type_.params, type_.results)


@rule("else")
def _else(v: CodeValidator, immediate: None) -> None:
    label = v.leave()
    v.enter("else", label.params, label.results)


def _same(left: Sequence[ValType], right: Sequence[ValType]) -> bool:
    return len(left) == len(right) and all(matches(a, b) for a, b in zip(left, right, strict=True))


@rule("end")
def _end(v: CodeValidator, immediate: None) -> None:
    label = v.leave()
    if label.kind == "if" and not _same(label.params, label.results):
        # Without an else the operands pass through unchanged.
        raise InvalidError("type mismatch: an if without else must give back what it takes")
    v.push_all(label.results)


@rule("br")
def _br(v: CodeValidator, depth: int) -> None:
    v.pop_all(v.label(depth).operands)
    v.unreachable()


@rule("br_if")
def _br_if(v: CodeValidator, depth: int) -> None:
    operands = v.label(depth).operands
    v.pop(I32)
    v.pop_all(operands)
    v.push_all(operands)


@rule("br_table")
def _br_table(v: CodeValidator, depths: tuple[int, ...]) -> None:
    v.pop(I32)
    default: Label = v.label(depths[-1])
    arity = len(default.operands)
    for depth in dict.fromkeys(depths):  # a giant table mostly repeats a few labels
        operands = v.label(depth).operands
        if len(operands) != arity:
            raise InvalidError("type mismatch: the labels of br_table differ in arity")
        found = [v.pop(type_) for type_ in reversed(operands)]
        v.push_all(found[::-1])
    v.unreachable()


@rule("return")
def _return(v: CodeValidator, immediate: None) -> None:
    v.pop_all(v.labels[0].results)
    v.unreachable()


@rule("call")
def _call(v: CodeValidator, index: int) -> None:
    type_ = v.context.function(index)
    v.pop_all(type_.params)
    v.push_all(type_.results)


@rule("call_indirect")
def _call_indirect(v: CodeValidator, immediate: tuple[int, int]) -> None:
    type_index, table_index = immediate
    table = v.context.table(table_index)
    if not matches(table.element, FUNCREF):
        raise InvalidError(f"type mismatch: call_indirect through a table of {table.element}")
    type_ = v.context.type(type_index)
    v.pop(table.address)
    v.pop_all(type_.params)
    v.push_all(type_.results)


@rule("drop")
def _drop(v: CodeValidator, immediate: None) -> None:
    v.pop()


@rule("select")
def _select(v: CodeValidator, types: tuple[ValType, ...] | None) -> None:
    v.pop(I32)
    if types is not None:
        if len(types) != 1:
            raise InvalidError("invalid result arity: select gives exactly one value")
        v.pop(types[0])
        v.pop(types[0])
        v.push(types[0])
        return
    second, first = v.pop(), v.pop()
    for type_ in (first, second):
        if type_ is not BOTTOM and not isinstance(type_, NumType):
            raise InvalidError(f"type mismatch: select of {type_} needs its type written")
    if first is not second and BOTTOM not in (first, second):
        raise InvalidError(f"type mismatch: select between {first} and {second}")
    v.push(second if first is BOTTOM else first)


def _local(v: CodeValidator, index: int) -> ValType:
    if index >= len(v.locals):
        raise InvalidError(f"unknown local {index}")
    return v.locals[index]


@rule("local.get")
def _local_get(v: CodeValidator, index: int) -> None:
    v.push(_local(v, index))


@rule("local.set")
def _local_set(v: CodeValidator, index: int) -> None:
    v.pop(_local(v, index))


@rule("local.tee")
def _local_tee(v: CodeValidator, index: int) -> None:
    type_ = _local(v, index)
    v.pop(type_)
    v.push(type_)


@rule("global.get")
def _global_get(v: CodeValidator, index: int) -> None:
    v.push(v.context.global_(index).value)


@rule("global.set")
def _global_set(v: CodeValidator, index: int) -> None:
    type_ = v.context.global_(index)
    if not type_.mutable:
        raise InvalidError("immutable global")
    v.pop(type_.value)
