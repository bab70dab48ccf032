"""The byte forms of proxy-wasm: header maps, lists, numbers and the other property values.

Source: proxy-wasm specification 0.2.1, "Serialization" (maps), and Envoy's encoding of attribute values as
measured. Decoding is strict and has limits, because the bytes come from a guest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

MAX_MAP_BYTES = 1 << 20
"""Longest serialized map that is decoded; a longer one counts as undecodable."""

MAX_MAP_ENTRIES = 1024
"""Most entries of a serialized map that is decoded."""


def encode_map(lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Count, then the sizes of all names and values, then all of them, each with a NUL behind it."""
    lines = list(lines)
    sizes = [size for name, value in lines for size in (len(name), len(value))]
    head = struct.pack(f"<{1 + len(sizes)}I", len(lines), *sizes)
    return head + b"".join([part for name, value in lines for part in (name, b"\0", value, b"\0")])


def decode_map(data: bytes) -> list[tuple[bytes, bytes]]:
    """The lines of a serialized map; undecodable input is the empty map, as in Envoy (no error exists).

    Undecodable: longer than `MAX_MAP_BYTES`, more than `MAX_MAP_ENTRIES`, sizes past the end, a NUL that is
    missing, bytes left over.
    """
    if len(data) < 4 or len(data) > MAX_MAP_BYTES:
        return []
    count = int.from_bytes(data[:4], "little")
    at = 4 + 8 * count
    if count > MAX_MAP_ENTRIES or at > len(data):
        return []
    sizes = struct.unpack_from(f"<{2 * count}I", data, 4)
    texts: list[bytes] = []
    for size in sizes:
        end = at + size
        if end >= len(data) or data[end] != 0:
            return []
        texts.append(data[at:end])
        at = end + 1
    if at != len(data):
        return []
    return list(zip(texts[::2], texts[1::2], strict=True))


def encode_integer(value: int) -> bytes:
    """A signed or unsigned integer, timestamp (ns) or duration (ns): 8 bytes, little-endian."""
    return (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")


def encode_double(value: float) -> bytes:
    return struct.pack("<d", value)
