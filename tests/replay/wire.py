"""Just enough HTTP/1.1 to talk raw: heads, length-delimited and chunked bodies, trailers (RFC 9112).

Deliberately not the proxy's own codec: the tool that checks the proxy must not share its mistakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Head:
    """Start line and header fields in the order they came, names lower-cased."""

    start: str
    headers: list[list[str]]

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def is_chunked(self) -> bool:
        return "chunked" in (self.get("transfer-encoding") or "").lower()

    @property
    def content_length(self) -> int | None:
        value = self.get("content-length")
        return None if value is None else int(value)


@dataclass
class Body:
    """A body as far as it has come; filled in place so that a reader that gives up still has it."""

    data: bytearray = field(default_factory=bytearray)
    trailers: list[list[str]] = field(default_factory=list)
    complete: bool = True

    @property
    def text(self) -> str:
        return text(bytes(self.data))


def text(data: bytes) -> str:
    """Bytes as they stand in a golden file."""
    return data.decode("utf-8", "surrogateescape")


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head, or None at the end of the connection."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = raw[:-4].split(b"\r\n")
    return Head(text(start), [_field(line) for line in lines])


def _field(line: bytes) -> list[str]:
    name, _, value = line.partition(b":")
    # Golden files hold header fields byte by byte (Latin-1), bodies as text.
    return [name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")]


async def read_body(reader: asyncio.StreamReader, head: Head, body: Body) -> None:
    """Read into `body`; `body.complete` is False when the connection ended first."""
    body.complete = False
    if head.is_chunked:
        body.complete = await _read_chunks(reader, body)
    elif head.content_length is None:
        while block := await reader.read(65536):
            body.data += block
        body.complete = True
    else:
        left = head.content_length
        while left and (block := await reader.read(min(left, 65536))):
            body.data += block
            left -= len(block)
        body.complete = left == 0


async def _read_chunks(reader: asyncio.StreamReader, body: Body) -> bool:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            return False
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        try:
            body.data += await reader.readexactly(size)
            await reader.readexactly(2)
        except asyncio.IncompleteReadError as cut:
            body.data += cut.partial
            return False
    while line := await reader.readline():
        if not line.strip():
            return True
        body.trailers.append(_field(line.rstrip(b"\r\n")))
    return False


def head(start: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def last_chunk(trailers: Iterable[tuple[str, str]] = ()) -> bytes:
    return b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode() + b"\r\n"
