"""HTTP/1.1 writing: heads, chunks and the framing of bodies as Envoy writes them. No sockets.

Filters may put anything into a header map, so this is the last place where a line break or NUL in a name or
value can be stopped (request smuggling, response splitting): such a message is never written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

from pywasmproxy.server.codec import HeaderLines

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_REASONS[413] = b"Payload Too Large"
_DIGITS = re.compile(rb"[0-9]{1,18}")

_BODILESS_METHODS = frozenset((b"GET", b"HEAD", b"DELETE", b"TRACE", b"CONNECT"))


class UnsafeHeader(ValueError):
    """A start line, name or value with a line break or NUL in it."""


_COLON = b": "


def reason(status: int) -> bytes:
    """The reason phrase of a status; `Unknown` if it has none."""
    return _REASONS.get(status, b"Unknown")


def head_bytes(start: bytes, lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head: start line, fields, empty line. UnsafeHeader if a part would break out of its line."""
    parts = [start, *map(_COLON.join, lines)]
    head = b"\r\n".join(parts)
    breaks = len(parts) - 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise UnsafeHeader("line break or NUL in a header")
    return head + b"\r\n\r\n"


class BodyWriter:
    """Frames one outgoing body: chunked, cut to a content-length, or not at all.

    `short` tells afterwards whether fewer bytes were written than announced: the connection is then of no
    further use, since the peer is still waiting for the rest.
    """

    __slots__ = ("_left", "chunked", "trailers_allowed")

    def __init__(self, *, chunked: bool, length: int | None, trailers_allowed: bool = False) -> None:
        self.chunked = chunked
        self._left = length  # None: not limited
        self.trailers_allowed = trailers_allowed

    @property
    def short(self) -> bool:
        """Whether the announced length has not been reached."""
        return bool(self._left)

    def data(self, data: bytes) -> bytes:
        """One piece as it goes on the wire."""
        if not data:
            return b""
        if self.chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data

    def end(self, trailers: HeaderLines | None = None) -> bytes:
        """What ends the body; trailers are dropped where they cannot be sent."""
        if not self.chunked:
            return b""
        if trailers and self.trailers_allowed:
            return head_bytes(b"0", trailers)
        return b"0\r\n\r\n"


def content_length(lines: HeaderLines) -> int | None:
    """The content-length a message will carry; None if it has none, or none that is a number."""
    for name, value in lines:
        if name == b"content-length":
            return int(value) if _DIGITS.fullmatch(value) else None
    return None


def request_bytes(
    lines: HeaderLines,
    method: bytes,
    path: bytes,
    end_of_stream: bool,
    trailers_allowed: bool,
    *,
    raw: bool = False,
) -> tuple[bytes, BodyWriter]:
    """Head of a request and the writer for its body; `lines` are ordinary fields, `host` among them.

    `raw`: the body has no frame, since it speaks another protocol.
    """
    start = b"%b %b HTTP/1.1" % (method, path)
    if b" " in path or b" " in method:
        raise UnsafeHeader("blank in the request line")
    if raw:
        return head_bytes(start, lines), BodyWriter(chunked=False, length=None)
    length = content_length(lines)
    chunked = False
    if length is None:
        lines = [line for line in lines if line[0] != b"content-length"]
        if not end_of_stream:
            lines.append((b"transfer-encoding", b"chunked"))
            chunked = True
        else:
            length = 0
            if method not in _BODILESS_METHODS:
                lines.append((b"content-length", b"0"))
    writer = BodyWriter(chunked=chunked, length=length, trailers_allowed=trailers_allowed)
    return head_bytes(start, lines), writer


def response_bytes(
    lines: HeaderLines,
    status: int,
    *,
    to_head: bool,
    end_of_stream: bool,
    minor: int = 1,
    close: bool = False,
    trailers_allowed: bool = False,
) -> tuple[bytes, BodyWriter]:
    """Head of a response and the writer for its body, with the framing fields Envoy adds (after all others).

    To an HTTP/1.0 client a body of unknown length ends with the connection.
    """
    length = content_length(lines)
    chunked = False
    lines = [line for line in lines if line[0] != b"content-length"] if length is None else list(lines)
    if close:
        if (b"connection", b"close") not in lines:
            lines.append((b"connection", b"close"))
    elif minor == 0:
        lines.append((b"connection", b"keep-alive"))
    bodiless = status < 200 or status == 204
    if length is None and not bodiless and status != 304:
        if end_of_stream and not to_head:
            lines.append((b"content-length", b"0"))
        elif minor:
            lines.append((b"transfer-encoding", b"chunked"))
            chunked = True
    if bodiless or to_head or status == 304:
        chunked, length = False, 0  # whatever is announced, nothing follows
    head = head_bytes(b"HTTP/1.1 %d %b" % (status, reason(status)), lines)
    return head, BodyWriter(chunked=chunked, length=length, trailers_allowed=trailers_allowed and chunked)
