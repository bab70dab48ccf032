"""Chunked transfer coding, reading side (RFC 9112, section 7.1), in its strictest form.

h11 and llhttp differ here in what they let pass (blanks after a size, bare LF in trailers, leading zeros),
and neither binding says where a message ended in the bytes it was given. So the framing is read here, once
for both; the trailer section goes to the chosen library, as every head does.
"""

from __future__ import annotations

import re

SIZE_LINE_LIMIT = 4096
"""Bytes of one chunk-size line, extensions included."""

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\x20\x21-\x7e\t]*)?")


class ChunkError(Exception):
    """The bytes are not a chunked body; the message says what was wrong."""


class ChunkedDecoder:
    """`feed(buffer)` takes what it can use off the front of `buffer` and returns decoded body bytes.

    `done` turns True behind the last chunk's size line; what then stands in the buffer is the trailer section
    (at least its final CRLF), which is the caller's to read.
    """

    __slots__ = ("_after_data", "_left", "done")

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # bytes of the current chunk not seen yet
        self._after_data = False  # the CRLF behind a chunk's data comes next

    def feed(self, buffer: bytearray, *, single: bool = False) -> bytes:
        """Decoded bytes (maybe none); consumes them and their framing. ChunkError for anything malformed.

        `single` stops behind the first piece, so that a chunk is not joined with the next one.
        """
        pieces: list[bytes] = []
        position, size = 0, len(buffer)
        while not self.done and not (single and pieces):
            if self._left:
                taken = min(self._left, size - position)
                if not taken:
                    break
                pieces.append(bytes(buffer[position : position + taken]))
                position += taken
                self._left -= taken
                self._after_data = not self._left
                continue
            if self._after_data:
                ending = buffer[position : position + 2]
                if not b"\r\n".startswith(ending):
                    raise ChunkError("chunk data is longer than its size")
                if len(ending) < 2:
                    break
                position += 2
                self._after_data = False
                continue
            end = buffer.find(b"\n", position, position + SIZE_LINE_LIMIT)
            if end < 0:
                if size - position >= SIZE_LINE_LIMIT:
                    raise ChunkError("chunk size line too long")
                break
            line = _SIZE_LINE.fullmatch(buffer, position, end - 1) if end > position else None
            if line is None or buffer[end - 1] != 0x0D:
                raise ChunkError("bad chunk size line")
            self._left = int(line[1], 16)
            self.done = not self._left
            position = end + 1
        del buffer[:position]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
