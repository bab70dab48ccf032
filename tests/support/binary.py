"""Modules built byte by byte, for what no tool will write: wrong sizes, wrong orders, hostile numbers.

Each function returns the encoding of one production of the binary format (spec: Binary Format).
"""

from __future__ import annotations

from collections.abc import Iterable

HEADER = b"\0asm\1\0\0\0"
I32, I64, F32, F64, FUNCREF, EXTERNREF = b"\x7f", b"\x7e", b"\x7d", b"\x7c", b"\x70", b"\x6f"
END = b"\x0b"


def u32(value: int, width: int = 1) -> bytes:
    """Unsigned LEB128 in at least `width` bytes (longer than needed is allowed, up to a limit)."""
    out = bytearray()
    while True:
        out.append(value & 0x7F)
        value >>= 7
        if not value and len(out) >= width:
            return bytes(out)
        out[-1] |= 0x80


def s32(value: int) -> bytes:
    """Signed LEB128."""
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        if value == (-1 if byte & 0x40 else 0):
            return bytes([*out, byte])
        out.append(byte | 0x80)


def vec(items: Iterable[bytes]) -> bytes:
    """A count and the items."""
    parts = list(items)
    return u32(len(parts)) + b"".join(parts)


def name(text: str | bytes) -> bytes:
    """A length and bytes, UTF-8 unless given as bytes."""
    data = text.encode() if isinstance(text, str) else text
    return u32(len(data)) + data


def section(number: int, content: bytes, size: int | None = None) -> bytes:
    """A section; `size` lies about its length."""
    return bytes([number]) + u32(len(content) if size is None else size) + content


def module(*sections: bytes) -> bytes:
    """Header and sections."""
    return HEADER + b"".join(sections)


def custom(label: str | bytes, content: bytes = b"") -> bytes:
    """A custom section."""
    return section(0, name(label) + content)


def functype(params: bytes = b"", results: bytes = b"") -> bytes:
    """A function type; value types are single bytes."""
    return b"\x60" + u32(len(params)) + params + u32(len(results)) + results


def types(*items: bytes) -> bytes:
    """The type section."""
    return section(1, vec(items))


def functions(*indices: int) -> bytes:
    """The function section."""
    return section(3, vec(u32(index) for index in indices))


def export(label: str, kind: int, index: int) -> bytes:
    """One export; kinds: 0 function, 1 table, 2 memory, 3 global."""
    return name(label) + bytes([kind]) + u32(index)


def exports(*items: bytes) -> bytes:
    """The export section."""
    return section(7, vec(items))


def body(code: bytes, locals_: bytes = b"\0") -> bytes:
    """A function body; `code` without the closing `end`, `locals_` as an encoded vector of runs."""
    content = locals_ + code + END
    return u32(len(content)) + content


def code(*bodies: bytes) -> bytes:
    """The code section."""
    return section(10, vec(bodies))


def function(instructions: bytes, params: bytes = b"", results: bytes = b"", *between: bytes) -> bytes:
    """A module with one function, exported as `f`; other sections may stand before exports."""
    return module(
        types(functype(params, results)),
        functions(0),
        *between,
        exports(export("f", 0, 0)),
        code(body(instructions)),
    )
