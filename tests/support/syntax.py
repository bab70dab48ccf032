"""Random well-formed modules, most of them invalid: for what must hold before validation."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from pywasmvm import features
from pywasmvm.binary import custom
from pywasmvm.isa import ROWS, Imm, Opcode, op
from pywasmvm.numerics.bits import f32_from_bits, f64_from_bits
from pywasmvm.syntax import (
    Catch,
    Code,
    CustomSection,
    Elem,
    Export,
    Global,
    Import,
    MemArg,
    ModuleSyntax,
    Table,
)
from pywasmvm.types import (
    BY_NAME,
    I8,
    I16,
    I32,
    I64,
    ArrayType,
    FieldType,
    FuncType,
    GlobalType,
    HeapType,
    Limits,
    MemoryType,
    RefType,
    StructType,
    SubType,
    TableType,
    ref,
)

KINDS = ("func", "table", "memory", "global", "tag")
FUNCTIONS = ref(False, HeapType.FUNC)
_BLOCKS = tuple(row for row in ROWS if Imm.BLOCKTYPE in row.immediates)
_PLAIN = tuple(row for row in ROWS if row not in _BLOCKS and row.name not in ("else", "end"))
_END, _ELSE, _IF = op("end"), op("else"), op("if")

# -- types -------------------------------------------------------------------------------------------------

#: Mostly small, so that they often name something.
INDICES = st.integers(0, 5) | st.integers(0, 2**32 - 1)
HEAPS = st.sampled_from([heap for heap in HeapType if heap is not HeapType.BOT]) | st.integers(0, 9)
REFS = st.builds(ref, st.booleans(), HEAPS)
VALUES = st.sampled_from(list(BY_NAME.values())) | REFS
FIELDS = st.builds(FieldType, VALUES | st.sampled_from([I8, I16]), st.booleans())
FUNCS = st.builds(FuncType, st.lists(VALUES, max_size=4).map(tuple), st.lists(VALUES, max_size=3).map(tuple))
COMPOSITES = (
    FUNCS | st.builds(StructType, st.lists(FIELDS, max_size=4).map(tuple)) | st.builds(ArrayType, FIELDS)
)
SUBTYPES = st.builds(SubType, COMPOSITES, st.booleans(), st.lists(INDICES, max_size=2).map(tuple))
ADDRESSES = st.sampled_from([I32, I64])
LIMITS = st.builds(Limits, st.integers(0, 2**32 - 1), st.none() | st.integers(0, 2**32 - 1))
MEMORIES = st.builds(MemoryType, LIMITS, ADDRESSES)
TABLES = st.builds(TableType, REFS, LIMITS, ADDRESSES)
GLOBALS = st.builds(GlobalType, VALUES, st.booleans())

# -- instructions --------------------------------------------------------------------------------------------

_CATCHES = st.builds(Catch, st.sampled_from(["catch", "catch_ref"]), INDICES, INDICES) | st.builds(
    Catch, st.sampled_from(["catch_all", "catch_all_ref"]), st.none(), INDICES
)

#: What an immediate of each kind can be; kinds that are not here are indices.
IMMEDIATES: dict[Imm, st.SearchStrategy[Any]] = {
    Imm.BLOCKTYPE: st.none() | VALUES | INDICES,
    Imm.LABELS: st.lists(INDICES, min_size=1, max_size=5).map(tuple),
    Imm.MEMARG: st.builds(MemArg, st.integers(0, 63), st.integers(0, 2**64 - 1), st.integers(0, 2)),
    Imm.I32: st.integers(0, 2**32 - 1),
    Imm.I64: st.integers(0, 2**64 - 1),
    Imm.F32: st.integers(0, 2**32 - 1).map(f32_from_bits),
    Imm.F64: st.integers(0, 2**64 - 1).map(f64_from_bits),
    Imm.V128: st.integers(0, 2**128 - 1),
    Imm.VALTYPES: st.lists(VALUES, max_size=3).map(tuple),
    Imm.HEAPTYPE: HEAPS,
    Imm.REF: st.builds(ref, st.just(False), HEAPS),
    Imm.REFNULL: st.builds(ref, st.just(True), HEAPS),
    Imm.CAST: st.tuples(INDICES, REFS, REFS),
    Imm.CATCHES: st.lists(_CATCHES, max_size=3).map(tuple),
    Imm.LANE: st.integers(0, 255),
    Imm.LANES: st.binary(min_size=16, max_size=16),
}


def immediates(row: Opcode) -> st.SearchStrategy[Any]:
    """What the column of immediates can hold for an instruction."""
    kinds = [IMMEDIATES.get(kind, INDICES) for kind in row.immediates]
    return st.none() if not kinds else kinds[0] if len(kinds) == 1 else st.tuples(*kinds)


@st.composite
def expressions(draw: st.DrawFn, most: int = 6) -> Code:
    """A sequence of instructions with its `end`; blocks are complete."""
    ops: list[Opcode] = []
    values: list[Any] = []

    def emit(row: Opcode) -> None:
        ops.append(row)
        values.append(draw(immediates(row)))

    def sequence(depth: int) -> None:
        for _ in range(draw(st.integers(0, most))):
            row = draw(st.sampled_from(_BLOCKS if depth < 3 and draw(st.booleans()) else _PLAIN))
            emit(row)
            if row in _BLOCKS:
                sequence(depth + 1)
                if row is _IF and draw(st.booleans()):
                    emit(_ELSE)
                    sequence(depth + 1)
                emit(_END)

    sequence(0)
    emit(_END)
    return Code((), ops, values, array("Q", [0] * len(ops)))


CONSTANTS = expressions(2)

# -- modules -------------------------------------------------------------------------------------------------


def _several(of: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=3)


@st.composite
def _imports(draw: st.DrawFn) -> Import:
    kind = draw(st.sampled_from(KINDS))
    types: dict[str, st.SearchStrategy[Any]] = {"table": TABLES, "memory": MEMORIES, "global": GLOBALS}
    return Import(draw(st.text(max_size=5)), draw(st.text(max_size=5)), kind, draw(types.get(kind, INDICES)))


@st.composite
def _elems(draw: st.DrawFn) -> Elem:
    mode = draw(st.sampled_from(["active", "passive", "declarative"]))
    active = mode == "active"
    place = (draw(INDICES), draw(CONSTANTS)) if active else (0, None)
    if draw(st.booleans()):
        return Elem(FUNCTIONS, mode, draw(_several(INDICES)), *place)
    of: RefType = draw(REFS)
    # Functions without null that nobody listed are listed by index: nothing tells the two forms apart.
    items = draw(st.lists(CONSTANTS, min_size=1 if of == FUNCTIONS else 0, max_size=3))
    return Elem(of, mode, items, *place)


@st.composite
def modules(draw: st.DrawFn) -> ModuleSyntax:
    """A module in the form that the text parser makes, with names and custom sections."""
    module = ModuleSyntax(b"", features.DEFAULT, bodies=[], text=b"")
    for group in draw(_several(st.lists(SUBTYPES, max_size=3))):
        module.types += group
        module.groups.append(len(group))
    module.imports = draw(_several(_imports()))
    module.functions = draw(_several(INDICES))
    for _ in module.functions:
        code = draw(expressions())
        code.locals = tuple(draw(_several(st.tuples(st.integers(0, 3), VALUES))))
        if module.bodies is not None:
            module.bodies.append(code)
    module.tables = draw(
        _several(st.builds(Table, TABLES, st.none() | CONSTANTS.filter(lambda c: len(c) > 1)))
    )
    module.memories, module.tags = draw(_several(MEMORIES)), draw(_several(INDICES))
    module.globals = draw(_several(st.builds(Global, GLOBALS, CONSTANTS)))
    module.exports = draw(_several(st.builds(Export, st.text(max_size=9), st.sampled_from(KINDS), INDICES)))
    module.start = draw(st.none() | INDICES)
    module.elems = draw(_several(_elems()))
    blob = bytearray()

    def keep(contents: bytes) -> tuple[int, int]:
        blob.extend(contents)
        return len(blob) - len(contents), len(contents)

    for _ in range(draw(st.integers(0, 2))):
        start, length = keep(draw(st.binary(max_size=20)))
        module.data.start.append(start)
        module.data.length.append(length)
        memory = draw(st.integers(-1, 2))
        module.data.memory.append(memory)
        module.data.offset.append(None if memory < 0 else draw(IMMEDIATES[Imm.I32] | CONSTANTS))
    places = draw(_several(st.sampled_from([0, 1, 5, 11, None])))
    for after in sorted(places, key=lambda place: 99 if place is None else place):
        name = draw(st.text(max_size=9))
        if name not in ("name", "metadata.code.branch_hint"):
            start, length = keep(draw(st.binary(max_size=9)))
            module.customs.append(CustomSection(name, start, start + length, after))
    names = custom.encode_names(draw(_names(module)))
    if names:
        start, length = keep(names)
        module.customs.append(CustomSection("name", start, start + length))
    module.source = bytes(blob)
    return module


def _names(module: ModuleSyntax) -> st.SearchStrategy[custom.Names]:
    """Names, now and then the same one or an odd one, also of what the module has not."""
    name = st.sampled_from(["a", "b", "a b", 'ö"\\', "", "\0", "0", "$", "(;"]) | st.text(max_size=4)
    flat = st.dictionaries(st.integers(0, 4), name, max_size=4)
    owned = st.dictionaries(st.integers(0, 4), flat, max_size=3)
    fields: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        attribute: (lambda: owned) if attribute in ("locals", "labels", "fields") else (lambda: flat)
        for attribute in custom.Names.__slots__
        if attribute != "module"
    }
    return st.builds(custom.Names, module=st.none() | name, **{key: make() for key, make in fields.items()})
