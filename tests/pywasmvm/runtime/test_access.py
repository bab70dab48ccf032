"""Loads and stores of every kind of access, against `int.from_bytes` and lists of lanes."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.isa import ROWS, Access, op
from pywasmvm.numerics.bits import F32NaN
from pywasmvm.runtime.access import (
    lane_load_function,
    lane_store_function,
    load_function,
    packer,
    store_function,
    unpacker,
)
from pywasmvm.types import F32, F64
from tests.support.numeric import bits, operand
from tests.support.vectors import LANE_LOADS, LANE_STORES, LOADS, join, vectors

SIZE = 40
OUTSIDE = (struct.error, IndexError, OverflowError)
ADDRESSES_OUTSIDE = [SIZE, 2**32 - 1, 2**32 + 5, 2**64 - 1, 2**64 + 2**32]


def access(name: str) -> Access:
    found = op(name).access
    assert found is not None
    return found


SCALARS = [row.name for row in ROWS if row.access is not None and row.prefix is None]
SCALAR_LOADS = [name for name in SCALARS if "load" in name]
SCALAR_STORES = [name for name in SCALARS if "store" in name]

memories = st.binary(min_size=SIZE, max_size=SIZE)
#: Mostly bytes that make floats whose bits are hard to move.
nans = st.lists(st.sampled_from([0, 1, 0x7F, 0x80, 0xA0, 0xC0, 0xFF]), min_size=SIZE, max_size=SIZE).map(
    bytes
)


def small(data: bytes) -> memoryview:
    """A memory of its own with these bytes."""
    return memoryview(bytearray(data))


def pattern(name: str, value: Any) -> int:
    """The bit pattern of a loaded value, which must be canonical."""
    return bits(name.partition(".")[0], value)


@pytest.mark.parametrize("name", SCALAR_LOADS)
@given(memory=memories | nans, address=st.integers(0, SIZE - 8))
def test_scalar_loads(name: str, memory: bytes, address: int) -> None:
    found = access(name)
    raw = int.from_bytes(memory[address : address + found.size], "little", signed=name.endswith("_s"))
    expected = raw % 2**found.type.bits
    assert pattern(name, load_function(found)(small(memory), address)) == expected
    direct = unpacker(found)
    if direct is not None:
        assert pattern(name, *direct(small(memory), address)) == expected


@pytest.mark.parametrize("name", SCALAR_STORES)
@given(memory=memories, address=st.integers(0, SIZE - 8), value=st.integers(0, 2**64 - 1))
def test_scalar_stores(name: str, memory: bytes, address: int, value: int) -> None:
    found = access(name)
    value %= 2**found.type.bits
    expected = bytearray(memory)
    expected[address : address + found.size] = (value % 2 ** (8 * found.size)).to_bytes(found.size, "little")
    for store in (store_function(found), packer(found)):
        if store is not None:
            view = small(memory)
            store(view, address, operand(found.type.name, value))
            assert bytes(view) == expected


def test_only_what_needs_no_more_is_packed_directly() -> None:
    assert {name for name in SCALAR_LOADS if unpacker(access(name))} == {
        name for name in SCALAR_LOADS if not name.endswith("_s") and name != "f32.load"
    }
    assert {name for name in SCALAR_STORES if packer(access(name))} == {"i32.store", "i64.store", "f64.store"}


def test_a_signalling_nan_passes() -> None:
    view = small(bytes(SIZE))
    store_function(access("f32.store"))(view, 3, F32NaN(0xFFA00001))
    assert bytes(view[3:7]) == b"\x01\x00\xa0\xff"
    assert load_function(access("f32.load"))(view, 3).bits == 0xFFA00001
    assert access("f32.load").type is F32
    assert access("f64.load").type is F64


# -- vectors -----------------------------------------------------------------------------------------------


def loaded(name: str, read: bytes) -> int:
    """What a load makes of the bytes it reads."""
    form = name.removeprefix("v128.load")
    if form.endswith("_splat"):
        return int.from_bytes(read * (16 // len(read)), "little")
    if "x" in form:
        width, sign = int(form.partition("x")[0]), form[-1]
        places = range(0, 8, width // 8)
        lanes = [int.from_bytes(read[at : at + width // 8], "little", signed=sign == "s") for at in places]
        return join(2 * width, lanes)
    return int.from_bytes(read, "little")  # all of the vector, or zeros above


@pytest.mark.parametrize(("name", "size"), LOADS.items())
@given(memory=memories | nans, address=st.integers(0, SIZE - 16))
def test_vector_loads(name: str, size: int, memory: bytes, address: int) -> None:
    expected = loaded(name, memory[address : address + size])
    assert load_function(access(name))(small(memory), address) == expected
    assert unpacker(access(name)) is None


@given(memory=memories, address=st.integers(0, SIZE - 16), vector=vectors())
def test_vector_store(memory: bytes, address: int, vector: int) -> None:
    view, expected = small(memory), bytearray(memory)
    expected[address : address + 16] = vector.to_bytes(16, "little")
    store_function(access("v128.store"))(view, address, vector)
    assert bytes(view) == expected
    assert packer(access("v128.store")) is None


@pytest.mark.parametrize(("name", "size"), LANE_LOADS.items())
@given(memory=memories, address=st.integers(0, SIZE - 8), vector=vectors(), data=st.data())
def test_lane_loads(
    name: str, size: int, memory: bytes, address: int, vector: int, data: st.DataObject
) -> None:
    lane = data.draw(st.integers(0, 16 // size - 1))
    expected = bytearray(vector.to_bytes(16, "little"))
    expected[lane * size : lane * size + size] = memory[address : address + size]
    found = lane_load_function(access(name))(small(memory), address, vector, lane)
    assert found == int.from_bytes(expected, "little")


@pytest.mark.parametrize(("name", "size"), LANE_STORES.items())
@given(memory=memories, address=st.integers(0, SIZE - 8), vector=vectors(), data=st.data())
def test_lane_stores(
    name: str, size: int, memory: bytes, address: int, vector: int, data: st.DataObject
) -> None:
    lane = data.draw(st.integers(0, 16 // size - 1))
    view, expected = small(memory), bytearray(memory)
    expected[address : address + size] = vector.to_bytes(16, "little")[lane * size : lane * size + size]
    lane_store_function(access(name))(view, address, vector, lane)
    assert bytes(view) == expected


@pytest.mark.parametrize("name", [*LANE_LOADS, *LANE_STORES])
def test_an_access_of_one_lane_is_none_of_a_vector(name: str) -> None:
    with pytest.raises(LookupError, match="whole vector"):
        (load_function if name in LANE_LOADS else store_function)(access(name))


# -- the end of memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SCALAR_LOADS, *LOADS])
def test_loads_end_at_the_end(name: str) -> None:
    view, load, size = small(random.Random(1).randbytes(SIZE)), load_function(access(name)), access(name).size
    load(view, SIZE - size)
    for address in (SIZE - size + 1, *ADDRESSES_OUTSIDE):
        with pytest.raises(OUTSIDE):
            load(view, address)


@pytest.mark.parametrize("name", [*SCALAR_STORES, "v128.store"])
def test_stores_end_at_the_end_and_write_nothing_beyond(name: str) -> None:
    found = access(name)
    store, value = store_function(found), operand(found.type.name, 1) if found.type.bits < 128 else 1
    view = small(bytes(SIZE))
    for address in (SIZE - found.size + 1, *ADDRESSES_OUTSIDE):
        with pytest.raises(OUTSIDE):
            store(view, address, value)
    assert bytes(view) == bytes(SIZE)
    store(view, SIZE - found.size, value)
    assert bytes(view) != bytes(SIZE)


@pytest.mark.parametrize("name", [*LANE_LOADS, *LANE_STORES])
def test_single_lanes_end_at_the_end(name: str) -> None:
    found, view = access(name), small(bytes(SIZE))
    single: Any = (lane_load_function if name in LANE_LOADS else lane_store_function)(found)
    for address in (SIZE - found.size + 1, *ADDRESSES_OUTSIDE):
        with pytest.raises(OUTSIDE):
            single(view, address, 2**128 - 1, 0)
    assert bytes(view) == bytes(SIZE)
