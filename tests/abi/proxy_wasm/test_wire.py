"""Byte forms: maps, numbers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.proxy_wasm.wire import (
    MAX_MAP_BYTES,
    MAX_MAP_ENTRIES,
    decode_map,
    encode_double,
    encode_integer,
    encode_map,
)

LINES = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=50)), max_size=20)


def test_the_documents_example() -> None:
    data = encode_map([(b"a", b"1"), (b"b", b"22")])
    assert data.hex() == "0200000001000000010000000100000002000000" + "6100310062003232" + "00"
    assert len(data) == 29


def test_the_empty_map() -> None:
    assert encode_map([]) == bytes(4)
    for data in (b"", b"\0", bytes(4)):
        assert decode_map(data) == []


@given(LINES)
def test_round_trip(lines: list[tuple[bytes, bytes]]) -> None:
    data = encode_map(lines)
    assert decode_map(data) == lines
    assert len(data) == 4 + sum(8 + len(n) + 1 + len(v) + 1 for n, v in lines)


@given(LINES.filter(bool), st.data())
def test_damaged_sizes_never_raise(lines: list[tuple[bytes, bytes]], draw: st.DataObject) -> None:
    data = bytearray(encode_map(lines))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    decoded = decode_map(bytes(data))
    assert decoded == [] or encode_map(decoded) == bytes(data)


@given(LINES.filter(bool), st.integers(1, 40))
def test_cut_short_is_the_empty_map(lines: list[tuple[bytes, bytes]], cut: int) -> None:
    data = encode_map(lines)
    assert decode_map(data[: max(0, len(data) - cut)]) == []


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_something(data: bytes) -> None:
    assert isinstance(decode_map(data), list)


@pytest.mark.parametrize(
    "data",
    [
        encode_map([(b"a", b"b")]) + b"\0",  # bytes left over
        encode_map([(b"a", b"b")])[:-1] + b"x",  # last NUL is none
        struct.pack("<III", 1, 1, 1) + b"axb\0",  # NUL behind the name is missing
        struct.pack("<I", 0xFFFFFFFF),  # count without sizes
        struct.pack("<III", 1, 0xFFFFFFFF, 0) + b"a\0b\0",  # size past the end
        struct.pack("<III", 1, 0, 0),  # nothing where the NULs belong
    ],
)
def test_undecodable(data: bytes) -> None:
    assert decode_map(data) == []


def test_limits() -> None:
    assert len(decode_map(encode_map([(b"", b"")] * MAX_MAP_ENTRIES))) == MAX_MAP_ENTRIES
    assert decode_map(encode_map([(b"", b"")] * (MAX_MAP_ENTRIES + 1))) == []
    room = MAX_MAP_BYTES - len(encode_map([(b"a", b"")]))
    assert len(decode_map(encode_map([(b"a", b"x" * room)]))) == 1
    assert decode_map(encode_map([(b"a", b"x" * (room + 1))])) == []


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_are_eight_bytes(value: int) -> None:
    assert int.from_bytes(encode_integer(value), "little") == value % 2**64


def test_doubles() -> None:
    assert encode_double(1.5) == struct.pack("<d", 1.5)
