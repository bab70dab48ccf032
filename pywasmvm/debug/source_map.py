"""Source maps: from a byte offset to file and line of the source, as AssemblyScript and others write them.

Source: ECMA-426 (source map format, revision 3). A module is one line; a mapping's column is the byte offset
in the module.
"""

from __future__ import annotations

import json
from bisect import bisect_right

from pywasmvm.debug.dwarf import Place

_DIGITS = {
    char: value
    for value, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}


class SourceMapError(ValueError):
    """The text is no source map."""


class SourceMap:
    """The mappings of a module."""

    def __init__(self, text: str | bytes) -> None:
        """Raises SourceMapError."""
        try:
            found = json.loads(text)
        except ValueError as error:
            raise SourceMapError(f"it is no JSON: {error}") from None
        if not isinstance(found, dict) or found.get("version") != 3:
            raise SourceMapError("it is no source map of revision 3")
        sources, mappings = found.get("sources"), found.get("mappings")
        if not isinstance(sources, list) or not isinstance(mappings, str):
            raise SourceMapError("it has no sources or no mappings")
        root = found.get("sourceRoot") or ""
        self._files = [f"{root}{source}" for source in sources]
        self._offsets: list[int] = []
        self._places: list[Place | None] = []
        self._read(mappings.split(";", 1)[0])

    def __len__(self) -> int:
        return len(self._offsets)

    def _read(self, segments: str) -> None:
        offset = source = line = 0
        for segment in filter(None, segments.split(",")):
            values = _values(segment)
            offset += values[0]
            place = None
            if len(values) >= 4:
                source += values[1]
                line += values[2]
                if 0 <= source < len(self._files) and line >= 0:
                    place = Place(self._files[source], line + 1)
            if self._offsets and offset < self._offsets[-1]:
                raise SourceMapError("its mappings go back")
            self._offsets.append(offset)
            self._places.append(place)

    def place(self, offset: int) -> Place | None:
        """Where the instruction at a byte offset of the module comes from."""
        at = bisect_right(self._offsets, offset) - 1
        return None if at < 0 else self._places[at]


def _values(segment: str) -> list[int]:
    """Base64 VLQ: six bits a digit, the lowest of a number its sign."""
    values: list[int] = []
    value = shift = 0
    for char in segment:
        digit = _DIGITS.get(char)
        if digit is None or shift > 60:
            raise SourceMapError(f"{segment!r} is no mapping")
        value |= (digit & 31) << shift
        shift += 5
        if digit < 32:
            values.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    if shift or not values:
        raise SourceMapError(f"{segment!r} is no mapping")
    return values
