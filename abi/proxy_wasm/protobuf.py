"""Just enough protobuf writing to give guests `Struct`, `Metadata` and `Node` messages as wire bytes.

Source: protobuf encoding guide (wire types 0, 1 and 2); field numbers of google.protobuf.Struct and of
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
