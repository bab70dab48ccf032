"""Modules that want to hurt: few bytes that declare much, deep nesting, huge counts.

Each is refused or handled, in memory and time that follow the size of the file.
"""

from __future__ import annotations

import tracemalloc

import pytest

from pywasmvm import Instance, InvalidError, MalformedError, Module, Trap, TrapKind
from tests.support import binary as b
from tests.support.instances import instance, trap

MEGABYTE = 1 << 20


def outcome(data: bytes) -> str:
    """What loading says, with the most memory it took on the way bounded."""
    tracemalloc.start()
    try:
        Module(data)
        verdict = "valid"
    except MalformedError as error:
        verdict = f"malformed: {error.message}"
    except InvalidError as error:
        verdict = f"invalid: {error.message}"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * MEGABYTE + 300 * len(data), peak
    return verdict


def with_locals(runs: bytes) -> bytes:
    return b.module(b.types(b.functype()), b.functions(0), b.code(b.body(b"", runs)))


def test_locals_by_the_billion() -> None:
    data = with_locals(b.vec([b.u32(0xFFFFFFFF) + b.I64]))
    assert len(data) < 36
    assert outcome(data).startswith("invalid: too many locals")
    lazy = Module(data, validate="lazy")
    assert len(lazy.functions) == 1
    many = b.vec([b.u32(0xFFFFFFFF) + b.I64] * 2)
    assert outcome(with_locals(many)).startswith("malformed: too many locals")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11])
def test_counts_that_no_file_could_hold(number: int) -> None:
    said = outcome(b.module(b.section(number, b.u32(0xFFFFFFFF))))
    assert said.startswith(("malformed: unexpected end", "malformed: length out of bounds"))


@pytest.mark.parametrize("number", [0, 1, 10, 11])
def test_sections_longer_than_the_file(number: int) -> None:
    assert outcome(b.HEADER + bytes([number]) + b.u32(0xFFFFFFFF)).startswith(
        "malformed: length out of bounds"
    )


def test_a_data_count_of_four_billion() -> None:
    assert outcome(b.module(b.section(12, b.u32(0xFFFFFFFF)))).startswith(
        "malformed: data count and data section"
    )


def test_deep_nesting() -> None:
    depth = 100_000
    for kind in (b"\x02\x40", b"\x03\x40", b"\x41\0\x04\x40"):
        code = kind * depth + b"\x0b" * depth
        assert instance(b.function(code)).exports["f"]() is None
    assert outcome(b.function(b"\x02\x40" * 20_000 + b"\x0b" * 20_000)) == "valid"


def test_deep_nesting_of_unreachable_code() -> None:
    depth = 100_000
    assert instance(b.function(b"\x0f" + b"\x02\x40" * depth + b"\x0b" * depth)).exports["f"]() is None


def test_nesting_that_is_never_closed() -> None:
    assert outcome(b.function(b"\x02\x40" * 100_000)).startswith(
        "malformed: unexpected end of section or function"
    )


def test_a_long_operand_stack() -> None:
    code = b"\x41\1" * 100_000 + b"\x6a" * 99_999
    assert instance(b.function(code, b"", b.I32)).exports["f"]() == 100_000


def test_a_hundred_thousand_functions() -> None:
    count = 100_000
    data = b.module(
        b.types(b.functype(b"", b.I32)),
        b.functions(*[0] * count),
        b.exports(b.export("last", 0, count - 1)),
        b.code(*[b.body(b"\x41\x2a")] * count),
    )
    module = Module(data)
    assert Instance(module).exports["last"]() == 42
    assert len(module.functions) == count


def test_thousands_of_exports_imports_and_segments() -> None:
    count = 20_000
    data = b.module(
        b.types(b.functype()),
        b.section(2, b.vec(b.name("m") + b.name(str(n)) + b"\0\0" for n in range(count))),
        b.section(5, b.vec([b"\0\1"])),
        b.exports(*(b.export(f"e{n}", 0, n) for n in range(count))),
        b.section(11, b.vec([b"\0\x41\0\x0b\1a"] * count)),
    )
    module = Module(data)
    assert len(module.exports) == len(module.imports) == len(module.syntax.data) == count


def test_a_function_type_with_many_parameters_and_results() -> None:
    count = 1_000
    assert outcome(b.function(b"\x20\0" * count, b.I32 * count, b.I32 * count)) == "valid"
    run = instance(
        b.function(b"".join(b"\x20" + b.u32(n) for n in range(count)), b.I32 * count, b.I32 * count)
    )
    assert run.exports["f"](*range(count)) == tuple(range(count))


def test_a_declared_table_or_memory_is_never_larger_than_the_limits() -> None:
    for section in (
        b.section(4, b.vec([b.FUNCREF + b"\0" + b.u32(0xFFFFFFFF)])),
        b.section(5, b.vec([b"\0" + b.u32(65536)])),
    ):
        module = Module(b.module(section))
        with pytest.raises(MemoryError, match="more than the store's limit allows"):
            Instance(module)


def test_names_of_any_length_and_script() -> None:
    label = "ünï" * 50_000
    data = b.module(
        b.types(b.functype()), b.functions(0), b.exports(b.export(label, 0, 0)), b.code(b.body(b"\0"))
    )
    exports = instance(data).exports
    with pytest.raises(Trap):
        exports[label]()


def test_recursion_through_a_table_is_exhaustion() -> None:
    text = """(module (type $t (func)) (table 1 funcref) (elem (i32.const 0) $f)
      (func $f (export "f") i32.const 0 call_indirect (type $t)))"""
    assert trap(instance(text).exports.f) is TrapKind.CALL_STACK_EXHAUSTED


def test_start_functions_obey_the_limits_too() -> None:
    text = "(module (func $f loop br 0 end) (start $f))"
    assert trap(lambda: instance(text, seconds=0.05)) is TrapKind.DEADLINE_EXCEEDED
    assert trap(lambda: instance(text, fuel=1000)) is TrapKind.OUT_OF_FUEL


def test_an_export_may_have_any_name() -> None:
    exports = instance(
        '(module (func (export "__class__")) (func (export "")) (func (export "a b")))'
    ).exports
    assert [exports["__class__"](), exports[""](), exports["a b"]()] == [None] * 3
