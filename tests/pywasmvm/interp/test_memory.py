"""Loads, stores, growth and bulk memory instructions as a guest sees them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import Instance, TrapKind
from tests.support.instances import instance, trap

PAGE = 65536
OUT = TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS

# name -> (struct code of what is in memory, value type)
LOADS = {
    "i32.load": "I", "i32.load8_s": "b", "i32.load8_u": "B", "i32.load16_s": "h", "i32.load16_u": "H",
    "i64.load": "Q", "i64.load8_s": "b", "i64.load8_u": "B", "i64.load16_s": "h", "i64.load16_u": "H",
    "i64.load32_s": "i", "i64.load32_u": "I", "f32.load": "f", "f64.load": "d",
}  # fmt: skip
STORES = {
    "i32.store": "I", "i32.store8": "B", "i32.store16": "H", "i64.store": "Q", "i64.store8": "B",
    "i64.store16": "H", "i64.store32": "I", "f32.store": "f", "f64.store": "d",
}  # fmt: skip


def module() -> str:
    loads = "".join(
        f'(func (export "{name}") (param i32) (result {name[:3]}) local.get 0 {name})'
        f'(func (export "{name} far") (param i32) (result {name[:3]}) local.get 0 {name} offset=0xfffffff0)'
        f'(func (export "{name} 3") (param i32) (result {name[:3]}) local.get 0 {name} offset=3 align=1)'
        for name in LOADS
    )
    stores = "".join(
        f'(func (export "{name}") (param i32 {name[:3]}) local.get 0 local.get 1 {name})'
        f'(func (export "{name} far") (param i32 {name[:3]})'
        f" local.get 0 local.get 1 {name} offset=0xfffffff0)"
        f'(func (export "{name} 3") (param i32 {name[:3]}) local.get 0 local.get 1 {name} offset=3 align=1)'
        for name in STORES
    )
    return f'(module (memory (export "memory") 1) {loads} {stores})'


@pytest.fixture(scope="module")
def guest() -> Instance:
    return instance(module())


@pytest.mark.parametrize("name", LOADS)
def test_load(name: str, guest: Instance) -> None:
    code, memory = LOADS[name], guest.exports.memory
    size = struct.calcsize(code)

    @given(st.binary(min_size=size, max_size=size), st.integers(0, 40))
    def check(data: bytes, address: int) -> None:
        memory.write(address + 3, data)
        expected = struct.unpack("<" + code, data)[0]
        if name.startswith("i"):
            expected %= 2 ** int(name[1:3])
        for found in (guest.exports[name].raw(address + 3), guest.exports[f"{name} 3"].raw(address)):
            assert found == expected or (found != found and expected != expected)

    check()


@pytest.mark.parametrize("name", STORES)
def test_store(name: str, guest: Instance) -> None:
    code, memory = STORES[name], guest.exports.memory
    size = struct.calcsize(code)
    bits = int(name[1:3])
    values = (
        st.integers(0, 2**bits - 1)
        if name[0] == "i"
        else st.floats(width=64 if bits == 64 else 32, allow_nan=False)
    )

    @given(values, st.integers(0, 40))
    def check(value: int | float, address: int) -> None:
        kept = value % 2 ** (8 * size) if isinstance(value, int) else value
        for suffix, extra in (("", 0), (" 3", 3)):
            memory.write(address, b"\xaa" * 20)
            guest.exports[name + suffix].raw(address, value)
            expected = b"\xaa" * extra + struct.pack("<" + code, kept)
            assert memory.read(address, 20) == expected + b"\xaa" * (20 - len(expected))

    check()


@pytest.mark.parametrize("name", [*LOADS, *STORES])
def test_bounds_of_the_whole_access(name: str, guest: Instance) -> None:
    size = struct.calcsize({**LOADS, **STORES}[name])
    values = () if name in LOADS else (1,)
    run, far = guest.exports[name], guest.exports[f"{name} far"]
    run(PAGE - size, *values)
    for address in (PAGE - size + 1, PAGE, PAGE + 1, 2**31, 2**32 - size, 2**32 - 1):
        assert trap(lambda at=address: run(at, *values)) is OUT  # type: ignore[misc]
    # The effective address does not wrap around.
    for address in (0, 0x10, 0x20, 2**32 - 1):
        assert trap(lambda at=address: far(at, *values)) is OUT  # type: ignore[misc]


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_traps_writes_nothing(name: str, guest: Instance) -> None:
    memory = guest.exports.memory
    memory.write(PAGE - 8, b"\xaa" * 8)
    size = struct.calcsize(STORES[name])
    for address in range(PAGE - size + 1, PAGE + 2):
        trap(lambda at=address: guest.exports[name](at, 0))  # type: ignore[misc]
    assert memory.read(PAGE - 8, 8) == b"\xaa" * 8


GROWING = """(module (memory (export "memory") 1 5)
  (func (export "size") (result i32) memory.size)
  (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
  (func (export "peek") (param i32) (result i32) local.get 0 i32.load8_u)
  (func (export "inside") (result i32)
    i32.const 0 i32.const 7 i32.store8
    i32.const 2 memory.grow drop
    i32.const 131072 i32.const 35 i32.store8
    i32.const 131072 i32.load8_u i32.const 0 i32.load8_u i32.add))"""


def test_growth() -> None:
    exports = instance(GROWING).exports
    assert exports.size() == 1
    assert trap(lambda: exports.peek(PAGE)) is OUT
    assert exports.grow(0) == 1
    assert exports.grow(3) == 1
    assert exports.size() == 4
    assert exports.peek(4 * PAGE - 1) == 0
    assert trap(lambda: exports.peek(4 * PAGE)) is OUT
    assert exports.grow(2) == -1
    assert exports.grow(-1) == -1
    assert exports.size() == 4
    assert exports.grow(1) == 4
    assert exports.memory.pages == 5


def test_growth_in_the_middle_of_a_function() -> None:
    assert instance(GROWING).exports.inside() == 42


def test_growth_keeps_the_contents() -> None:
    exports = instance('(module (memory (export "memory") 1) (func (export "grow") (param i32) (result i32)'
                       " local.get 0 memory.grow))").exports  # fmt: skip
    exports.memory.write(100, b"here")
    for pages in (1, 30, 300):
        exports.grow(pages)
        assert exports.memory.read(100, 4) == b"here"
    assert exports.memory.pages == 332
    assert not exports.memory.data[PAGE:].any()


def test_an_empty_memory() -> None:
    exports = instance("""(module (memory 0)
      (func (export "load") (param i32) (result i32) local.get 0 i32.load8_u)
      (func (export "fill") (param i32 i32) local.get 0 i32.const 1 local.get 1 memory.fill))""").exports
    assert trap(lambda: exports.load(0)) is OUT
    assert exports.fill(0, 0) is None
    assert trap(lambda: exports.fill(0, 1)) is OUT
    assert trap(lambda: exports.fill(1, 0)) is OUT


BULK = """(module (memory (export "memory") 1)
  (data $d "0123456789")
  (data $active (i32.const 65000) "active")
  (func (export "fill") (param i32 i32 i32) local.get 0 local.get 1 local.get 2 memory.fill)
  (func (export "copy") (param i32 i32 i32) local.get 0 local.get 1 local.get 2 memory.copy)
  (func (export "init") (param i32 i32 i32) local.get 0 local.get 1 local.get 2 memory.init $d)
  (func (export "init active") (param i32 i32 i32) local.get 0 local.get 1 local.get 2 memory.init $active)
  (func (export "drop") data.drop $d))"""


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_copy_as_if_through_a_buffer(target: int, source: int, size: int) -> None:
    exports = _BULK.exports
    before = bytes(range(100, 200))
    exports.memory.write(0, before)
    exports.copy(target, source, size)
    expected = bytearray(before)
    expected[target : target + size] = before[source : source + size]
    assert exports.memory.read(0, 100) == bytes(expected)


_BULK = instance(BULK)


@pytest.mark.parametrize(
    ("address", "size"), [(PAGE - 3, 4), (PAGE + 1, 0), (0, PAGE + 1), (2**32 - 1, 2), (5, 2**32 - 1)]
)
def test_bulk_operations_check_the_range_first(address: int, size: int) -> None:
    exports = instance(BULK).exports
    exports.memory.write(PAGE - 4, b"kept")
    assert trap(lambda: exports.fill(address, 1, size)) is OUT
    assert trap(lambda: exports.copy(address, 0, size)) is OUT
    assert trap(lambda: exports.copy(0, address, size)) is OUT
    assert exports.memory.read(PAGE - 4, 4) == b"kept"
    assert not exports.memory.data[:100].any()


def test_ranges_may_end_exactly_at_the_end() -> None:
    exports = instance(BULK).exports
    exports.fill(PAGE - 4, 0x1FF, 4)
    assert exports.memory.read(PAGE - 5, 5) == b"\0\xff\xff\xff\xff"
    exports.fill(PAGE, 1, 0)
    exports.copy(PAGE, PAGE, 0)
    exports.init(PAGE, 10, 0)
    exports.copy(0, PAGE - 4, 4)
    assert exports.memory.read(0, 5) == b"\xff\xff\xff\xff\0"


def test_init_and_drop() -> None:
    exports = instance(BULK).exports
    exports.init(10, 2, 3)
    assert exports.memory.read(9, 5) == b"\x00234\x00"
    for arguments in ((0, 9, 2), (0, 11, 0), (PAGE - 1, 0, 2), (PAGE + 1, 0, 0), (0, 2**32 - 1, 2)):
        assert trap(lambda given=arguments: exports.init(*given)) is OUT  # type: ignore[misc]
    exports.drop()
    exports.drop()
    exports.init(0, 0, 0)
    assert trap(lambda: exports.init(0, 0, 1)) is OUT


def test_an_active_segment_is_dropped_after_it_was_written() -> None:
    exports = instance(BULK).exports
    assert exports.memory.read(65000, 6) == b"active"
    exports["init active"](0, 0, 0)
    assert trap(lambda: exports["init active"](0, 0, 1)) is OUT


def test_each_instance_drops_its_own_segments() -> None:
    first, second = instance(BULK), instance(BULK)
    first.exports.drop()
    second.exports.init(0, 0, 10)
    assert second.exports.memory.read(0, 10) == b"0123456789"


def test_a_long_overlapping_copy_goes_through_in_pieces() -> None:
    pages = 150  # more than two pieces of 4 MiB
    exports = instance(
        BULK.replace('(memory (export "memory") 1)', f'(memory (export "memory") {pages})')
    ).exports
    data = exports.memory.data
    size = pages * PAGE - 1
    for target, source in ((1, 0), (0, 1)):
        data[:] = 0
        data[::4099] = 7
        expected = data[source : source + size].copy()
        exports.copy(target, source, size)
        assert (data[target : target + size] == expected).all()
    exports.fill(1, 9, size)
    assert data[0] != 9 or data[1] == 9
    assert (data[1:] == 9).all()
