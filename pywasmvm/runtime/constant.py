"""The values of constant expressions (spec: Execution, Instantiation).

Validation has let only constant instructions through, so a stack and a table of functions are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pywasmvm.numerics import function
from pywasmvm.runtime import gc
from pywasmvm.syntax import Code

if TYPE_CHECKING:
    from pywasmvm.runtime.instance import Instance


def evaluate(instance: Instance, code: Code) -> Any:
    """The canonical value of a constant expression."""
    stack: list[Any] = []
    for opcode, immediate in zip(code.ops, code.immediates, strict=True):
        special = _SPECIAL.get(opcode.name)
        if special is not None:
            special(instance, stack, immediate)
        elif opcode.immediates:  # a constant
            stack.append(immediate)
        elif opcode.plain and opcode.signature is not None:
            _apply(stack, function(opcode.name), len(opcode.signature.params))
    return stack[-1]


def _apply(stack: list[Any], compute: Callable[..., Any], count: int) -> None:
    operands = _pop(stack, count)
    stack.append(compute(*operands))


def _pop(stack: list[Any], count: int) -> list[Any]:
    operands = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return operands


def _struct_new(instance: Instance, stack: list[Any], index: int) -> None:
    type_ = instance.types[index]
    values = _pop(stack, len(type_.struct.fields))
    stack.append(gc.new_struct(type_, values, instance.store))


def _array_new(instance: Instance, stack: list[Any], index: int) -> None:
    value, length = _pop(stack, 2)
    stack.append(gc.new_array(instance.types[index], value, length, instance.store))


def _array_new_fixed(instance: Instance, stack: list[Any], immediate: tuple[int, int]) -> None:
    index, count = immediate
    stack.append(gc.new_fixed_array(instance.types[index], _pop(stack, count), instance.store))


def _nothing(instance: Instance, stack: list[Any], immediate: None) -> None:
    pass


_SPECIAL: dict[str, Callable[[Any, list[Any], Any], None]] = {
    "end": _nothing,
    # References look the same on both sides.
    "any.convert_extern": _nothing,
    "extern.convert_any": _nothing,
    "global.get": lambda instance, stack, index: stack.append(instance.globals[index].raw),
    "ref.func": lambda instance, stack, index: stack.append(instance.funcs[index]),
    "ref.null": lambda instance, stack, heap: stack.append(None),
    "ref.i31": lambda instance, stack, immediate: stack.append(gc.I31(stack.pop())),
    "struct.new": _struct_new,
    "struct.new_default": lambda instance, stack, index: stack.append(
        gc.new_default_struct(instance.types[index], instance.store)
    ),
    "array.new": _array_new,
    "array.new_default": lambda instance, stack, index: stack.append(
        gc.new_default_array(instance.types[index], stack.pop(), instance.store)
    ),
    "array.new_fixed": _array_new_fixed,
}
