"""Hostile modules of the later proposals: types, casts, handlers, big aggregates and indirect references.

Like `test_hostile.py`: each is refused or handled, in memory and time that follow the size of the file.
"""

from __future__ import annotations

import pytest

from pywasmvm import Instance, Module, Store, StoreLimits, WasmError
from tests.pywasmvm.test_hostile import outcome
from tests.support import binary as b

REC, SUB, SUB_FINAL, STRUCT, ARRAY = b"\x4e", b"\x50", b"\x4f", b"\x5f", b"\x5e"
REF_NULL, REF = b"\x63", b"\x64"


def struct(*fields: bytes) -> bytes:
    return STRUCT + b.vec(field + b"\0" for field in fields)


def test_a_group_whose_types_all_refer_to_each_other() -> None:
    count = 300
    fields = [REF_NULL + b.s32(n) for n in range(count)]
    group = REC + b.vec([struct(*fields)] * count)
    assert outcome(b.module(b.types(group))) == "valid"


def test_a_type_that_refers_to_itself_many_times() -> None:
    group = REC + b.vec([struct(*[REF_NULL + b.s32(0)] * 9_000)])
    assert outcome(b.module(b.types(group))) == "valid"
    assert outcome(b.module(b.types(*[group] * 20))) == "valid"


def test_the_same_type_a_hundred_thousand_times() -> None:
    assert outcome(b.module(b.types(*[struct(b.I32)] * 100_000))) == "valid"


def test_a_hundred_thousand_types_in_one_group() -> None:
    group = REC + b.vec(struct(REF_NULL + b.s32((n + 1) % 100_000)) for n in range(100_000))
    assert outcome(b.module(b.types(group))) == "valid"


def test_groups_without_types() -> None:
    assert outcome(b.module(b.types(*[REC + b.vec([])] * 50_000))) == "valid"


def test_a_chain_of_types_below_each_other() -> None:
    def chain(length: int) -> bytes:
        root = SUB + b.vec([]) + struct()
        return b.module(b.types(root, *(SUB + b.vec([b.u32(n)]) + struct() for n in range(length))))

    assert outcome(chain(63)) == "valid"
    assert "more than 63 types above each other" in outcome(chain(64))
    assert "more than 63 types above each other" in outcome(chain(50_000))


@pytest.mark.parametrize("target", [1, 2**20, 2**32 - 1])
def test_references_to_types_that_are_not_there(target: int) -> None:
    assert outcome(b.module(b.types(struct(REF_NULL + b.s32(target))))).startswith("invalid: unknown type")


def test_a_type_with_too_many_fields_or_parameters() -> None:
    assert outcome(b.module(b.types(struct(*[b.I32] * 10_000)))) == "valid"
    assert "more than 10000" in outcome(b.module(b.types(struct(*[b.I32] * 10_001))))
    assert outcome(b.module(b.types(b.functype(b.I32 * 1_000, b.I32 * 1_000)))) == "valid"
    assert "more than 1000" in outcome(b.module(b.types(b.functype(b.I32 * 1_001))))


def test_calls_that_push_a_thousand_operands_each() -> None:
    wide = b.functype(b"", b.I32 * 1_000)
    data = b.module(
        b.types(b.functype(), wide),
        b.functions(0, 1),
        b.code(b.body(b"\x10\1" * 20_000 + b"\0"), b.body(b"\0")),
    )
    with pytest.raises(WasmError, match="operands on the stack"):
        Module(data)


def test_locals_in_every_function() -> None:
    """Fifty thousand locals are five bytes: nothing may be expanded for functions that never run."""
    count = 20_000
    runs = b.vec([b.u32(50_000) + b.I32])
    data = b.module(
        b.types(b.functype()),
        b.functions(*[0] * count),
        b.code(*[b.body(b"\x20\xcf\x86\3\x1a", runs)] * count),
    )
    assert len(Module(data).functions) == count


def test_a_br_table_with_a_million_targets() -> None:
    labels = b.u32(1_000_000) + b"\0" * 1_000_001
    data = b.function(b"\x02\x40\x41\0\x0e" + labels + b"\x0b")
    module = Module(data)
    assert Instance(module).exports["f"]() is None


def test_a_br_table_to_many_different_labels_with_many_operands() -> None:
    depth = 500
    wide = b.functype(b"", b.I32 * 1_000)
    opened = b"\x02\1" * depth
    labels = b.u32(depth) + b"".join(b.u32(n) for n in range(depth)) + b"\0"
    body = opened + b"\0\x0e" + labels + b"\x0b" + b"\0\x0b" * (depth - 1) + b"\0"
    assert outcome(b.module(b.types(b.functype(), wide), b.functions(0), b.code(b.body(body)))) == "valid"


def test_a_handler_with_very_many_clauses() -> None:
    clauses = b.vec([b"\2\0"] * 200_000)
    data = b.function(b"\x02\x40\x1f\x40" + clauses + b"\x0b\x0b")
    assert Instance(Module(data)).exports["f"]() is None


def test_handlers_nested_deeply() -> None:
    depth = 20_000
    data = b.function(b"\x02\x40" + b"\x1f\x40\1\2\0" * depth + b"\x0b" * depth + b"\x0b")
    assert Instance(Module(data)).exports["f"]() is None


ARRAY_MODULE = b.types(b.functype(), ARRAY + b.I32 + b"\1")


@pytest.mark.parametrize("length", [2**31 - 1, -1, 2**30])
def test_an_array_of_billions(length: int) -> None:
    """The guest gets a trap or the limit; the host keeps its memory."""
    body = b.body(b"\x41" + b.s32(length) + b"\xfb\7\1\x1a")
    data = b.module(ARRAY_MODULE, b.functions(0), b.exports(b.export("f", 0, 0)), b.code(body))
    instance = Instance(Module(data))
    with pytest.raises(WasmError, match="allocation size too large"):
        instance.exports["f"]()


def test_arrays_that_pile_up_meet_a_limit() -> None:
    """A list of big arrays, each held by a global table: what lives is bounded, whatever is allocated."""
    # loop: table.grow 0 by 1 with a new array of 2^20 elements, for ever
    body = b"\x03\x40\x41\x80\x80\xc0\0\xfb\7\1\x41\1\xfc\x0f\0\x1a\x0c\0\x0b"
    data = b.module(
        b.types(b.functype(), ARRAY + b.I32 + b"\1"),
        b.functions(0),
        b.section(4, b.vec([b"\x6e\0\0"])),
        b.exports(b.export("f", 0, 0)),
        b.code(b.body(body)),
    )
    instance = Instance(Module(data), store=Store(StoreLimits(seconds=20)))
    with pytest.raises((WasmError, MemoryError)):
        instance.exports["f"]()


def test_a_fixed_array_from_unreachable_code() -> None:
    body = b"\0\xfb\x08\1" + b.u32(2**32 - 1) + b"\x1a"
    data = b.module(ARRAY_MODULE, b.functions(0), b.code(b.body(body)))
    assert outcome(data).startswith("invalid: array.new_fixed of 4294967295 elements")


def test_memories_and_tables_of_sixteen_exabytes_are_declared_and_never_made() -> None:
    memory = b.section(5, b.vec([b"\4" + b.u32(1 << 48)]))
    module = Module(b.module(memory))
    with pytest.raises(MemoryError, match="limit allows"):
        Instance(module)
    table = b.section(4, b.vec([b.FUNCREF + b"\4" + b.u32((1 << 64) - 1)]))
    with pytest.raises(MemoryError, match="limit allows"):
        Instance(Module(b.module(table)))
