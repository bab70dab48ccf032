"""Protobuf wire bytes of the well-known types a plugin configuration can be wrapped in.

Only what an `Any` in a wasm configuration needs: a guest sees StringValue and BytesValue as their content,
and every other type as the wire bytes of the message. Rules: protobuf documentation, "Encoding"; messages:
google/protobuf/{wrappers,struct,duration,any}.proto. Fields with their default value are left out, as proto3
does.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """A base-128 varint; negative numbers as their 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def delimited(number: int, payload: bytes) -> bytes:
    """A length-delimited field: string, bytes or embedded message, present even when empty."""
    return _key(number, _LENGTH) + varint(len(payload)) + payload


def integer_value(value: int) -> bytes:
    """Int32Value, UInt32Value, Int64Value, UInt64Value, and BoolValue of an int 0 or 1."""
    return _key(1, _VARINT) + varint(value) if value else b""


def double_value(value: float) -> bytes:
    """DoubleValue. Negative zero is not the default and is written."""
    raw = struct.pack("<d", value)
    return _key(1, _FIXED64) + raw if any(raw) else b""


def float_value(value: float) -> bytes:
    """FloatValue; OverflowError if the number does not fit."""
    raw = struct.pack("<f", value)
    return _key(1, _FIXED32) + raw if any(raw) else b""


def string_value(value: str) -> bytes:
    """StringValue, also TypedStruct's and Any's field 1."""
    return delimited(1, value.encode()) if value else b""


def bytes_value(value: bytes) -> bytes:
    """BytesValue."""
    return delimited(1, value) if value else b""


def duration_value(seconds: int, nanos: int) -> bytes:
    """Duration; both parts have the same sign."""
    out = integer_value(seconds)
    return out + _key(2, _VARINT) + varint(nanos) if nanos else out


def value(node: object) -> bytes:
    """`google.protobuf.Value` of a JSON-like Python value (None, bool, number, str, list, dict)."""
    if node is None:
        return _key(1, _VARINT) + b"\x00"
    if isinstance(node, bool):
        return _key(4, _VARINT) + varint(int(node))
    if isinstance(node, int | float):
        return _key(2, _FIXED64) + struct.pack("<d", node)
    if isinstance(node, str):
        return delimited(3, node.encode())
    if isinstance(node, Mapping):
        return delimited(5, struct_value(node))
    if isinstance(node, Sequence):
        return delimited(6, list_value(node))
    raise TypeError(f"{type(node).__name__} has no place in a protobuf Value")


def struct_value(fields: Mapping[str, object]) -> bytes:
    """`google.protobuf.Struct`, entries in written order."""
    return b"".join(
        delimited(1, delimited(1, name.encode()) + delimited(2, value(node))) for name, node in fields.items()
    )


def list_value(items: Sequence[object]) -> bytes:
    """`google.protobuf.ListValue`."""
    return b"".join(delimited(1, value(item)) for item in items)


def typed_struct(type_url: str, fields: Mapping[str, object] | None) -> bytes:
    """`xds.type.v3.TypedStruct` (same numbers as `udpa.type.v1.TypedStruct`); None: no value was given."""
    out = string_value(type_url)
    return out if fields is None else out + delimited(2, struct_value(fields))


def any_value(type_url: str, payload: bytes) -> bytes:
    """`google.protobuf.Any` around an already encoded message."""
    out = string_value(type_url)
    return out + delimited(2, payload) if payload else out
