"""References, structs, arrays and casts: calls of `support.py` and `runtime/gc.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywasmvm.translate.body import Body
from pywasmvm.translate.expr import ATOM, COMPARE, READS, TRAPS, Expr, condition, merged
from pywasmvm.translate.rules import rule
from pywasmvm.translate.symbolic import BITS, MASKS
from pywasmvm.types import PackedType, RefType, ValType

# -- references ----------------------------------------------------------------------------------------------


@rule("ref.null")
def _null(body: Body, heap: object) -> None:
    body.push(Expr("None"))


@rule("ref.is_null")
def _is_null(body: Body, immediate: None) -> None:
    e = body.pop()
    text = e.at(COMPARE + 1)
    body.push(condition(f"{text} is None", COMPARE, f"{text} is not None", e), 32)


@rule("ref.func")
def _func(body: Body, index: int) -> None:
    body.push(Expr(f"{body.use('I')}.funcs[{index}]", ATOM, depth=1))


@rule("ref.as_non_null")
def _as_non_null(body: Body, immediate: None) -> None:
    (e,) = body.names(body.pop())
    body.spill(TRAPS)
    body.statement(f"if {e.text} is None:{body.mark('null_reference()')}")
    body.push(e)


@rule("ref.eq")
def _eq(body: Body, immediate: None) -> None:
    b, a = body.pop(), body.pop()
    body.push(Expr(f"ref_eq({a.text},{b.text})", ATOM, 0, 1, *merged(a, b)), 32)


@rule("ref.test")
def _test(body: Body, wanted: RefType) -> None:
    e = body.pop()
    text = f"is_instance({e.text},{body.reference_type(wanted)})"
    body.push(condition(text, ATOM, f"not {text}", e), 32)


@rule("ref.cast")
def _cast(body: Body, wanted: RefType) -> None:
    (e,) = body.names(body.pop())
    body.spill(TRAPS)
    text = f"is_instance({e.text},{body.reference_type(wanted)})"
    body.statement(f"if not {text}:{body.mark('cast_failure()')}")
    body.push(e)


@rule("any.convert_extern", "extern.convert_any")
def _convert(body: Body, immediate: None) -> None:
    """A reference is the same object inside and outside."""


@rule("ref.i31")
def _i31(body: Body, immediate: None) -> None:
    e = body.pop()
    e.bits = 32
    text = body.escaping(e)
    body.push(Expr(f"I31({text})", ATOM, 0, 0, *merged(e)))


@rule("i31.get_s")
def _i31_get_s(body: Body, immediate: None) -> None:
    e = body.pop()
    body.push(body.trapping_call("i31_get_s", e, hi=MASKS[32]), 32)


@rule("i31.get_u")
def _i31_get_u(body: Body, immediate: None) -> None:
    e = body.pop()
    body.push(body.trapping_call("i31_get_u", e, hi=MASKS[32]), 32)


# -- structs and arrays --------------------------------------------------------------------------------------


def _call(body: Body, name: str, count: int, *first: str, last: str = "") -> str:
    """A call of a helper: constants of the instruction first, then the operands in order; run now."""
    return _sized_call(body, name, count, *first, last=last, sized=False)[0]


def _sized_call(
    body: Body, name: str, count: int, *first: str, last: str = "", sized: bool = True
) -> tuple[str, str]:
    """The same, and the last operand, which says how much there is to do."""
    taken = body.pop_many(count)
    operands = [body.escaping(e) for e in (body.sized(taken) if sized else taken)]
    body.spill(READS | TRAPS)
    text = body.mark(f"{name}({','.join([*first, *operands, *([last] if last else [])])})")
    return text, operands[-1] if operands else "0"


def _push_sized(body: Body, call: tuple[str, str]) -> None:
    """A new array: its length is paid for."""
    text, size = call
    made = Expr(body.variable(text))
    body.pay_for(size)
    body.push(made)


def _state_sized(body: Body, call: tuple[str, str]) -> None:
    text, size = call
    body.statement(text)
    body.pay_for(size)


def _push_result(body: Body, text: str, storage: ValType) -> None:
    bits = 32 if isinstance(storage, PackedType) else BITS.get(storage, 0)
    made = Expr(body.variable(text), ATOM, 0, MASKS.get(bits, 0))
    made.nan = 2
    body.push(made, bits)


@rule("struct.new")
def _struct_new(body: Body, index: int) -> None:
    count = len(body.context.struct(index).fields)
    values = [body.escaping(e) for e in body.pop_many(count)]
    body.spill(READS | TRAPS)
    text = body.mark(f"new_struct(y{index},[{','.join(values)}],{body.use('I')}.store)")
    body.push(Expr(body.variable(text)))


@rule("struct.new_default")
def _struct_new_default(body: Body, index: int) -> None:
    text = body.mark(f"new_default_struct(y{index},{body.use('I')}.store)")
    body.spill(READS | TRAPS)
    body.push(Expr(body.variable(text)))


@rule("struct.get", "struct.get_u")
def _struct_get(body: Body, immediate: tuple[int, int]) -> None:
    index, field = immediate
    text = _call(body, "struct_get", 1, last=str(field))
    _push_result(body, text, body.context.struct(index).fields[field].storage)


@rule("struct.get_s")
def _struct_get_s(body: Body, immediate: tuple[int, int]) -> None:
    index, field = immediate
    text = _call(body, "struct_get_s", 1, f"y{index}", str(field))
    _push_result(body, text, body.context.struct(index).fields[field].storage)


@rule("struct.set")
def _struct_set(body: Body, immediate: tuple[int, int]) -> None:
    index, field = immediate
    body.statement(_call(body, "struct_set", 2, f"y{index}", str(field)))


@rule("array.new")
def _array_new(body: Body, index: int) -> None:
    store = f"{body.use('I')}.store"
    _push_sized(body, _sized_call(body, "new_array", 2, f"y{index}", last=store))


@rule("array.new_default")
def _array_new_default(body: Body, index: int) -> None:
    store = f"{body.use('I')}.store"
    _push_sized(body, _sized_call(body, "new_default_array", 1, f"y{index}", last=store))


@rule("array.new_fixed")
def _array_new_fixed(body: Body, immediate: tuple[int, int]) -> None:
    index, count = immediate
    values = [body.escaping(e) for e in body.pop_many(count)]
    body.spill(READS | TRAPS)
    text = body.mark(f"new_fixed_array(y{index},[{','.join(values)}],{body.use('I')}.store)")
    _push_sized(body, (text, str(count)))


def _with_instance(name: str, count: int) -> Callable[[Body, Any], None]:
    """Helpers that take the instance and the immediates before the operands."""

    def run(body: Body, immediate: tuple[int, int]) -> None:
        call = _sized_call(body, name, count, body.use("I"), f"y{immediate[0]}", str(immediate[1]))
        (_push_sized if name.startswith("array_new") else _state_sized)(body, call)

    return run


for _name, _count in (
    ("array.new_data", 2),
    ("array.new_elem", 2),
    ("array.init_data", 4),
    ("array.init_elem", 4),
):
    rule(_name)(_with_instance(_name.replace(".", "_"), _count))


@rule("array.get", "array.get_u")
def _array_get(body: Body, index: int) -> None:
    _push_result(body, _call(body, "array_get", 2), body.context.array(index).field.storage)


@rule("array.get_s")
def _array_get_s(body: Body, index: int) -> None:
    _push_result(body, _call(body, "array_get_s", 2, f"y{index}"), body.context.array(index).field.storage)


@rule("array.set")
def _array_set(body: Body, index: int) -> None:
    body.statement(_call(body, "array_set", 3, f"y{index}"))


@rule("array.len")
def _array_len(body: Body, immediate: None) -> None:
    e = body.pop()
    body.push(body.trapping_call("array_len", e, hi=MASKS[32]), 32)


@rule("array.fill")
def _array_fill(body: Body, index: int) -> None:
    _state_sized(body, _sized_call(body, "array_fill", 4, f"y{index}"))


@rule("array.copy")
def _array_copy(body: Body, immediate: tuple[int, int]) -> None:
    _state_sized(body, _sized_call(body, "array_copy", 5))
