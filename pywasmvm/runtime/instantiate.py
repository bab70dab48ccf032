"""The steps of instantiation in the order of the specification (spec: Execution, Instantiation).

Imports are resolved and checked, store objects allocated, segments written, then the start function runs.
A trap half-way leaves what was written before it in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pywasmvm.cache.segments import MANY, image
from pywasmvm.errors import LinkError
from pywasmvm.matching import match_extern
from pywasmvm.module import ImportType, Module
from pywasmvm.runtime.constant import evaluate
from pywasmvm.runtime.func import Func, from_python, guest_function
from pywasmvm.runtime.global_ import Global
from pywasmvm.runtime.memory import Memory
from pywasmvm.runtime.store import Store
from pywasmvm.runtime.table import Table
from pywasmvm.runtime.tag import Tag
from pywasmvm.syntax import Elem
from pywasmvm.types import EXTERN_KINDS, ExternType, FuncType

if TYPE_CHECKING:
    from pywasmvm.runtime.instance import Extern, Instance

#: Finds what an import asks for. One name may be asked for twice, with different types.
Lookup = Callable[[ImportType], "Extern | Callable[..., Any] | None"]


def describe(type_: ExternType) -> str:
    """A type as messages show it."""
    return f"{EXTERN_KINDS[type(type_)]} ({type_})" if isinstance(type_, FuncType) else str(type_)


def resolve(module: Module, lookup: Lookup) -> list[Extern]:
    """Find every import and check its type. Raises LinkError."""
    found: list[Extern] = []
    for entry in module.import_list:
        extern = lookup(entry)
        if extern is None:
            raise LinkError("unknown import", entry.module, entry.name, describe(entry.type))
        if not isinstance(extern, Func | Memory | Table | Global | Tag):
            if not callable(extern) or not isinstance(entry.type, FuncType):
                raise LinkError(
                    "incompatible import type", entry.module, entry.name, describe(entry.type), repr(extern)
                )
            extern = from_python(extern, name=f"{entry.module}.{entry.name}", type_=entry.type)
            if extern.type == entry.type and entry.deftype is not None:
                extern.deftype = entry.deftype  # a Python function has no other type than the one asked for
        if not _fits(extern, entry):
            raise LinkError(
                "incompatible import type",
                entry.module,
                entry.name,
                describe(entry.type),
                describe(extern.type),
            )
        found.append(extern)
    return found


def _fits(extern: Extern, entry: ImportType) -> bool:
    """Whether an extern is what the import asks for: functions may be of a subtype, tags must agree."""
    wanted = entry.deftype
    if isinstance(extern, Func):
        return entry.kind == "func" and wanted is not None and extern.deftype.is_sub(wanted)
    if isinstance(extern, Tag):
        return entry.kind == "tag" and extern.deftype is wanted
    return match_extern(extern.type, entry.type)


def store_for(externs: list[Extern], store: Store | None) -> Store:
    """The store an instance lives in. Raises ValueError when its imports belong to another one."""
    for extern in externs:
        theirs: Store | None = getattr(extern, "store", None)
        if theirs is None:
            continue
        if store is None:
            store = theirs
        elif theirs is not store:
            raise ValueError(f"{extern!r} belongs to another store: give every instance the same store=")
    return Store() if store is None else store


def link(instance: Instance, externs: list[Extern]) -> None:
    """Begin the index spaces: all imports, and what the module defines of functions and tags."""
    context = instance.module.context
    for extern in externs:
        if isinstance(extern, Func):
            instance.funcs.append(extern)
        elif isinstance(extern, Table):
            instance.tables.append(extern)
        elif isinstance(extern, Memory):
            instance.memories.append(extern)
        elif isinstance(extern, Tag):
            instance.tags.append(extern)
        else:
            instance.globals.append(extern)
    for index in range(context.imported_functions, len(context.functions)):
        instance.funcs.append(
            guest_function(context.functions[index].func)(instance, index, context.functions[index])
        )
    for tag_type in context.tags[context.imported_tags :]:
        instance.tags.append(Tag(tag_type, instance.store))


def allocate(instance: Instance, externs: list[Extern]) -> None:
    """Fill the index spaces: imports first, then what the module defines."""
    link(instance, externs)
    syntax, context, store = instance.module.syntax, instance.module.context, instance.store
    for memory_type in syntax.memories:
        instance.memories.append(Memory(memory_type, store))
    for entry, global_type in zip(syntax.globals, context.globals[context.imported_globals :], strict=True):
        instance.globals.append(Global.from_raw(global_type, evaluate(instance, entry.init), store))
    for table, table_type in zip(syntax.tables, context.tables[context.imported_tables :], strict=True):
        init = None if table.init is None else evaluate(instance, table.init)
        instance.tables.append(Table(table_type, init, store))
    for elem in syntax.elems:
        instance.elems.append(items(instance, elem))


def items(instance: Instance, elem: Elem) -> list[Any]:
    """The references of an element segment."""
    return [instance.funcs[i] if isinstance(i, int) else evaluate(instance, i) for i in elem.items]


def exports(instance: Instance) -> dict[str, Extern]:
    """The export mapping."""
    spaces: dict[str, list[Any]] = {
        "func": instance.funcs,
        "table": instance.tables,
        "memory": instance.memories,
        "global": instance.globals,
        "tag": instance.tags,
    }
    return {e.name: spaces[e.kind][e.index] for e in instance.module.syntax.exports}


def initialise(instance: Instance) -> None:
    """Write active element segments, then active data segments. Raises Trap."""
    syntax = instance.module.syntax
    for elem, items in zip(syntax.elems, instance.elems, strict=True):
        if elem.mode == "active" and elem.offset is not None:
            table = instance.tables[elem.table]
            table.init(evaluate(instance, elem.offset), items, 0, len(items))
        if elem.mode != "passive":
            items.clear()
    data, source = syntax.data, memoryview(syntax.source)
    if _write_at_once(instance):
        return
    for index in range(len(data)):
        memory = data.memory[index]
        if memory < 0:
            continue
        offset = data.offset[index]
        target = offset if isinstance(offset, int) else evaluate(instance, offset)  # type: ignore[arg-type]
        begin = data.start[index]
        length = data.length[index]
        instance.memories[memory].init(target, source[begin : begin + length], 0, length)
        instance.dropped_data.add(index)


def _write_at_once(instance: Instance) -> bool:
    """Write many segments as one piece, if they all go into a memory that is the instance's own and new."""
    module = instance.module
    data = module.syntax.data
    if len(data) < MANY or module.context.imported_memories or not instance.memories:
        return False
    memory = instance.memories[0]
    found = image(data, module.syntax.source, module.cache)
    if found is None or found[0] + len(found[1]) > memory.nbytes:
        return False  # one by one, up to the one that traps
    memory.init(found[0], found[1], 0, len(found[1]))
    instance.dropped_data.update(range(len(data)))
    return True
