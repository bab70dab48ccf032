"""llhttp (through httptools) behind the codec seam: the fast parser, used where installed (extra `fast`).

A parser object lives for one block only (making one costs about a microsecond), because llhttp would run on
into the next message without saying where it began; see `codec.py` for what surrounds it.
"""

from __future__ import annotations

import httptools

from pywasmproxy.server.codec import HeaderLines


class _Collector:
    """What llhttp calls: fields go to `fields`."""

    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: HeaderLines = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


class HttptoolsParser:
    """The `HeadParser` on httptools."""

    name = "httptools"

    def request_fields(self, head: bytes) -> HeaderLines:
        """Fields of a request head; ValueError if llhttp refuses it."""
        return self._fields(httptools.HttpRequestParser, head)

    def response_fields(self, head: bytes) -> HeaderLines:
        """Fields of a response head; ValueError if llhttp refuses it."""
        return self._fields(httptools.HttpResponseParser, head)

    def trailer_fields(self, block: bytes) -> HeaderLines:
        """Fields of a trailer section; ValueError if llhttp refuses it."""
        return self._fields(httptools.HttpRequestParser, b"GET / HTTP/1.0\r\n" + block)

    @staticmethod
    def _fields(parser: type, head: bytes) -> HeaderLines:
        collector = _Collector()
        try:
            parser(collector).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the head is complete; what an upgrade means is decided by the reader
        except httptools.HttpParserError as error:
            raise ValueError(str(error)) from None
        if not collector.complete:
            raise ValueError("not a message head")
        return collector.fields
