"""DWARF's line tables: from an instruction's place to file and line of the source it was compiled from.

Source: DWARF 5 (and 2 to 4), section 6.2 "Line Number Information"; for Wasm, the tool conventions' "DWARF
for WebAssembly": sections are custom sections, addresses count from the first byte of the code section's
contents. Of the line program only files and lines are kept. Tables come from whoever wrote the module: none
of them can make this fail otherwise than with `DwarfError`, or take more time and memory than they are long.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

#: `DW_LNS_*` and `DW_LNE_*` with the names of the standard.
COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE, SET_COLUMN, NEGATE_STMT, SET_BASIC_BLOCK = range(1, 8)
CONST_ADD_PC, FIXED_ADVANCE_PC = 8, 9
END_SEQUENCE, SET_ADDRESS, DEFINE_FILE = 1, 2, 3

#: `DW_LNCT_*`: what an entry of a directory or file table may consist of.
PATH, DIRECTORY_INDEX = 1, 2

#: `DW_FORM_*` that stand in those tables, with their sizes; the others have a length of their own.
STRING, BLOCK, UDATA, LINE_STRP, STRP, DATA16 = 0x08, 0x09, 0x0F, 0x1F, 0x0E, 0x1E
_SIZES = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, DATA16: 16}

#: Linkers that drop a function leave its lines behind, at one of these addresses.
_TOMBSTONES = frozenset((0, 0xFFFF_FFFF, 0xFFFF_FFFE))


class DwarfError(ValueError):
    """The tables are not what DWARF says."""


class Place(NamedTuple):
    """A place in a source file; lines count from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class _Reader:
    """Little-endian values from a section."""

    def __init__(self, data: bytes, pos: int = 0, end: int | None = None) -> None:
        self.data, self.pos, self.end = data, pos, len(data) if end is None else end

    def take(self, count: int) -> bytes:
        if count < 0 or self.pos + count > self.end:
            raise DwarfError("a table ends early")
        found = self.data[self.pos : self.pos + count]
        self.pos += count
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 70:
                raise DwarfError("a number is too long")

    def signed(self) -> int:
        begin = self.pos
        value = self.unsigned()
        bits = 7 * (self.pos - begin)
        return value - (1 << bits) if value >> (bits - 1) else value

    def text(self) -> str:
        end = self.data.find(b"\0", self.pos, self.end)
        if end < 0:
            raise DwarfError("a text does not end")
        found = self.data[self.pos : end]
        self.pos = end + 1
        return found.decode("utf-8", "replace")


class LineTable:
    """All line programs of a module. `place` takes addresses as DWARF has them."""

    def __init__(self, sections: Mapping[str, bytes]) -> None:
        """Raises DwarfError. `sections` are the custom sections by name."""
        self._sections = sections
        rows: list[tuple[int, int, Place | None]] = []
        data = sections.get(".debug_line", b"")
        pos = 0
        while pos < len(data):
            pos = self._unit(data, pos, rows)
        rows.sort(key=lambda row: row[:2])
        self._addresses = [row[0] for row in rows]
        self._places = [row[2] for row in rows]

    def __len__(self) -> int:
        return len(self._addresses)

    def place(self, address: int) -> Place | None:
        """Where the instruction at an address comes from."""
        at = bisect_right(self._addresses, address) - 1
        return None if at < 0 else self._places[at]

    def _unit(self, data: bytes, pos: int, rows: list[tuple[int, int, Place | None]]) -> int:
        """One unit's program; where the next one begins."""
        reader = _Reader(data, pos)
        length, offset_size = reader.number(4), 4
        if length == 0xFFFF_FFFF:
            length, offset_size = reader.number(8), 8
        end = reader.pos + length
        if end > len(data):
            raise DwarfError("a unit ends early")
        reader.end = end
        version = reader.number(2)
        if 2 <= version <= 5:
            if version >= 5:
                reader.take(2)  # sizes of addresses and segment selectors
            header_end = reader.number(offset_size)
            header_end += reader.pos
            program = _Program(reader, version)
            program.files = self._files_5(reader, offset_size) if version >= 5 else _files_2(reader)
            reader.pos = header_end
            rows += [
                (address, order, place) for order, (address, place) in enumerate(program.run(), len(rows))
            ]
        return end

    def _files_5(self, reader: _Reader, offset_size: int) -> list[str]:
        directories = [path for path, _ in self._entries(reader, offset_size)]
        return [_joined(directories, index, path) for path, index in self._entries(reader, offset_size)]

    def _entries(self, reader: _Reader, offset_size: int) -> list[tuple[str, int]]:
        """A table of directories or files: path and directory index of each."""
        formats = [(reader.unsigned(), reader.unsigned()) for _ in range(reader.number(1))]
        count = reader.unsigned()
        if count > reader.end - reader.pos:
            raise DwarfError("a table ends early")
        entries = []
        for _ in range(count):
            path, index = "", 0
            for content, form in formats:
                value = self._value(reader, form, offset_size)
                if content == PATH and isinstance(value, str):
                    path = value
                elif content == DIRECTORY_INDEX and isinstance(value, int):
                    index = value
            entries.append((path, index))
        return entries

    def _value(self, reader: _Reader, form: int, offset_size: int) -> str | int:
        if form == STRING:
            return reader.text()
        if form in (LINE_STRP, STRP):
            name = ".debug_line_str" if form == LINE_STRP else ".debug_str"
            return _Reader(self._sections.get(name, b""), reader.number(offset_size)).text()
        if form == UDATA:
            return reader.unsigned()
        if form == BLOCK:
            reader.take(reader.unsigned())
            return 0
        if form in _SIZES:
            return reader.number(_SIZES[form])
        raise DwarfError(f"form {form:#x} is unknown")


def _files_2(reader: _Reader) -> list[str]:
    """The tables of DWARF 2 to 4: files count from 1, directory 0 is the compiler's own."""
    directories = [""]
    while name := reader.text():
        directories.append(name)
    files = [""]
    while name := reader.text():
        files.append(_joined(directories, reader.unsigned(), name))
        reader.unsigned()  # time
        reader.unsigned()  # size
    return files


def _joined(directories: list[str], index: int, path: str) -> str:
    folder = directories[index] if index < len(directories) else ""
    return path if path.startswith("/") or not folder else f"{folder}/{path}"


class _Program:
    """The state machine of a unit; its header has been read up to the tables."""

    def __init__(self, reader: _Reader, version: int) -> None:
        self.reader = reader
        self.step = reader.number(1)
        if version >= 4:
            reader.number(1)  # operations per instruction, for other machines
        reader.number(1)  # whether rows begin as statements
        (self.line_base,) = struct.unpack("b", reader.take(1))
        self.line_range = reader.number(1)
        self.first_special = reader.number(1)
        if self.line_range == 0 or self.first_special == 0:
            raise DwarfError("a header is contradictory")
        self.operands = [0, *reader.take(self.first_special - 1)]
        self.files: list[str] = []

    def run(self) -> Iterator[tuple[int, Place | None]]:
        """The rows: from an address on, which place; None at the end of a sequence."""
        reader = self.reader
        address, file, line, dead = 0, 1, 1, False
        row: tuple[int, Place | None] | None
        while reader.pos < reader.end:
            code, row = reader.number(1), None
            if code >= self.first_special:
                advance, line_advance = divmod(code - self.first_special, self.line_range)
                address += advance * self.step
                line += self.line_base + line_advance
                row = address, self._place(file, line)
            elif code == 0:
                length = reader.unsigned()
                after = reader.pos + length
                extended = reader.number(1) if length else None
                if extended == END_SEQUENCE:
                    row = address, None
                elif extended == SET_ADDRESS:
                    address = reader.number(length - 1)
                    dead = address in _TOMBSTONES
                elif extended == DEFINE_FILE:
                    self.files.append(reader.text())
                reader.take(after - reader.pos)
            elif code == COPY:
                row = address, self._place(file, line)
            elif code == ADVANCE_PC:
                address += reader.unsigned() * self.step
            elif code == ADVANCE_LINE:
                line += reader.signed()
            elif code == SET_FILE:
                file = reader.unsigned()
            elif code == CONST_ADD_PC:
                address += (255 - self.first_special) // self.line_range * self.step
            elif code == FIXED_ADVANCE_PC:
                address += reader.number(2)
            else:
                for _ in range(self.operands[code]):
                    reader.unsigned()
            if row is not None:
                if not dead:
                    yield row
                if row[1] is None:
                    address, file, line, dead = 0, 1, 1, False

    def _place(self, file: int, line: int) -> Place | None:
        if line <= 0 or file >= len(self.files):
            return None
        return Place(self.files[file], line)
