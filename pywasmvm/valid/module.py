"""Module-level rules, in the order of the specification (spec: Validation, Modules).

`validate_module` checks everything but function bodies and returns the context that typing a body needs;
bodies follow at once (eager) or each before its first run (lazy).
"""

from __future__ import annotations

from pywasmvm import features
from pywasmvm.errors import InvalidError
from pywasmvm.matching import matches
from pywasmvm.syntax import Code, Elem, ModuleSyntax
from pywasmvm.types import I32, I64, FuncType, Limits, NumType, RefType, StructType

# The family files register their rules when they are imported.
from pywasmvm.valid import control, gc, memory, reference, table
from pywasmvm.valid.constant import validate_constant
from pywasmvm.valid.context import Context

RULE_FILES = (control, gc, memory, reference, table)

#: Pages and elements that an address type can reach, and how messages write it.
MOST_PAGES = {I32: (1 << 16, "65536 pages (4GiB)"), I64: (1 << 48, "2^48 pages (16EiB)")}
MOST_ELEMENTS = {I32: ((1 << 32) - 1, "2^32-1"), I64: ((1 << 64) - 1, "2^64-1")}


def _limits(limits: Limits, bound: tuple[int, str], what: str) -> None:
    most, written = bound
    if limits.min > most or (limits.max is not None and limits.max > most):
        raise InvalidError(f"{what} size must be at most {written}")
    if limits.max is not None and limits.max < limits.min:
        raise InvalidError("size minimum must not be greater than maximum")


#: Parameters, results and fields that one type may have: the limits all engines agree on (the specification's
#: JavaScript interface lists them). Instructions of two bytes move that many operands.
MOST_PARAMETERS, MOST_FIELDS = 1_000, 10_000


def _types(module: ModuleSyntax) -> None:
    for index, subtype in enumerate(module.types):
        composite = subtype.composite
        if isinstance(composite, FuncType):
            most, count = MOST_PARAMETERS, max(len(composite.params), len(composite.results))
        elif isinstance(composite, StructType):
            most, count = MOST_FIELDS, len(composite.fields)
        else:
            continue
        if count > most:
            raise InvalidError(f"type {index} has {count} parameters, results or fields: more than {most}")


def validate_module(module: ModuleSyntax) -> Context:
    """Check everything but the bodies. Raises InvalidError."""
    if module.features != features.DEFAULT:
        from pywasmvm.valid.features import refuse  # only needed where something is switched off

        refuse(module)
    _types(module)
    context = Context(module)
    for memory_type in context.memories:
        _limits(memory_type.limits, MOST_PAGES[memory_type.address], "memory")
    for table_type in context.tables:
        _limits(table_type.limits, MOST_ELEMENTS[table_type.address], "table")
    for tag in context.tags:
        if tag.func.results:
            raise InvalidError("non-empty tag result type")
    _declare(context, module)
    for number, entry in enumerate(module.globals):
        known = context.imported_globals + number
        validate_constant(context, entry.init, context.globals[known].value, known)
    for number, table_entry in enumerate(module.tables):
        element = context.tables[context.imported_tables + number].element
        if table_entry.init is not None:
            # Tables come before globals, so only imported ones are known.
            validate_constant(context, table_entry.init, element, context.imported_globals)
        elif not element.nullable:
            raise InvalidError(f"type mismatch: a table of {element} needs an initial value")
    for elem, type_ in zip(module.elems, context.elems, strict=True):
        _elem(context, elem, type_)
    _data(context, module)
    if module.start is not None and context.function(module.start).func != FuncType():
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
    for table_entry in module.tables:
        if table_entry.init is not None:
            expression(table_entry.init)
    for elem in module.elems:
        for item in elem.items:
            if isinstance(item, int):
                context.declared.add(item)
            else:
                expression(item)


def _elem(context: Context, elem: Elem, type_: RefType) -> None:
    known = len(context.globals)
    try:
        for item in elem.items:
            if isinstance(item, int):
                found = context.function(item).ref
                if not matches(found, type_):
                    raise InvalidError(f"type mismatch: function {item} in a segment of {type_}")
            else:
                validate_constant(context, item, type_, known)
        if elem.mode == "active":
            target = context.table(elem.table)
            if not matches(type_, target.element):
                raise InvalidError(f"type mismatch: a table of {target.element} filled with {type_}")
            if elem.offset is not None:
                validate_constant(context, elem.offset, target.address, known)
    except InvalidError as error:
        raise InvalidError(error.message, None, error.offset or elem.position, error.instruction) from None


def _data(context: Context, module: ModuleSyntax) -> None:
    data = module.data
    known = len(context.globals)
    # Go links tens of thousands of segments, and this is all that there is to see of them.
    usual = not set(data.memory) - {0} and set(map(type, data.offset)) <= {int}
    if usual and context.memories and context.memory(0).address is I32:
        return
    for memory_index, offset, start in zip(data.memory, data.offset, data.start, strict=True):
        if memory_index < 0:
            continue
        address: NumType = context.memory(memory_index).address
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
        "tag": context.tag,
    }
    seen: set[str] = set()
    for export in module.exports:
        lookup[export.kind](export.index)
        if export.name in seen:
            raise InvalidError(f"duplicate export name {export.name!r}")
        seen.add(export.name)
