"""Readers of one connection's messages: bytes in, events out; no sockets. RFC 9112."""

from __future__ import annotations

from enum import Enum

from pywasmproxy.server.chunked import ChunkedDecoder, ChunkError
from pywasmproxy.server.codec import (
    IN_CHUNKS,
    NO_BODY,
    OF_LENGTH,
    UNTIL_CLOSED,
    Data,
    EndOfMessage,
    Framing,
    HeaderLines,
    HeadParser,
    ProtocolError,
    RequestEvent,
    RequestHead,
    ResponseEvent,
    ResponseHead,
)
from pywasmproxy.server.verdicts import (
    METHODS,
    NOTHING_SAID,
    PLAIN_LINE,
    REQUEST_LINE,
    STATUS_LINE,
    Facts,
    check_block,
    check_text,
    facts_of,
    place,
    refused,
)


class _State(Enum):
    HEAD = 0
    LENGTH = 1
    CHUNKED = 2
    TRAILERS = 3
    EOF = 4
    COMPLETE = 5  # an EndOfMessage is due
    FAILED = 6


# Under names of their own: 3.11 takes several times as long to find them in the class.
_HEAD, _LENGTH, _CHUNKED, _TRAILERS, _EOF, _COMPLETE, _FAILED = _State

SEPARATE_CHUNKS = 8
"""Chunks of one read that are handed out one by one; further ones are joined.

Filters then see what was sent apart, as they mostly do in Envoy, yet thousands of tiny chunks in one read do
not mean thousands of calls.
"""


class _Reader:
    """Buffer and body states, shared by requests and responses."""

    __slots__ = (
        "_buffer",
        "_chunks",
        "_closed",
        "_left",
        "_parser",
        "_scanned",
        "_separate",
        "_state",
        "max_bytes",
        "max_fields",
    )

    def __init__(self, parser: HeadParser, max_bytes: int, max_fields: int) -> None:
        self._parser = parser
        self._buffer = bytearray()
        self._scanned = 0  # bytes of an incomplete head or trailer section already looked at
        self._state = _HEAD
        self._left = 0
        self._chunks = ChunkedDecoder()
        self._separate = 0
        self._closed = False
        self.max_bytes = max_bytes
        self.max_fields = max_fields

    def feed(self, data: bytes) -> None:
        """Add bytes from the peer."""
        self._buffer += data
        self._separate = SEPARATE_CHUNKS

    def feed_eof(self) -> None:
        """The peer will send nothing more."""
        self._closed = True

    @property
    def buffered(self) -> int:
        """Bytes received and not handed out yet."""
        return len(self._buffer)

    @property
    def at_start(self) -> bool:
        """Between two messages, with nothing of the next one here."""
        return self._state is _HEAD and not self._buffer

    def _fail(self, status: int, detail: str, code: str = "http1.codec_error") -> ProtocolError:
        self._state = _FAILED
        return ProtocolError(status, detail, code)

    def _block(self, ending: bytes) -> bytes | None:
        """The next block up to and including `ending`; None if incomplete. ProtocolError, also as soon as
        what there is cannot become one."""
        buffer = self._buffer
        end = buffer.find(ending, max(0, self._scanned - len(ending) + 1))
        if end < 0:
            if len(buffer) > self.max_bytes:
                raise self._fail(431, "headers too large", "http1.headers_too_large")
            fresh = bytes(buffer[max(0, self._scanned - 1) :]) if buffer else b""
            if fresh.startswith(b"\n") and self._scanned:
                fresh = fresh[1:]  # its CR was checked with the bytes before
            check_text(fresh)
            self._scanned = len(buffer)
            if self._closed and buffer:
                raise self._fail(400, "connection closed inside a head")
            return None
        end += len(ending)
        if end > self.max_bytes + len(ending):
            raise self._fail(431, "headers too large", "http1.headers_too_large")
        block = bytes(buffer) if end == len(buffer) else bytes(buffer[:end])
        del buffer[:end]
        self._scanned = 0
        return block

    def _start_body(self, framing: Framing, length: int) -> None:
        if framing is NO_BODY:
            self._state = _COMPLETE
        elif framing is IN_CHUNKS:
            self._chunks = ChunkedDecoder()
            self._state = _CHUNKED
        elif framing is UNTIL_CLOSED:
            self._state = _EOF
        elif framing is OF_LENGTH and length:
            self._left = length
            self._state = _LENGTH
        else:
            self._state = _COMPLETE

    def pass_end(self) -> None:
        """Go past the EndOfMessage that is due after a head without a body, and says nothing new."""
        if self._state is _COMPLETE:
            self._state = _HEAD

    def _body_event(self) -> Data | EndOfMessage | None:
        """The next event of a body; None when more bytes are needed."""
        buffer = self._buffer
        state = self._state
        if state is _LENGTH:
            if not buffer:
                if self._closed:
                    raise self._fail(400, "connection closed inside a body")
                return None
            data = bytes(buffer[: self._left])
            del buffer[: self._left]
            self._left -= len(data)
            if not self._left:
                self._state = _HEAD
                return Data(data, True)
            return Data(data)
        if state is _CHUNKED:
            try:
                data = self._chunks.feed(buffer, single=self._separate > 0)
            except ChunkError as error:
                raise self._fail(400, str(error)) from None
            if self._chunks.done:
                self._state = _TRAILERS
            if data:
                self._separate -= 1
                return Data(data)
        if self._state is _TRAILERS:
            return self._trailer_event()
        if state is _EOF:
            if buffer:
                data = bytes(buffer)
                buffer.clear()
                return Data(data)
            if not self._closed:
                return None
            self._state = _COMPLETE
        if self._state is _COMPLETE:
            self._state = _HEAD
            return EndOfMessage()
        if self._closed:
            raise self._fail(400, "connection closed inside a body")
        return None

    def _trailer_event(self) -> EndOfMessage | None:
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            self._state = _HEAD
            return EndOfMessage()
        if (block := self._block(b"\r\n\r\n")) is None:
            return None
        try:
            check_block(block)
            trailers = self._parser.trailer_fields(block)
        except ValueError as error:
            raise self._fail(400, str(error)) from None
        if len(trailers) > self.max_fields:
            raise self._fail(431, "too many trailers")
        for name, _ in trailers:
            if name in _NOT_IN_TRAILERS:
                raise self._fail(400, "framing field in trailers")
        self._state = _HEAD
        return EndOfMessage(trailers)


_NOT_IN_TRAILERS = frozenset((b"transfer-encoding", b"content-length", b"host"))


class RequestReader(_Reader):
    """Reads the requests of one client connection, one after the other.

    Clients say the same of themselves again and again: fields that are, byte for byte, those of the request
    before are not read a second time.
    """

    __slots__ = ("_read", "_section", "accept_http_10", "default_host", "upgrades")

    def __init__(
        self,
        parser: HeadParser,
        *,
        max_bytes: int = 60 * 1024,
        max_fields: int = 100,
        accept_http_10: bool = False,
        default_host: bytes = b"",
        upgrades: frozenset[bytes] = frozenset(),
    ) -> None:
        super().__init__(parser, max_bytes, max_fields)
        self._section = b""  # the fields of the last HTTP/1.1 request, and what was read there
        self._read: tuple[HeaderLines, Facts] = ([], NOTHING_SAID)
        self.upgrades = upgrades
        self.accept_http_10 = accept_http_10
        self.default_host = default_host

    def next_event(self) -> RequestEvent | None:
        """The next event, None when more bytes are needed; ProtocolError ends the connection."""
        if self._state is _HEAD:
            while self._buffer[:2] == b"\r\n":  # RFC 9112, section 2.2: ignore empty lines before
                del self._buffer[:2]
                self._scanned = 0
            if not self._buffer:
                return None
            try:
                block = self._block(b"\r\n\r\n")
                if block is None:
                    return None
                head = self._head(block)
            except ProtocolError:
                self._state = _FAILED
                raise
            self._start_body(head.framing, head.length)
            return head
        if self._state is _FAILED:
            return None
        return self._body_event()

    def _head(self, block: bytes) -> RequestHead:
        line = REQUEST_LINE.match(block)
        section = block[line.end() :] if line is not None else block
        again = section == self._section and line is not None and PLAIN_LINE.match(block) is not None
        if not again:
            check_block(block)
        if line is None or line[1] not in METHODS:
            raise ProtocolError(400, "bad request line")
        method, target, minor = line[1], line[2], int(line[4])
        if line[3] != b"1" or minor > 1 or (minor == 0 and not self.accept_http_10):
            raise ProtocolError(426, "HTTP version", "low_version")
        if again:
            headers, facts = self._read
        else:
            headers, facts = self._fields(block, minor)
            if minor:
                self._section, self._read = section, (headers, facts)
        tokens = facts.tokens
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1:
            raise ProtocolError(400, "two hosts")
        authority, path = place(method, target, hosts[0] if hosts else self.default_host)
        upgrade = facts.upgrade if b"upgrade" in tokens else b""
        keep_alive = b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens)
        upgraded = bool(upgrade) and upgrade in self.upgrades and minor == 1
        tunnel = method == b"CONNECT" or upgraded
        head = RequestHead(
            method,
            target,
            authority,
            path,
            minor,
            headers,
            UNTIL_CLOSED if tunnel else facts.framing or NO_BODY,
            facts.length,
            keep_alive and not tunnel,
            facts.expect == b"100-continue" and minor == 1,
            tokens,
            upgrade,
            upgraded,
        )
        if not hosts and (minor == 1 or not self.default_host):
            raise ProtocolError(400, "no host", "missing_host_header", head)
        if b"#" in target:
            raise ProtocolError(400, "fragment in request target", "path_normalization_failed", head)
        return head

    def _fields(self, block: bytes, minor: int) -> tuple[HeaderLines, Facts]:
        try:
            headers = self._parser.request_fields(block)
        except ValueError as error:
            raise refused(block, str(error)) from None
        if len(headers) > self.max_fields:
            raise ProtocolError(431, "too many headers", "http1.too_many_headers")
        return headers, facts_of(headers, minor, block)


class ResponseReader(_Reader):
    """Reads the responses of one upstream connection. `expect(method)` announces the request answered next.

    Every ProtocolError means that the upstream broke the protocol; its status is of no use.
    """

    __slots__ = ("_method", "_upgrade", "head_seen")

    def __init__(self, parser: HeadParser, *, max_bytes: int = 60 * 1024, max_fields: int = 100) -> None:
        super().__init__(parser, max_bytes, max_fields)
        self._method = b""
        self._upgrade = False
        self.head_seen = False

    def expect(self, method: bytes, upgrade: bool = False) -> None:
        """A request with this method was sent; `upgrade`: it asked for another protocol."""
        self._method = method
        self._upgrade = upgrade
        self.head_seen = False

    def next_event(self) -> ResponseEvent | None:
        """The next event, None when more bytes are needed; ProtocolError ends the connection."""
        if self._state is _HEAD:
            if not self._buffer:
                return None
            try:
                block = self._block(b"\r\n\r\n")
                if block is None:
                    return None
                head = self._head(block)
            except ProtocolError:
                self._state = _FAILED
                raise
            if head.status >= 200 or head.status == 101:
                self.head_seen = True
                self._start_body(head.framing, head.length)
            return head
        if self._state is _FAILED:
            return None
        return self._body_event()

    def _head(self, block: bytes) -> ResponseHead:
        line = STATUS_LINE.match(block)
        if line is None:
            raise ProtocolError(502, "bad status line")
        check_block(block)
        minor, status = int(line[1]), int(line[2])
        try:
            headers = self._parser.response_fields(block)
        except ValueError as error:
            raise ProtocolError(502, str(error)) from None
        if len(headers) > self.max_fields:
            raise ProtocolError(502, "too many headers")
        if status == 101 and self._upgrade:
            return ResponseHead(status, minor, headers, UNTIL_CLOSED, 0, False)
        if status < 200:
            if status == 101 or status < 100:
                raise ProtocolError(502, "switching protocols without being asked")
            return ResponseHead(status, minor, headers)
        facts = facts_of(headers, minor, block)
        framing = facts.framing or UNTIL_CLOSED
        if self._method == b"HEAD" or status in (204, 304):
            framing = NO_BODY
        if status == 204:  # has none (RFC 9110, section 8.6); Envoy takes it out, too
            headers = [line for line in headers if line[0] != b"content-length"]
        keep_alive = b"close" not in facts.tokens and (minor == 1 or b"keep-alive" in facts.tokens)
        keep_alive = keep_alive and framing is not UNTIL_CLOSED
        return ResponseHead(status, minor, headers, framing, facts.length, keep_alive)
