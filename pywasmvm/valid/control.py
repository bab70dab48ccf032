"""Rules of the control, parametric and variable instructions."""

from __future__ import annotations

from pywasmvm.errors import InvalidError
from pywasmvm.matching import matches, matches_all
from pywasmvm.syntax import Catch
from pywasmvm.types import BOTTOM, EXNREF, FUNCREF, I32, FuncType, HeapType, NumType, ValType, VecType, ref
from pywasmvm.valid.code import BY_IMMEDIATE, LOCAL_GET, LOCAL_SET, LOCAL_TEE, CodeValidator, Label, rule


@rule("unreachable")
def _unreachable(v: CodeValidator, immediate: None) -> None:
    v.unreachable()


@rule("nop")
def _nop(v: CodeValidator, immediate: None) -> None:
    pass


@rule("block")
def _block(v: CodeValidator, immediate: object) -> None:
    type_ = v.context.block_type(immediate)
    v.pop_all(type_.params)
    v.enter("block", type_.params, type_.results)


@rule("loop")
def _loop(v: CodeValidator, immediate: object) -> None:
    type_ = v.context.block_type(immediate)
    v.pop_all(type_.params)
    v.enter("loop", type_.params, type_.results)


@rule("if")
def _if(v: CodeValidator, immediate: object) -> None:
    type_ = v.context.block_type(immediate)
    v.pop(I32)
    v.pop_all(type_.params)
    v.enter("if", type_.params, type_.results)


@rule("else")
def _else(v: CodeValidator, immediate: None) -> None:
    label = v.leave()
    v.enter("else", label.params, label.results)


@rule("end")
def _end(v: CodeValidator, immediate: None) -> None:
    label = v.leave()
    if label.kind == "if" and not matches_all(label.params, label.results):
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
        if arity:
            found = [v.pop(type_) for type_ in reversed(operands)]
            v.push_all(found[::-1])
    v.unreachable()


@rule("return")
def _return(v: CodeValidator, immediate: None) -> None:
    v.pop_all(v.labels[0].results)
    v.unreachable()


def _callee(v: CodeValidator, type_: FuncType, tail: bool) -> None:
    """Take the arguments; give the results, or make them the caller's own."""
    if tail and not matches_all(type_.results, v.labels[0].results):
        raise InvalidError(f"type mismatch: a tail call to {type_} cannot return for its caller")
    v.pop_all(type_.params)
    if tail:
        v.unreachable()
    else:
        v.push_all(type_.results)


@rule("call", way=BY_IMMEDIATE)
def _call(v: CodeValidator, index: int) -> FuncType:
    return v.context.function(index).func


@rule("return_call")
def _return_call(v: CodeValidator, index: int) -> None:
    _callee(v, v.context.function(index).func, tail=True)


def _through_table(v: CodeValidator, immediate: tuple[int, int], tail: bool) -> None:
    type_index, table_index = immediate
    table = v.context.table(table_index)
    if not matches(table.element, FUNCREF):
        raise InvalidError(f"type mismatch: an indirect call through a table of {table.element}")
    type_ = v.context.func_type(type_index).func
    v.pop(table.address)
    _callee(v, type_, tail)


@rule("call_indirect")
def _call_indirect(v: CodeValidator, immediate: tuple[int, int]) -> None:
    _through_table(v, immediate, tail=False)


@rule("return_call_indirect")
def _return_call_indirect(v: CodeValidator, immediate: tuple[int, int]) -> None:
    _through_table(v, immediate, tail=True)


@rule("call_ref")
def _call_ref(v: CodeValidator, index: int) -> None:
    type_ = v.context.func_type(index)
    v.pop(ref(True, type_))
    _callee(v, type_.func, tail=False)


@rule("return_call_ref")
def _return_call_ref(v: CodeValidator, index: int) -> None:
    type_ = v.context.func_type(index)
    v.pop(ref(True, type_))
    _callee(v, type_.func, tail=True)


@rule("throw")
def _throw(v: CodeValidator, index: int) -> None:
    v.pop_all(v.context.tag(index).func.params)
    v.unreachable()


@rule("throw_ref")
def _throw_ref(v: CodeValidator, immediate: None) -> None:
    v.pop(EXNREF)
    v.unreachable()


@rule("try_table")
def _try_table(v: CodeValidator, immediate: tuple[object, tuple[Catch, ...]]) -> None:
    block, catches = immediate
    type_ = v.context.block_type(block)
    # Clauses branch from outside of the block, so their labels count without it.
    for clause in catches:
        carried: tuple[ValType, ...] = ()
        if clause.tag is not None:
            carried = v.context.tag(clause.tag).func.params
        if clause.kind in ("catch_ref", "catch_all_ref"):
            carried = (*carried, ref(False, HeapType.EXN))
        wanted = v.label(clause.label).operands
        if not matches_all(carried, wanted):
            raise InvalidError(f"type mismatch: {clause.kind} carries {list(carried)}, not {list(wanted)}")
    v.pop_all(type_.params)
    v.enter("try_table", type_.params, type_.results)


@rule("drop")
def _drop(v: CodeValidator, immediate: None) -> None:
    v.pop()


@rule("select")
def _select(v: CodeValidator, types: tuple[ValType, ...] | None) -> None:
    v.pop(I32)
    if types is not None:
        if len(types) != 1:
            raise InvalidError("invalid result arity: select gives exactly one value")
        type_ = v.context.close(types[0])
        v.pop(type_)
        v.pop(type_)
        v.push(type_)
        return
    second, first = v.pop(), v.pop()
    for type_ in (first, second):
        if type_ is not BOTTOM and not isinstance(type_, NumType | VecType):
            raise InvalidError(f"type mismatch: select of {type_} needs its type written")
    if first is not second and BOTTOM not in (first, second):
        raise InvalidError(f"type mismatch: select between {first} and {second}")
    v.push(second if first is BOTTOM else first)


@rule("local.get", way=LOCAL_GET)
def _local_get(v: CodeValidator, index: int) -> None:
    v.push(v.locals.read(index))


@rule("local.set", way=LOCAL_SET)
def _local_set(v: CodeValidator, index: int) -> None:
    v.pop(v.locals.type(index))
    v.locals.assign(index)


@rule("local.tee", way=LOCAL_TEE)
def _local_tee(v: CodeValidator, index: int) -> None:
    type_ = v.locals.type(index)
    v.pop(type_)
    v.locals.assign(index)
    v.push(type_)


@rule("global.get", way=BY_IMMEDIATE)
def _global_get(v: CodeValidator, index: int) -> FuncType:
    return FuncType((), (v.context.global_(index).value,))


@rule("global.set", way=BY_IMMEDIATE)
def _global_set(v: CodeValidator, index: int) -> FuncType:
    type_ = v.context.global_(index)
    if not type_.mutable:
        raise InvalidError(f"immutable global {index}")
    return FuncType((type_.value,), ())
