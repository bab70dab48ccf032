"""h11 behind the codec seam: pure Python, installed everywhere (extra `proxy`).

A connection object lives for one block only. That keeps h11's own connection state, which would have to be
told about everything we send, out of the picture; see `codec.py` for what surrounds it.
"""

from __future__ import annotations

import h11

from pywasmproxy.server.codec import HeaderLines

_LIMIT = 1 << 30  # the reader has measured the block already

# A response is only read by a connection that has sent something, and a 101 only by one that has asked for it
# (whether ours has, is for the reader to decide); else it makes no difference.
_SENT = h11.Request(
    method=b"GET", target=b"/", headers=[(b"host", b"x"), (b"connection", b"upgrade"), (b"upgrade", b"x")]
)


class H11Parser:
    """The `HeadParser` on h11."""

    name = "h11"

    def request_fields(self, head: bytes) -> HeaderLines:
        """Fields of a request head; ValueError if h11 refuses it."""
        return self._fields(h11.Connection(h11.SERVER, _LIMIT), head)

    def response_fields(self, head: bytes) -> HeaderLines:
        """Fields of a response head; ValueError if h11 refuses it."""
        connection = h11.Connection(h11.CLIENT, _LIMIT)
        connection.send(_SENT)
        return self._fields(connection, head)

    def trailer_fields(self, block: bytes) -> HeaderLines:
        """Fields of a trailer section; ValueError if h11 refuses it."""
        return self.request_fields(b"GET / HTTP/1.0\r\n" + block)

    @staticmethod
    def _fields(connection: h11.Connection, head: bytes) -> HeaderLines:
        connection.receive_data(head)
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise ValueError(str(error)) from None
        if not isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
            raise ValueError("not a message head")
        return [(bytes(name), bytes(value)) for name, value in event.headers]
