"""Where code comes from: DWARF line tables and source maps, real ones, written ones, and nonsense."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import Instance, Module, Trap
from pywasmvm.debug.dwarf import DwarfError, LineTable, Place
from pywasmvm.debug.lines import attach, lines_of
from pywasmvm.debug.source_map import SourceMap, SourceMapError

#: Built from `divide.c` by `zig cc --target=wasm32-freestanding -O0 -gdwarf-N -ffile-compilation-dir=src
#: -fno-sanitize=all -nostdlib -Wl,--no-entry`.
DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(("version", "file"), [(4, "divide.c"), (5, "src/divide.c")])
@pytest.mark.parametrize("engine", ["interp", "translate"])
def test_a_trap_in_c(version: int, file: str, engine: str) -> None:
    from pywasmvm import Store

    module = Module.from_file(DATA / f"divide-dwarf{version}.wasm")
    with pytest.raises(Trap) as caught:
        Instance(module, store=Store(engine=engine)).exports["go"](3)
    places = [(frame.func, lines_of(module).place(frame.offset)) for frame in caught.value.frames]
    assert places == [("divide", Place(file, 2)), ("deeper", Place(file, 6)), ("go", Place(file, 10))]


def uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def unit(program: bytes, *, range_: int = 14, special: int = 13) -> bytes:
    """A unit of DWARF 3 with the files `one.c` and `sub/two.c`."""
    tables = b"sub\0\0one.c\0\0\0\0two.c\0\1\0\0\0"
    head = struct.pack("<BBbBB", 1, 1, -5, range_, special) + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    rest = struct.pack("<I", len(head + tables)) + head + tables + program
    return struct.pack("<IH", len(rest) + 2, 3) + rest


def at(address: int) -> bytes:
    return b"\0\5\2" + struct.pack("<I", address)


END = b"\0\1\1"


def test_every_operation_of_a_line_program() -> None:
    program = b"".join(
        [
            at(100),
            b"\x03\x09\x01",  # advance_line 9, copy: 100 -> one.c:10
            b"\x04\x02\x05\x07\x06\x07",  # set_file 2, set_column, negate_stmt, set_basic_block
            b"\x02\x0a\x01",  # advance_pc 10, copy: 110 -> two.c:10
            b"\x08\x03\x7e\x01",  # const_add_pc (17), advance_line -2, copy: 127 -> two.c:8
            b"\x09\x03\x00\x0a\x0b\x0c\x01\x01",  # fixed_advance_pc 3, ..., set_isa 1, copy: 130 -> two.c:8
            bytes([13 + 2 * 14 + 5 + 1]),  # special: two on, one line down: 132 -> two.c:9
            b"\0\2\x80\x01",  # an operation of somebody's own
            b"\x02\x08" + END,  # 140: the end
            at(0) + b"\x01" + END,  # a function that the linker has dropped
        ]
    )
    table = LineTable({".debug_line": unit(program) + unit(at(200) + b"\x01\x02\x01" + END)})
    expected = {99: None, 100: "one.c:10", 109: "one.c:10", 110: "sub/two.c:10", 127: "sub/two.c:8"}
    expected |= {131: "sub/two.c:8", 132: "sub/two.c:9", 139: "sub/two.c:9", 140: None, 150: None}
    expected |= {200: "one.c:1", 201: None}
    assert {address: _text(table.place(address)) for address in expected} == expected


def _text(place: Place | None) -> str | None:
    return None if place is None else str(place)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (unit(b"\x01")[:-1], "a unit ends early"),
        (unit(b"\x02"), "a table ends early"),
        (unit(b"", range_=0), "a header is contradictory"),
        (unit(b"\x02" + b"\x80" * 11), "a number is too long"),
        (unit(b"\0\x7f\x01"), "a table ends early"),
    ],
)
def test_broken_tables(data: bytes, message: str) -> None:
    with pytest.raises(DwarfError, match=message):
        LineTable({".debug_line": data})


def test_units_of_other_versions_are_passed_over() -> None:
    later = struct.pack("<IH", 4, 6) + b"??"
    table = LineTable({".debug_line": later + unit(at(1) + b"\x01\x02\x01" + END)})
    assert _text(table.place(1)) == "one.c:1"


REAL = [Module.from_file(DATA / f"divide-dwarf{version}.wasm").custom_sections for version in (4, 5)]


@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 400),
)
def test_damage_is_an_error_or_a_table(
    sections: dict[str, bytes], damage: list[tuple[int, int]], address: int
) -> None:
    data = bytearray(sections[".debug_line"])
    for place, value in damage:
        data[place % len(data)] = value
    try:
        table = LineTable({**sections, ".debug_line": bytes(data)})
    except DwarfError:
        return
    table.place(address)


# --- source maps --------------------------------------------------------------------------------------------


def vlq(value: int) -> str:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = -value << 1 | 1 if value < 0 else value << 1
    out = ""
    while True:
        value, low = value >> 5, value & 31
        out += digits[low | 32 if value else low]
        if not value:
            return out


def source_map(rows: list[tuple[int, tuple[int, int] | None]], sources: int = 3) -> str:
    """Rows of (offset, (source, line from 0) or nothing)."""
    segments, last = [], [0, 0, 0]
    for offset, place in rows:
        segment = vlq(offset - last[0])
        last[0] = offset
        if place is not None:
            segment += vlq(place[0] - last[1]) + vlq(place[1] - last[2]) + vlq(0)
            last[1:] = place
        segments.append(segment)
    names = [f"{number}.ts" for number in range(sources)]
    return json.dumps({"version": 3, "sources": names, "names": [], "mappings": ",".join(segments)})


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 31), st.none() | st.tuples(st.integers(0, 2), st.integers(0, 1 << 20))),
        unique_by=lambda row: row[0],
    ),
    st.integers(0, 1 << 31),
)
def test_a_source_map_says_what_was_put_in(
    rows: list[tuple[int, tuple[int, int] | None]], offset: int
) -> None:
    rows.sort(key=lambda row: row[0])
    before = [place for begin, place in rows if begin <= offset]
    expected = Place(f"{before[-1][0]}.ts", before[-1][1] + 1) if before and before[-1] else None
    assert SourceMap(source_map(rows)).place(offset) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        '{"version": 2}',
        '{"version": 3, "sources": 1, "mappings": ""}',
        '{"version": 3, "sources": [], "mappings": "!"}',
        '{"version": 3, "sources": [], "mappings": "g"}',
        '{"version": 3, "sources": [], "mappings": "C,D"}',
    ],
)
def test_what_is_no_source_map(text: str) -> None:
    with pytest.raises(SourceMapError):
        SourceMap(text)


TRAPPING = '(module (func (export "f") nop unreachable))'


def offset_of_trap(module: Module) -> int | None:
    with pytest.raises(Trap) as caught:
        Instance(module).exports["f"]()
    return caught.value.frames[0].offset


def custom(name: str, contents: bytes) -> bytes:
    body = uleb(len(name)) + name.encode() + contents
    return b"\0" + uleb(len(body)) + body


def test_a_map_beside_the_module_or_in_it() -> None:
    from tests.support.wat import wat

    module = Module(wat(TRAPPING))
    offset = offset_of_trap(module)
    assert offset is not None
    assert lines_of(module).place(offset) is None
    text = source_map([(offset, (1, 41))]).encode()
    attach(module, lambda: text)
    assert str(lines_of(module).place(offset)) == "1.ts:42"
    assert lines_of(module).place(None) is None
    url = b"data:application/json;base64," + base64.b64encode(text)
    carrying = Module(wat(TRAPPING) + custom("sourceMappingURL", uleb(len(url)) + url))
    assert str(lines_of(carrying).place(offset)) == "1.ts:42"


@pytest.mark.parametrize("broken", [b"[", b"\xff", b""])
def test_debug_information_never_fails(broken: bytes, tmp_path: Path) -> None:
    from tests.support.wat import wat

    module = Module(wat(TRAPPING))
    attach(module, lambda: broken)
    assert lines_of(module).place(30) is None
    attach(module, (tmp_path / "none").read_bytes)
    assert lines_of(module).place(30) is None
    for name in ("sourceMappingURL", ".debug_line"):
        module = Module(wat(TRAPPING) + custom(name, b"\x05" + broken))
        assert lines_of(module).place(30) is None


def test_a_file_that_a_module_names_is_not_read(tmp_path: Path) -> None:
    from tests.support.wat import wat

    path = tmp_path / "secret.map"
    path.write_text(source_map([(0, (0, 0))]))
    url = str(path).encode()
    module = Module(wat(TRAPPING) + custom("sourceMappingURL", uleb(len(url)) + url))
    assert lines_of(module).place(30) is None
