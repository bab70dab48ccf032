"""Ordinary requests over HTTP/2: each a stream on one of the connections of a cluster. asyncio.

To whoever sends it a request is as one over HTTP/1.1 (`UpstreamRequest`). What a client is slow to take stays
within its stream's window: the others on the connection go on. Connections are in `http2_lanes.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server import http2
from pywasmproxy.server.codec import Framing, HeaderLines, ResponseHead
from pywasmproxy.server.connect import UNSENT
from pywasmproxy.server.hosts import Host, attempt
from pywasmproxy.server.observed import note
from pywasmproxy.server.upstream import UpstreamHandler, UpstreamRequest
from pywasmproxy.server.wire import BodyWriter, UnsafeHeader, head_bytes

if TYPE_CHECKING:
    from abi.proxy_wasm.stream_info import TlsFacts
    from pywasmproxy.server.http2_lanes import Lane, Lanes
    from pywasmproxy.stats.counts import HostCounts

_OF_CONNECTIONS = frozenset(
    (b"connection", b"host", b"http2-settings", b"keep-alive", b"proxy-connection", b"transfer-encoding")
)
"""Fields that HTTP/2 does without (RFC 9113, section 8.2.2; the host is `:authority`)."""

CONNECTING = (UpstreamFailure.CONNECT_FAILURE, UpstreamFailure.CONNECT_TIMEOUT)
"""There was no connection."""


def request_lines(method: bytes, path: bytes, lines: HeaderLines, scheme: bytes) -> HeaderLines:
    """A request's head for HTTP/2, of what it would be for HTTP/1.1. UnsafeHeader as there."""
    if b" " in path or b" " in method:
        raise UnsafeHeader("blank in the request line")
    head_bytes(b"%b %b %b" % (method, path, scheme), lines)  # only to see whether it can be sent
    authority = next((value for name, value in lines if name == b"host"), b"")
    head = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    for name, value in lines:
        if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
            continue
        head.append((name, value))
    return head


def response_fields(lines: HeaderLines) -> tuple[int, HeaderLines]:
    """Status and fields of a response's head; 0 when it is none that could be passed on.

    Most of this the library has seen to, but not each version of it.
    """
    status, length, fields = 0, None, []
    for name, value in lines:
        if any(one in value for one in b"\r\n\0"):
            return 0, []
        if name == b":status":
            status = int(value) if _STATUS.fullmatch(value) else 0
        elif name[:1] != b":":
            if name == b"content-length":
                if length not in (None, value) or not value.isdigit():
                    return 0, []
                length = value
            fields.append((bytes(name), bytes(value)))
    return (0 if status == 101 else status), fields  # HTTP/2 has no upgrades


_STATUS = re.compile(rb"[1-9][0-9]{2}")


class Http2Request(UpstreamRequest):
    """One request to a cluster whose hosts speak HTTP/2."""

    __slots__ = ("lanes", "lines", "stream", "trailers")

    def __init__(
        self, lanes: Lanes, handler: UpstreamHandler, method: bytes, lines: HeaderLines, writer: BodyWriter
    ) -> None:
        super().__init__(lanes.cluster, handler, method, b"", writer)
        self._out.clear()
        self.lanes, self.lines = lanes, lines
        self.trailers: HeaderLines = []
        self.stream = RequestStream(self)

    def start(self) -> None:
        if self.upgrade:
            self.lanes.fail_soon(self, UpstreamFailure.PROTOCOL_ERROR, "HTTP/2 has no upgrades")
        else:
            self.lanes.open(self.stream)

    def end(self, trailers: HeaderLines | None = None) -> None:
        self.trailers = trailers or []
        self.sent_all = True

    def flush(self) -> None:
        if self.done:
            return
        if self.connection is None:
            super().flush()  # asks the client to stop when there is much
            return
        self.stream.send()
        if self._out_size > self._most and not self._blocked:
            self._blocked = True
            self.handler.upstream_writable(False)

    @property
    def _most(self) -> int:
        return min(UNSENT, self.cluster.config.buffer_limit)

    def take(self, size: int) -> bytes:
        """At most `size` bytes of what waits."""
        out = self._out
        if not out:
            return b""
        piece = out[0]
        if len(piece) > size:
            piece, out[0] = piece[:size], piece[size:]
        else:
            del out[0]
        self._out_size -= len(piece)
        if self._blocked and self._out_size <= self._most // 2:
            self._blocked = False
            asyncio.get_running_loop().call_soon(self._writable)
        return piece

    def _writable(self) -> None:
        if not self.done and not self._blocked:
            self.handler.upstream_writable(True)

    @property
    def waiting(self) -> bool:
        """Whether there is something that has not been sent."""
        return bool(self._out)

    def reset(self) -> None:
        if self.done:
            return
        if self.connection is not None:
            self.cluster.counts.upstream_rq_tx_reset += 1
        else:
            self.cluster.counts.upstream_rq_cancelled += 1
        self.finished()
        self.stream.leave()


class RequestStream:
    """A request's stream: a `Stream` of the connection, and what the request takes for its own connection."""

    reused = False  # nothing is sent again on the quiet

    def __init__(self, request: Http2Request) -> None:
        self.request = request
        self.stream_id = 0
        self.connection: http2.Connection | None = None
        self.pending = False  # it is counted as waiting for a connection
        self.untouched = True
        self._lane: Lane | None = None
        self._held: deque[Callable[[], None]] = deque()
        self._unread = 0  # bytes that have come and the upstream may not send anew yet

    # --- the request's side (`Carrier`) ---------------------------------------------------------------------

    @property
    def lane(self) -> Lane:
        """The connection, also when it is gone. RuntimeError before there was one."""
        if self._lane is None:
            raise RuntimeError("the stream has not begun")
        return self._lane

    @property
    def host(self) -> Host:
        return self.lane.host

    @property
    def host_counts(self) -> HostCounts:
        return self.lane.host_counts

    @property
    def remote(self) -> str:
        return self.lane.remote

    @property
    def local(self) -> str:
        return self.lane.local

    @property
    def tls(self) -> TlsFacts | None:
        return self.lane.tls

    def write(self, data: bytes) -> None:
        """Nobody writes past the request's queue."""
        raise NotImplementedError

    def send(self) -> None:
        """There may be more to send."""
        if self.connection is not None:
            self.connection.send(self)

    def pause_reading(self) -> None:
        self.request.cluster.counts.upstream_flow_control_paused_reading_total += 1

    def resume_reading(self) -> None:
        self.request.cluster.counts.upstream_flow_control_resumed_reading_total += 1
        asyncio.get_running_loop().call_soon(self._deliver)

    def abandon(self) -> None:
        self.leave()

    def leave(self) -> None:
        """The stream is over for us; the upstream is told if it is not over there."""
        lanes = self.request.lanes
        self._held.clear()
        if self._unread and self._lane is not None:
            self._lane.taken(self, self._unread)
            self._unread = 0
        if self.pending:
            lanes.forget(self)
        if self.connection is not None:
            self.connection.leave(self)
            lanes.room_soon()

    # --- the connection's side (`http2.Stream`) -------------------------------------------------------------

    def begins(self, lane: Lane) -> None:
        """The head is about to be sent."""
        request = self.request
        self._lane = lane
        request.lanes.no_longer_pending(self)
        if request.cluster.observed:
            note(request.handler, attempt(lane.host, lane.number))
        request.attached(self)

    def request_head(self) -> list[tuple[bytes, bytes]]:
        return self.request.lines

    def next_piece(self, size: int) -> bytes:
        return self.request.take(size)

    @property
    def trailers(self) -> HeaderLines:
        return self.request.trailers

    @property
    def sent_all(self) -> bool:
        request = self.request
        return request.sent_all and not request.waiting and not request.writer.short

    def response_head(self, lines: list[tuple[bytes, bytes]], ends: bool) -> None:
        self._take(partial(self._head, lines, ends))

    def response_data(self, data: bytes, ends: bool) -> None:
        self._take(partial(self._data, data, ends, 0))

    def received(self, data: bytes, ends: bool, size: int) -> None:
        """Data that takes so much of the window until the client has it."""
        self._unread += size
        self._take(partial(self._data, data, ends, size))

    def response_trailers(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._take(partial(self._trailers, lines))

    def lost(self, failure: UpstreamFailure) -> None:
        if self._held:  # the client gets what there is first
            self._held.append(partial(self._lost, failure))
        else:
            self._lost(failure)

    # --- what came, in its turn -----------------------------------------------------------------------------

    def _take(self, what: Callable[[], None]) -> None:
        self._held.append(what)
        self._deliver()

    def _deliver(self) -> None:
        """What came, until the client wants no more for now."""
        request = self.request
        if request.done or not self._held or request.paused:
            return
        handler = request.handler
        handler.upstream_batch(True)
        try:
            while self._held and not request.paused and not request.done:
                self._held.popleft()()
        finally:
            handler.upstream_batch(False)

    def _head(self, lines: list[tuple[bytes, bytes]], ends: bool) -> None:
        request, cluster = self.request, self.request.cluster
        status, fields = response_fields(lines)
        if not status:
            self.leave()
            self._lost(UpstreamFailure.PROTOCOL_ERROR)
            return
        self.untouched = False
        if status >= 200:
            if cluster.outliers is not None:
                cluster.outliers.answered(self.host, status)
            cluster.counts.status[status] += 1
            if status < 500:
                self.host_counts.rq_success += 1
            else:
                self.host_counts.rq_error += 1
        framing = Framing.NONE if ends or status < 200 else Framing.EOF
        if ends:
            self._finish()
        request.handler.upstream_head(ResponseHead(status, 1, fields, framing))
        if ends:
            request.handler.upstream_end([])

    def _data(self, data: bytes, ends: bool, size: int) -> None:
        if size:
            self._unread -= size
            self.lane.taken(self, size)
        if ends:
            self._finish()
        self.request.handler.upstream_data(data, ends)

    def _trailers(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._finish()
        self.request.handler.upstream_end([(bytes(name), bytes(value)) for name, value in lines])

    def _finish(self) -> None:
        """The response is complete."""
        self.request.finished()
        self.leave()

    def _lost(self, failure: UpstreamFailure) -> None:
        request, cluster = self.request, self.request.cluster
        lane = self._lane
        detail = failure.value
        if self.pending:
            request.lanes.no_longer_pending(self)
            cluster.counts.upstream_rq_pending_failure_eject += 1
            if lane is not None and failure in CONNECTING:
                request.tried = lane.host
                detail = lane.detail or detail
        else:
            if failure is UpstreamFailure.REMOTE_RESET:
                cluster.counts.upstream_rq_rx_reset += 1
            elif failure is UpstreamFailure.RESET:
                cluster.counts.upstream_rq_pending_failure_eject += 1
            if cluster.outliers is not None and self.untouched and lane is not None:
                cluster.outliers.failed(lane.host)
        if lane is not None and self._unread:
            lane.taken(self, self._unread)
            self._unread = 0
        request.lanes.room_soon()
        request.fail(failure, detail)

    def assigned(self, lane: Lane) -> None:
        """It is this connection that the stream waits for."""
        self._lane = lane
