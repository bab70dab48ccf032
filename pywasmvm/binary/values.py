"""Values in the binary format, written: the counterpart of `reader` (spec: Binary Format, Values)."""

from __future__ import annotations

from collections.abc import Iterable


def unsigned(value: int) -> bytes:
    """An unsigned LEB128 number in as few bytes as possible."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """A signed LEB128 number in as few bytes as possible."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def text(value: str) -> bytes:
    """A name: its length in bytes and UTF-8."""
    data = value.encode("utf-8")
    return unsigned(len(data)) + data


def vector(items: Iterable[bytes]) -> bytes:
    """A count and that many encoded items."""
    parts = list(items)
    return unsigned(len(parts)) + b"".join(parts)
