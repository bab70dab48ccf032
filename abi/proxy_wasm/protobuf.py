"""Just enough protobuf: `Struct`, `Metadata` and `Node` messages as wire bytes, and reading what guests send.

Source: protobuf encoding guide (wire types 0, 1, 2 and 5); field numbers of google.protobuf.Struct and of
Envoy's core.v3 Metadata, Node and Locality. Filters read these as properties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from abi.proxy_wasm.wire import encode_double


def varint(value: int) -> bytes:
    """An unsigned LEB128 integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, data: bytes | str) -> bytes:
    """A length-delimited field: text, bytes or a nested message."""
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def text_field(number: int, text: object) -> bytes:
    """A string field; an empty or missing string is left out, as proto3 does."""
    return field(number, str(text)) if text else b""


def value(item: object) -> bytes:
    """`google.protobuf.Value` of a JSON-like object. Numbers are doubles, as JSON's are."""
    if item is None:
        return b"\x08\x00"
    if isinstance(item, bool):
        return b"\x20" + varint(int(item))
    if isinstance(item, int | float):
        return b"\x11" + encode_double(item)
    if isinstance(item, str):
        return field(3, item)
    if isinstance(item, Mapping):
        return field(5, struct_message(item))
    if isinstance(item, Sequence):
        return field(6, b"".join(field(1, value(element)) for element in item))
    raise TypeError(f"{type(item).__name__} is not a JSON value")


def struct_message(items: Mapping[str, object]) -> bytes:
    """`google.protobuf.Struct`: one map entry per member, in order."""
    return b"".join(field(1, field(1, key) + field(2, value(item))) for key, item in items.items())


def metadata_message(namespaces: Mapping[str, object]) -> bytes:
    """`envoy.config.core.v3.Metadata` with its `filter_metadata`: namespace to Struct."""
    return b"".join(
        field(1, field(1, name) + field(2, struct_message(fields)))
        for name, fields in namespaces.items()
        if isinstance(fields, Mapping)
    )


def locality_message(locality: Mapping[str, object]) -> bytes:
    """`envoy.config.core.v3.Locality`."""
    names = ("region", "zone", "sub_zone")
    return b"".join(text_field(number, locality.get(name)) for number, name in enumerate(names, 1))


def node_message(node: Mapping[str, object]) -> bytes:
    """`envoy.config.core.v3.Node`: id, cluster, metadata, locality."""
    out = text_field(1, node.get("id")) + text_field(2, node.get("cluster"))
    metadata, locality = node.get("metadata"), node.get("locality")
    if isinstance(metadata, Mapping) and metadata:
        out += field(3, struct_message(metadata))
    if isinstance(locality, Mapping) and locality:
        out += field(4, locality_message(locality))
    return out


# --- reading ----------------------------------------------------------------------------------------------


def read_fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message in order: number, and an integer or the bytes of a length-delimited one.

    ValueError when it is no message. Groups, which proto3 does not have, count as that.
    """
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number}")
        if wire_type == 0:
            integer, at = _read_varint(data, at)
            found.append((number, integer))
            continue
        if wire_type == 2:
            size, at = _read_varint(data, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        piece = data[at : at + size]
        if len(piece) < size:
            raise ValueError("cut off in a field")
        at += size
        found.append((number, piece if wire_type == 2 else int.from_bytes(piece, "little")))
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of 64 bits and where it ends."""
    value = shift = 0
    for place in range(at, min(at + 10, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
        shift += 7
    raise ValueError("cut off in a number, or a number too long")
