"""HTTP/1.1 reading: bytes in, typed events out; no sockets. RFC 9112, with Envoy's verdicts on bad messages.

A seam in two halves. A `HeadParser` (h11 or llhttp, `codec_h11.py` and `codec_httptools.py`) reads one
complete head or trailer section. Everything on which the two libraries could disagree is decided before or
after them: where a head ends, limits, framing (`readers.py`), bare LF, folding, control bytes, methods,
targets, hosts (`verdicts.py`). Here is what they all speak of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

HeaderLines = list[tuple[bytes, bytes]]
"""Lines of a head in order: lower-case name, value without surrounding blanks."""


class ProtocolError(Exception):
    """A message that is refused. `status` is the answer to a client; `detail` says why, for the log.

    `code` is what filters read as `response.code_details`. `head`: the request's, when it is well-formed and
    refused for what it says.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        code: str = "http1.codec_error",
        head: RequestHead | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.code = code
        self.head = head


class Framing(Enum):
    """How the end of a body is found (RFC 9112, section 6)."""

    NONE = "none"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    EOF = "until the connection closes"


NO_BODY, OF_LENGTH, IN_CHUNKS, UNTIL_CLOSED = Framing


@dataclass(slots=True)
class RequestHead:
    """A request's start line and fields, accepted. `target` is as sent; see `authority` and `path`."""

    method: bytes
    target: bytes
    authority: bytes
    path: bytes
    minor: int
    headers: HeaderLines
    framing: Framing = NO_BODY
    length: int = 0
    keep_alive: bool = True
    expects_continue: bool = False
    connection: frozenset[bytes] = frozenset()
    """The options of the `connection` field, lower-case."""
    upgrade: bytes = b""
    """The protocol a request with `connection: upgrade` asks for; lower-case."""
    tunnel: bool = False
    """That may be spoken: everything after the head belongs to it."""
    bodiless: bool = field(init=False)
    """Whether the head alone says that no body follows."""

    def __post_init__(self) -> None:
        framing = self.framing
        self.bodiless = framing is NO_BODY or (framing is OF_LENGTH and not self.length)


@dataclass(slots=True)
class ResponseHead:
    """A response's status and fields, accepted. Interim (1xx) responses come as heads of their own."""

    status: int
    minor: int
    headers: HeaderLines
    framing: Framing = NO_BODY
    length: int = 0
    keep_alive: bool = True
    bodiless: bool = field(init=False)
    """Whether the head alone says that no body follows."""

    def __post_init__(self) -> None:
        framing = self.framing
        self.bodiless = framing is NO_BODY or (framing is OF_LENGTH and not self.length)


@dataclass(slots=True)
class Data:
    """A piece of a body, decoded. `ends`: it was the last one, and no EndOfMessage follows."""

    data: bytes
    ends: bool = False


@dataclass(slots=True)
class EndOfMessage:
    """The message is complete; `trailers` are those of a chunked body."""

    trailers: HeaderLines = field(default_factory=list)


RequestEvent = RequestHead | Data | EndOfMessage
ResponseEvent = ResponseHead | Data | EndOfMessage


class HeadParser(Protocol):
    """One HTTP library behind the seam. Each method gets one complete block, ending in an empty line.

    Every method raises ValueError when the library refuses the block.
    """

    name: str

    def request_fields(self, head: bytes) -> HeaderLines:
        """Fields of a request head."""
        ...

    def response_fields(self, head: bytes) -> HeaderLines:
        """Fields of a response head."""
        ...

    def trailer_fields(self, block: bytes) -> HeaderLines:
        """Fields of a trailer section (no start line)."""
        ...


def head_parser(name: str | None = None) -> HeadParser:
    """The parser called `h11` or `httptools`; by default httptools where installed. ImportError if absent."""
    if name in (None, "httptools"):
        try:
            from pywasmproxy.server.codec_httptools import HttptoolsParser

            return HttptoolsParser()
        except ImportError:
            if name is not None:
                raise
    from pywasmproxy.server.codec_h11 import H11Parser

    return H11Parser()
