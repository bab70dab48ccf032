"""Bytes that are not a module: each rule of the binary format broken once, with message and place.

The messages begin as the official test suite has them. `test_mutated.py` compares verdicts in bulk.
"""

from __future__ import annotations

import pytest

from pywasmvm.binary.decode import decode
from pywasmvm.errors import MalformedError
from tests.support import binary as b

TYPE = b.types(b.functype())
FUNCTION = b.functions(0)
MEMORY = b.section(5, b.vec([b"\0\1"]))


def in_body(code: bytes, *before: bytes) -> bytes:
    """A module whose only function has these bytes as its body, `end` included in them or not."""
    return b.module(TYPE, FUNCTION, *before, b.section(10, b.vec([b.u32(len(code)) + code])))


def with_code(code: bytes) -> bytes:
    return in_body(b"\0" + code + b.END)


CASES: dict[str, tuple[bytes, str]] = {
    # header
    "empty": (b"", "unexpected end"),
    "half a magic": (b"\0as", "unexpected end"),
    "other magic": (b"\0asn\1\0\0\0", "magic header not detected"),
    "text": (b"(module)", "magic header not detected"),
    "no version": (b"\0asm", "unexpected end"),
    "half a version": (b"\0asm\1\0\0", "unexpected end"),
    "other version": (b"\0asm\2\0\0\0", "unknown binary version"),
    "component": (b"\0asm\x0d\0\1\0", "unknown binary version"),
    # sections
    "section without size": (b.module(b"\1"), "unexpected end"),
    "section longer than the file": (b.module(b.section(1, b"\0", size=2)), "length out of bounds"),
    "section of 4 GiB": (b.module(b"\1" + b.u32(0xFFFFFFFF)), "length out of bounds"),
    "section size of 6 bytes": (
        b.module(b"\1" + b.u32(1, width=6) + b"\0"),
        "integer representation too long",
    ),
    "section size beyond u32": (b.module(b"\1\xff\xff\xff\xff\x1f"), "integer too large"),
    "bytes left in a section": (b.module(b.section(1, b"\0\0")), "section size mismatch"),
    "section ends too early": (b.module(b.section(1, b"\1")), "unexpected end of section or function"),
    "unknown section": (b.module(b.section(14, b"")), "malformed section id"),
    "section twice": (b.module(TYPE, TYPE), "unexpected content after last section"),
    "section out of order": (b.module(MEMORY, TYPE), "unexpected content after last section"),
    "data count after code": (
        b.module(b.section(10, b"\0"), b.section(12, b"\0")),
        "unexpected content after last section",
    ),
    "custom section without name": (b.module(b.section(0, b"")), "unexpected end"),
    "custom section with a name too long": (b.module(b.section(0, b"\5ab")), "length out of bounds"),
    # names
    "name not UTF-8": (b.module(b.custom(b"\xff")), "malformed UTF-8 encoding"),
    "name with a surrogate": (b.module(b.custom(b"\xed\xa0\x80")), "malformed UTF-8 encoding"),
    "name with an over-long form": (b.module(b.custom(b"\xc0\x80")), "malformed UTF-8 encoding"),
    "name beyond Unicode": (b.module(b.custom(b"\xf4\x90\x80\x80")), "malformed UTF-8 encoding"),
    "name cut in a character": (b.module(b.custom(b"\xe2\x82")), "malformed UTF-8 encoding"),
    "import name not UTF-8": (
        b.module(b.section(2, b.vec([b.name(b"\x80") + b.name("f") + b"\0\0"]))),
        "malformed UTF-8 encoding",
    ),
    "export name not UTF-8": (b.module(b.section(7, b.vec([b.name(b"\x80") + b"\0\0"]))), "malformed UTF-8"),
    # types
    "type of another form": (b.module(b.types(b"\x40\0\0")), "malformed definition type"),
    "type code of two bytes": (b.module(b.types(b"\xe0\x7f\0\0")), "integer representation too long"),
    "field neither const nor var": (b.module(b.types(b"\x5f\1\x7f\2")), "malformed mutability"),
    "packed parameter": (b.module(b.types(b.functype(b"\x78"))), "malformed value type"),
    "group in a group": (b.module(b.types(b"\x4e\1\x4e\0")), "malformed definition type"),
    "subtype of a subtype": (b.module(b.types(b"\x50\0\x50\0\x5f\0")), "malformed definition type"),
    "negative type index": (b.module(b.types(b"\x60\1\x64\x40\0")), "malformed heap type"),
    "unknown value type": (b.module(b.types(b.functype(b"\x01"))), "malformed value type"),
    "block type as a value type": (b.module(b.types(b.functype(b"\x40"))), "malformed value type"),
    # imports, tables, memories, globals, exports
    "import of an unknown kind": (
        b.module(b.section(2, b.vec([b.name("m") + b.name("n") + b"\6\0"]))),
        "malformed import kind",
    ),
    "table of numbers": (b.module(b.section(4, b.vec([b.I32 + b"\0\0"]))), "malformed reference type"),
    "limits with unknown flags": (b.module(b.section(5, b.vec([b"\x08\0"]))), "malformed limits flags"),
    "shared memory": (b.module(b.section(5, b.vec([b"\3\0\0"]))), "malformed limits flags"),
    "size beyond u64": (b.module(b.section(5, b.vec([b"\4" + b"\xff" * 9 + b"\3"]))), "integer too large"),
    "size that the section cuts and is too long": (
        b.module(b.section(5, b"\1\0" + b"\x80" * 12, size=4)),
        "integer representation too long",
    ),
    "tag of another kind": (b.module(TYPE, b.section(13, b.vec([b"\1\0"]))), "malformed tag attribute"),
    "tags behind globals": (
        b.module(TYPE, b.section(6, b"\0"), b.section(13, b"\0")),
        "unexpected content after last section",
    ),
    "table with half a prefix": (b.module(b.section(4, b.vec([b"\x40\1\x70\0\0"]))), "malformed table"),
    "limits without maximum": (b.module(b.section(5, b.vec([b"\1\0"]))), "unexpected end"),
    "global neither const nor var": (
        b.module(b.section(6, b.vec([b.I32 + b"\2\x41\0\x0b"]))),
        "malformed mutability",
    ),
    "global without end": (b.module(b.section(6, b.vec([b.I32 + b"\0\x41\0"]))), "unexpected end"),
    "export of an unknown kind": (
        b.module(b.section(7, b.vec([b.name("x") + b"\5\0"]))),
        "malformed export kind",
    ),
    # functions and code
    "functions without code": (
        b.module(TYPE, FUNCTION),
        "function and code section have inconsistent lengths",
    ),
    "code without functions": (
        b.module(TYPE, b.code(b.body(b""))),
        "function and code section have inconsistent lengths",
    ),
    "body longer than its section": (
        b.module(TYPE, FUNCTION, b.section(10, b"\1\x7f\0\x0b")),
        "unexpected end of section or function",
    ),
    "body without end": (in_body(b"\0\x01"), "unexpected end of section or function"),
    "body ends in an immediate": (in_body(b"\0\x41"), "unexpected end"),
    "body with open block": (in_body(b"\0\x02\x40\x0b"), "unexpected end of section or function"),
    "empty body": (in_body(b""), "unexpected end"),
    "bytes after the end": (in_body(b"\0\x0b\x01"), "section size mismatch"),
    "else without if": (with_code(b"\x05"), "unexpected else"),
    "else in a block": (with_code(b"\x02\x40\x05\x0b"), "unexpected else"),
    "else twice": (with_code(b"\x41\0\x04\x40\x05\x05\x0b"), "unexpected else"),
    "too many locals": (
        in_body(b"\2" + b.u32(0xFFFFFFFF) + b.I32 + b"\1" + b.I32 + b.END),
        "too many locals",
    ),
    "2^64 locals": (in_body(b"\x05" + (b.u32(0xFFFFFFFF) + b.I64) * 5 + b.END), "too many locals"),
    "local count beyond u32": (in_body(b"\1\x80\x80\x80\x80\x10" + b.I32 + b.END), "integer too large"),
    "local of an unknown type": (in_body(b"\1\1\x40" + b.END), "malformed value type"),
    # instructions
    "unknown opcode": (with_code(b"\x27"), "illegal opcode 27"),
    "unknown opcode at the end of the page": (with_code(b"\xff"), "illegal opcode ff"),
    "unknown opcode behind a prefix": (with_code(b"\xfc\x12"), "illegal opcode fc 12"),
    "opcode number behind a prefix too long": (
        with_code(b"\xfc\x80\x80\x80\x80\x80\x00"),
        "integer representation",
    ),
    "unknown vector instruction": (with_code(b"\xfd\x94\x02"), "illegal opcode fd 114"),
    "vector constant cut": (in_body(b"\0\xfd\x0c" + bytes(15)), "unexpected end"),
    "cast with unknown flags": (with_code(b"\xfb\x18\4\0\x6e\x6e"), "malformed br_on_cast flags"),
    "catch of an unknown kind": (with_code(b"\x1f\x40\1\4\0\x0b"), "malformed catch clause"),
    "more catches than bytes": (with_code(b"\x1f\x40\xff\xff\xff\xff\x0f"), "unexpected end"),
    "i32 constant too long": (
        with_code(b"\x41\x80\x80\x80\x80\x80\x00\x1a"),
        "integer representation too long",
    ),
    "i32 constant too large": (with_code(b"\x41\xff\xff\xff\xff\x0f\x1a"), "integer too large"),
    "negative i32 constant too large": (with_code(b"\x41\x80\x80\x80\x80\x70\x1a"), "integer too large"),
    "i64 constant too long": (
        with_code(b"\x42" + b"\x80" * 10 + b"\x00\x1a"),
        "integer representation too long",
    ),
    "i64 constant too large": (with_code(b"\x42" + b"\xff" * 9 + b"\x01\x1a"), "integer too large"),
    "f32 constant cut": (in_body(b"\0\x43\0\0"), "unexpected end"),
    "f64 constant cut": (in_body(b"\0\x44\0\0\0\0\0\0"), "unexpected end"),
    "negative block type": (with_code(b"\x02\x41\x0b"), "malformed block type"),
    "alignment of 2^64": (
        in_body(b"\0\x41\0\x28\x80\1\0\x1a" + b.END, MEMORY),
        "malformed memop flags",
    ),
    "offset beyond u64": (
        in_body(b"\0\x41\0\x28\0" + b"\xff" * 9 + b"\x02\x1a" + b.END, MEMORY),
        "integer too large",
    ),
    "br_table with more labels than bytes": (
        with_code(b"\x41\0\x0e\xff\xff\xff\xff\x0f\0"),
        "unexpected end of section or function",
    ),
    "reference to an unknown heap type": (with_code(b"\xd0\x40\x1a"), "malformed heap type"),
    "select of a malformed type": (with_code(b"\x41\0\x41\0\x41\0\x1c\1\x40\x1a"), "malformed value type"),
    "memory.init without data count": (
        in_body(b"\0" + b"\x41\0" * 3 + b"\xfc\x08\0\0" + b.END, MEMORY),
        "data count section required",
    ),
    "data.drop without data count": (with_code(b"\xfc\x09\0"), "data count section required"),
    # segments
    "element segment of an unknown kind": (
        b.module(b.section(9, b.vec([b"\x08"]))),
        "malformed elements segment kind",
    ),
    "element kind unknown": (b.module(b.section(9, b.vec([b"\1\1\0"]))), "malformed element kind"),
    "elements of a number type": (b.module(b.section(9, b.vec([b"\5\x7f\0"]))), "malformed reference type"),
    "more elements than bytes": (
        b.module(b.section(9, b.vec([b"\1\0\xff\xff\xff\xff\x0f"]))),
        "unexpected end of section or function",
    ),
    "data segment of an unknown kind": (
        b.module(b.section(11, b.vec([b"\3"]))),
        "malformed data segment kind",
    ),
    "data longer than the section": (b.module(b.section(11, b.vec([b"\1\x05ab"]))), "unexpected end"),
    "data offset without end": (b.module(b.section(11, b.vec([b"\0\x41\0\x41\0"]))), "unexpected end"),
    "data count too small": (
        b.module(b.section(12, b"\0"), b.section(11, b.vec([b"\1\0"]))),
        "data count and data section have inconsistent lengths",
    ),
    "data count without data": (
        b.module(b.section(12, b"\1")),
        "data count and data section have inconsistent",
    ),
    "as many types as a u32 can say": (
        b.module(b.section(1, b"\xff\xff\xff\xff\x0f")),
        "unexpected end of section or function",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    data, message = CASES[case]
    with pytest.raises(MalformedError) as caught:
        decode(data)
    assert str(caught.value).startswith(message)
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= len(data)


def test_the_place_is_the_offending_byte() -> None:
    data = with_code(b"\x01\x01\x27")
    with pytest.raises(MalformedError) as caught:
        decode(data)
    assert caught.value.offset is not None
    assert data[caught.value.offset] == 0x27
    assert f"(at offset {caught.value.offset:#x})" in str(caught.value)


@pytest.mark.parametrize("cut", range(8, 60))
def test_every_prefix_of_a_module_is_refused_or_a_module(cut: int) -> None:
    whole = b.function(b"\x20\0\x41\x01\x6a", b.I32, b.I32, MEMORY)
    ends = {8}
    pos = 8
    while pos < len(whole):
        pos += 2 + whole[pos + 1]
        ends.add(pos)
    if (cut in ends and cut < 20) or cut >= len(whole):
        decode(whole[:cut])  # before the functions are declared, a cut between sections is a module
    else:
        with pytest.raises(MalformedError):
            decode(whole[:cut])
