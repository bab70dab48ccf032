"""Calls, direct and indirect, tail calls, and throwing.

`f3` is a closure cell with what runs function 3; `T0` the list of the elements of table 0; `y5` the defined
type 5. A tail call returns to a trampoline (`link.py`), which makes the call when this frame is gone.
"""

from __future__ import annotations

from pywasmvm.translate.body import Body
from pywasmvm.translate.expr import READS, TRAPS
from pywasmvm.translate.integers import canonical
from pywasmvm.translate.rules import rule
from pywasmvm.translate.symbolic import number
from pywasmvm.types import FuncType


def _arguments(body: Body, type_: FuncType) -> list[str]:
    """The operands of a call as text, in order."""
    operands = body.pop_many(len(type_.params))
    texts = [body.escaping(e) for e in operands]
    body.spill(READS | TRAPS)
    body.pay()
    return texts


def _results(body: Body, type_: FuncType, text: str) -> None:
    """The call as a statement; its results on the stack."""
    text = body.mark(text)
    body.known.forget()
    count = len(type_.results)
    if count == 0:
        body.statement(text)
    elif count == 1:
        body.push_variable(body.variable(text), type_.results[0])
    else:
        name = body.variable(text)
        for place, result in enumerate(type_.results):
            body.push_variable(body.variable(f"{name}[{place}]"), result)


@rule("call")
def _call(body: Body, index: int) -> None:
    type_ = body.context.functions[index].func
    arguments = _arguments(body, type_)
    _results(body, type_, f"{body.use(f'f{index}')}({','.join(arguments)})")


def _element(body: Body, type_index: int, table: int) -> str:
    """The function of a table that an indirect call goes to, checked."""
    bits = body.context.tables[table].address.bits
    (place,) = body.names(number(canonical(body.pop(), bits, body)))
    body.spill(TRAPS)
    found = body.variable(body.mark(f"{body.use(f'T{table}')}[{place.text}]"))
    wanted = f"y{type_index}"
    check = body.mark(f"element({found},{wanted},{place.text})")
    body.statement(f"if {found} is None or {found}.deftype is not {wanted}:{check}")
    return found


@rule("call_indirect")
def _call_indirect(body: Body, immediate: tuple[int, int]) -> None:
    type_index, table = immediate
    type_ = body.context.types[type_index].func
    found = _element(body, type_index, table)
    arguments = _arguments(body, type_)
    _results(body, type_, f"{found}.code({','.join(arguments)})")


def _function(body: Body) -> str:
    """A function reference that is not null."""
    reference = body.pop()
    body.spill(TRAPS)
    (reference,) = body.names(reference)
    body.statement(f"if {reference.text} is None:{body.mark('null_function()')}")
    return reference.text


@rule("call_ref")
def _call_ref(body: Body, type_index: int) -> None:
    type_ = body.context.types[type_index].func
    found = _function(body)
    _results(body, type_, f"{found}.code({','.join(_arguments(body, type_))})")


# -- tail calls ----------------------------------------------------------------------------------------------


def _tail(body: Body, type_: FuncType, target: str) -> None:
    arguments = _arguments(body, type_)
    body.statement(body.mark(f"return tail({target},({','.join([*arguments, ''])}))"))


@rule("return_call")
def _return_call(body: Body, index: int) -> None:
    _tail(body, body.context.functions[index].func, f"{body.use('I')}.funcs[{index}]")


@rule("return_call_indirect")
def _return_call_indirect(body: Body, immediate: tuple[int, int]) -> None:
    type_index, table = immediate
    _tail(body, body.context.types[type_index].func, _element(body, type_index, table))


@rule("return_call_ref")
def _return_call_ref(body: Body, type_index: int) -> None:
    _tail(body, body.context.types[type_index].func, _function(body))


# -- exceptions ----------------------------------------------------------------------------------------------


@rule("throw")
def _throw(body: Body, index: int) -> None:
    arguments = _arguments(body, body.context.tags[index].func)
    tuple_ = ",".join([*arguments, ""])
    body.statement(body.mark(f"throw({body.use('I')}.tags[{index}],({tuple_}))"))


@rule("throw_ref")
def _throw_ref(body: Body, immediate: None) -> None:
    exn = body.pop()
    body.spill(TRAPS)
    body.pay()
    body.statement(body.mark(f"throw_ref({exn.text})"))


@rule("unreachable")
def _unreachable(body: Body, immediate: None) -> None:
    body.spill(TRAPS)
    body.statement(body.mark("unreachable()"))
