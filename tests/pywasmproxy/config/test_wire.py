"""Wire bytes of well-known protobuf types, read back with a decoder written for this test."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.config import wire


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = read_varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = read_varint(data, at)
        else:
            size = {1: 8, 5: 4}[kind]
        assert at + size <= len(data)
        yield number, data[at : at + size]
        at += size


def only(data: bytes) -> int | bytes | None:
    found = list(fields(data))
    assert len(found) <= 1
    assert all(number == 1 for number, _ in found)
    return found[0][1] if found else None


def read_value(data: bytes) -> object:
    [(number, content)] = fields(data)
    if number == 1:
        assert content == 0
        return None
    if number == 4:
        return bool(content)
    assert isinstance(content, bytes)
    if number == 2:
        return struct.unpack("<d", content)[0]
    if number == 3:
        return content.decode()
    return read_struct(content) if number == 5 else read_list(content)


def read_list(data: bytes) -> list[object]:
    return [
        read_value(content) for number, content in fields(data) if number == 1 and isinstance(content, bytes)
    ]


def read_struct(data: bytes) -> dict[str, object]:
    found: dict[str, object] = {}
    for number, entry in fields(data):
        assert number == 1
        assert isinstance(entry, bytes)
        parts = dict(fields(entry))
        assert list(parts) == [1, 2]
        assert isinstance(parts[1], bytes)
        assert isinstance(parts[2], bytes)
        found[parts[1].decode()] = read_value(parts[2])
    return found


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=25,
)


@given(VALUES)
def test_value_comes_back(value: object) -> None:
    found = read_value(wire.value(value))
    assert found == value
    assert type(found) is type(value)


@given(st.dictionaries(st.text(), VALUES, max_size=6))
def test_struct_comes_back_in_written_order(value: dict[str, object]) -> None:
    found = read_struct(wire.struct_value(value))
    assert found == value
    assert list(found) == list(value)


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_come_back(value: int) -> None:
    found = only(wire.integer_value(value))
    assert (found or 0) == value % 2**64
    assert (found is None) == (value == 0)


@given(st.binary())
def test_bytes_come_back(value: bytes) -> None:
    assert (only(wire.bytes_value(value)) or b"") == value


@given(st.floats())
def test_doubles_come_back_bit_for_bit(value: float) -> None:
    raw = struct.pack("<d", value)
    assert (only(wire.double_value(value)) or bytes(8)) == raw
    assert (wire.double_value(value) == b"") == (raw == bytes(8))


@given(st.floats(width=32))
def test_floats_come_back(value: float) -> None:
    found = only(wire.float_value(value)) or bytes(4)
    assert isinstance(found, bytes)
    back = struct.unpack("<f", found)[0]
    assert back == value or (math.isnan(back) and math.isnan(value))


# expected bytes were taken from the official protobuf library
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (wire.integer_value(7), b"\x08\x07"),
        (wire.integer_value(1), b"\x08\x01"),
        (wire.integer_value(300), b"\x08\xac\x02"),
        (wire.integer_value(-1), b"\x08" + b"\xff" * 9 + b"\x01"),
        (wire.string_value("hé"), b"\x0a\x03h\xc3\xa9"),
        (wire.string_value(""), b""),
        (wire.float_value(1.5), b"\x0d\x00\x00\xc0\x3f"),
        (wire.double_value(-0.0), b"\x09" + bytes(7) + b"\x80"),
        (wire.duration_value(1, 500_000_000), b"\x08\x01\x10\x80\xca\xb5\xee\x01"),
        (wire.duration_value(0, 0), b""),
        (wire.value(None), b"\x08\x00"),
        (wire.value(False), b"\x20\x00"),
        (wire.value(""), b"\x1a\x00"),
        (wire.value({}), b"\x2a\x00"),
        (wire.value([]), b"\x32\x00"),
        (wire.value(1), b"\x11\x00\x00\x00\x00\x00\x00\xf0?"),
        (wire.struct_value({}), b""),
        (wire.struct_value({"": ""}), b"\n\x06\n\x00\x12\x02\x1a\x00"),
        (wire.list_value([1, "a"]), b"\n\t\x11\x00\x00\x00\x00\x00\x00\xf0?\n\x03\x1a\x01a"),
        (
            wire.typed_struct("x/y", {"a": 1}),
            b"\n\x03x/y\x12\x10\n\x0e\n\x01a\x12\t\x11\x00\x00\x00\x00\x00\x00\xf0?",
        ),
        (wire.typed_struct("", None), b""),
        (wire.typed_struct("x/y", {}), b"\n\x03x/y\x12\x00"),
        (wire.any_value("a/b", b""), b"\n\x03a/b"),
        (wire.any_value("a/b", b"\x08\x07"), b"\n\x03a/b\x12\x02\x08\x07"),
    ],
)
def test_known_encodings(found: bytes, expected: bytes) -> None:
    assert found == expected


def test_what_has_no_place_in_a_value_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no place in a protobuf Value"):
        wire.value(object())


def test_a_float_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        wire.float_value(1e300)
