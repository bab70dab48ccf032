"""Module-level rules, in the order of the specification (spec: Validation, Modules).

`validate_module` checks everything but function bodies and returns the context that typing a body needs;
bodies follow at once (eager) or each before its first run (lazy).
"""

from __future__ import annotations

# The family files register their rules when they are imported.
from pywasmvm.errors import InvalidError
from pywasmvm.syntax import Code, Elem, ModuleSyntax
from pywasmvm.types import I32, FuncType, Limits, ValType
from pywasmvm.valid import control, memory, reference, table
from pywasmvm.valid.constant import validate_constant
from pywasmvm.valid.context import Context

RULE_FILES = (control, memory, reference, table)

MAX_PAGES = 1 << 16
MAX_TABLE = (1 << 32) - 1


def _limits(limits: Limits, most: int, message: str) -> None:
    if limits.min > most or (limits.max is not None and limits.max > most):
        raise InvalidError(message)
    if limits.max is not None and limits.max < limits.min:
        raise InvalidError("size minimum must not be greater than maximum")


def validate_module(module: ModuleSyntax) -> Context:
    """Check everything but the bodies. Raises InvalidError."""
    context = Context(module)
    for memory_type in context.memories:
        _limits(memory_type.limits, MAX_PAGES, f"memory size must be at most {MAX_PAGES} pages (4GiB)")
    for table_type in context.tables:
        _limits(table_type.limits, MAX_TABLE, "table size must be at most 2^32-1")
    _declare(context, module)
    for number, entry in enumerate(module.globals):
        known = context.imported_globals + number
        validate_constant(context, entry.init, entry.type.value, known)
    for table_entry in module.tables:
        if table_entry.init is not None:
            validate_constant(context, table_entry.init, table_entry.type.element, len(context.globals))
    for elem in module.elems:
        _elem(context, elem)
    _data(context, module)
    if module.start is not None and context.function(module.start) != FuncType():
        raise InvalidError("start function must have neither parameters nor results")
    _exports(context, module)
    return context


def _declare(context: Context, module: ModuleSyntax) -> None:
    """Collect the functions that occur outside of bodies: only those may be taken by `ref.func` in code."""

    def expression(code: Code) -> None:
        for opcode, immediate in zip(code.ops, code.immediates, strict=True):
            if opcode.name == "ref.func" and isinstance(immediate, int):
                context.declared.add(immediate)

    for export in module.exports:
        if export.kind == "func":
            context.declared.add(export.index)
    for entry in module.globals:
        expression(entry.init)
    for elem in module.elems:
        for item in elem.items:
            if isinstance(item, int):
                context.declared.add(item)
            else:
                expression(item)


def _elem(context: Context, elem: Elem) -> None:
    known = len(context.globals)
    try:
        for item in elem.items:
            if isinstance(item, int):
                context.function(item)
            else:
                validate_constant(context, item, elem.type, known)
        if elem.mode == "active":
            target = context.table(elem.table)
            if target.element is not elem.type:
                raise InvalidError(f"type mismatch: a table of {target.element} filled with {elem.type}")
            if elem.offset is not None:
                validate_constant(context, elem.offset, target.address, known)
    except InvalidError as error:
        raise InvalidError(error.message, None, error.offset or elem.position, error.instruction) from None


def _data(context: Context, module: ModuleSyntax) -> None:
    data = module.data
    known = len(context.globals)
    for memory_index, offset, start in zip(data.memory, data.offset, data.start, strict=True):
        if memory_index < 0:
            continue
        address: ValType = context.memory(memory_index).address
        if isinstance(offset, int):
            if address is not I32:
                raise InvalidError(f"type mismatch: expected {address}, found i32", None, start)
        elif offset is not None:
            validate_constant(context, offset, address, known)


def _exports(context: Context, module: ModuleSyntax) -> None:
    lookup = {
        "func": context.function,
        "table": context.table,
        "memory": context.memory,
        "global": context.global_,
    }
    seen: set[str] = set()
    for export in module.exports:
        lookup[export.kind](export.index)
        if export.name in seen:
            raise InvalidError(f"duplicate export name {export.name!r}")
        seen.add(export.name)
    if len(context.memories) > 1:
        raise InvalidError("multiple memories")
