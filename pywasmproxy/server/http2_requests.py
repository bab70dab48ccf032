"""Ordinary requests over HTTP/2: each a stream on one of the connections of a cluster. asyncio.

To whoever sends it a request is as one over HTTP/1.1 (`UpstreamRequest`). What a client is slow to take stays
within its stream's window: the others on the connection go on. Which connections there are, and who waits for
room on them, is the business of `Lanes`, the counterpart of a cluster's pool.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pywasmproxy.config.model import Address, Http2Options
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server import http2
from pywasmproxy.server.codec import Framing, HeaderLines, ResponseHead
from pywasmproxy.server.connect import UNSENT
from pywasmproxy.server.hosts import Host, attempt
from pywasmproxy.server.observed import connection_number, note
from pywasmproxy.server.upstream import UpstreamHandler, UpstreamRequest
from pywasmproxy.server.wire import BodyWriter, UnsafeHeader, content_length, head_bytes
from pywasmproxy.tls.session import facts

if TYPE_CHECKING:
    from abi.proxy_wasm.stream_info import TlsFacts
    from pywasmproxy.server.cluster import Cluster
    from pywasmproxy.stats.counts import HostCounts

_OF_CONNECTIONS = frozenset(
    (b"connection", b"host", b"http2-settings", b"keep-alive", b"proxy-connection", b"transfer-encoding")
)
"""Fields that HTTP/2 does without (RFC 9113, section 8.2.2; the host is `:authority`)."""

_CONNECTING = (UpstreamFailure.CONNECT_FAILURE, UpstreamFailure.CONNECT_TIMEOUT)


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
        status = int(next(value for name, value in lines if name == b":status"))
        fields = [(bytes(name), bytes(value)) for name, value in lines if name[:1] != b":"]
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
            if lane is not None and failure in _CONNECTING:
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


class Lane(http2.Connection):
    """One HTTP/2 connection of a cluster. It gets one stream until it has said how many it takes."""

    def __init__(self, lanes: Lanes, host: Host, options: Http2Options) -> None:
        super().__init__(lanes, lanes.cluster, host)
        self.lanes = lanes
        self.most_streams = options.max_concurrent_streams
        self.window = options.initial_stream_window_size
        self.connection_window = options.initial_connection_window_size or self.window * self.most_streams
        self.counts = lanes.cluster.counts
        self.remote, self.local = str(host), ""
        self.host_counts = self.counts.host(self.remote)
        self.tls: TlsFacts | None = None
        self.number = connection_number()
        self._settled = False
        self._begun_at = asyncio.get_running_loop().time()
        self._ended_by_us = True

    @property
    def is_open(self) -> bool:
        """Whether it can take a stream at once."""
        return self._transport is not None and (self._settled or not self.streams)

    def abort(self) -> None:
        """Close at once; streams are told."""
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()
            self._fail(UpstreamFailure.LOCAL_RESET)

    def taken(self, stream: RequestStream, size: int) -> None:
        """The client has so much of what came: the upstream may send as much again."""
        if self._transport is not None and not self._transport.is_closing():
            self._protocol.acknowledge_received_data(size, stream.stream_id)
            self._write()

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        name = transport.get_extra_info("sockname")
        if name:
            self.local = str(Address(name[0], name[1]))
        session, tls = transport.get_extra_info("ssl_object"), self.cluster.config.tls
        if session is not None and tls is not None:
            own = tls.options.certificates
            self.tls = facts(session, own[0].chain if own else None)
        self.cluster.connections.add(self)
        self.counts.upstream_cx_total += 1
        self.host_counts.cx_total += 1
        now = asyncio.get_running_loop().time()
        self.counts.cx_connect.record(int((now - self._begun_at) * 1000))
        self._begun_at = now
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.counts.upstream_cx_rx_bytes_total += len(data)
        super().data_received(data)

    def eof_received(self) -> None:
        self._ended_by_us = False

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.cluster.connections:
            self.counts.connection_ended(
                remote=not self._ended_by_us or exc is not None,
                active=bool(self.streams),
                milliseconds=int((asyncio.get_running_loop().time() - self._begun_at) * 1000),
            )
            self.cluster.connections.discard(self)
        super().connection_lost(exc)
        self.lanes.room_soon()

    # --- streams --------------------------------------------------------------------------------------------

    def add(self, stream: http2.Stream) -> None:
        if isinstance(stream, RequestStream):
            stream.assigned(self)
        if self._transport is not None and not self.is_open:
            stream.connection = self
            self.waiting.append(stream)
        else:
            super().add(stream)

    def _begin_waiting(self) -> None:
        """Begin what waits, as far as there is room; the rest must look for another connection."""
        count = 0 if self.draining else self.room if self._settled else 1
        waiting = self.waiting
        self.waiting = waiting[count:]
        for stream in waiting[:count]:
            self._begin(stream)
        if self._settled:
            left, self.waiting = self.waiting, []
            for stream in left:
                stream.connection = None
                if isinstance(stream, RequestStream):
                    self.lanes.move(stream)

    def _begin(self, stream: http2.Stream) -> None:
        if isinstance(stream, RequestStream):
            stream.begins(self)
        super()._begin(stream)

    def _handle(self, event: Any) -> None:
        from h2 import events

        if isinstance(event, events.RemoteSettingsChanged) and not self._settled:
            self._settled = True
            self._begin_waiting()
        super()._handle(event)

    def _data(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if isinstance(stream, RequestStream):
            stream.received(event.data, event.stream_ended is not None, event.flow_controlled_length)
        else:
            super()._data(event)

    def _going_away(self, last: int) -> None:
        super()._going_away(last)
        self._settled = True
        self._begin_waiting()  # that is: not here

    def _sent(self, size: int) -> None:
        self.counts.upstream_cx_tx_bytes_total += size

    def _idle_too_long(self) -> None:
        self.counts.upstream_cx_idle_timeout += 1
        super()._idle_too_long()

    def _fail(self, failure: UpstreamFailure) -> None:
        if failure in _CONNECTING:
            self.counts.upstream_cx_connect_fail += 1
            self.counts.upstream_cx_connect_timeout += failure is UpstreamFailure.CONNECT_TIMEOUT
            self.host_counts.cx_connect_fail += 1
            if self.cluster.outliers is not None:
                self.cluster.outliers.failed(self.host, connected=False)
        elif failure is UpstreamFailure.PROTOCOL_ERROR:
            self.counts.upstream_cx_protocol_error += 1
        super()._fail(failure)


class Lanes:
    """The HTTP/2 connections of one cluster, and the requests that wait for room on them."""

    def __init__(self, cluster: Cluster, options: Http2Options) -> None:
        self.cluster, self._options = cluster, options
        self.logger = cluster.logger
        self._lanes: dict[Host, list[Lane]] = {}
        self._waiting: deque[RequestStream] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def request(
        self, handler: UpstreamHandler, method: bytes, path: bytes, lines: HeaderLines, scheme: bytes
    ) -> Http2Request:
        """A request, of what it would be for HTTP/1.1 (`host` among the fields). UnsafeHeader."""
        head = request_lines(method, path, lines, scheme)
        writer = BodyWriter(chunked=False, length=content_length(lines))
        return Http2Request(self, handler, method, head, writer)

    @property
    def full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self) + self.cluster.tcp_connections >= self.cluster.config.circuit_breaker.max_connections

    def open(self, stream: RequestStream, *, waited: bool = False) -> bool:
        """Find a connection for a stream, or make one; False when it has to wait until there is room."""
        cluster, request = self.cluster, stream.request
        breaker, counts = cluster.config.circuit_breaker, cluster.counts
        hosts = cluster.hosts
        host = (hosts.find(request.host) if request.host else None) or hosts.pick(request.hash_key)
        if host is None:
            counts.upstream_cx_none_healthy += 1
            self.fail_soon(request, UpstreamFailure.NO_HEALTHY_UPSTREAM, "no healthy upstream")
            return True
        if cluster.active + cluster.connecting >= breaker.max_requests:
            self._overflow(request)
            return True
        lanes = self._lanes.setdefault(host, [])
        lane = next((one for one in lanes if one.has_room), None)
        if lane is None or not lane.is_open:
            if cluster.pending >= breaker.max_pending_requests:
                self._overflow(request)
                return True
            counts.upstream_rq_pending_total += not waited
        stream.pending = True
        cluster.connecting += 1
        if lane is None and self.full:
            counts.upstream_cx_overflow += not waited
            if waited:
                self._waiting.appendleft(stream)
            else:
                self._waiting.append(stream)
            return False
        if lane is None:
            lane = Lane(self, host, self._options)
            lanes.append(lane)
            lane.add(stream)
            lane.open()
        else:
            lane.add(stream)
        return True

    def _overflow(self, request: UpstreamRequest) -> None:
        self.cluster.counts.upstream_rq_pending_overflow += 1
        self.fail_soon(request, UpstreamFailure.OVERFLOW, "overflow")

    @staticmethod
    def fail_soon(request: UpstreamRequest, failure: UpstreamFailure, detail: str) -> None:
        """Tell a request that it is lost, from the event loop."""
        asyncio.get_running_loop().call_soon(request.fail, failure, detail)

    def no_longer_pending(self, stream: RequestStream) -> None:
        """A stream has begun, or never will."""
        if stream.pending:
            stream.pending = False
            self.cluster.connecting -= 1

    def move(self, stream: RequestStream) -> None:
        """A stream must look for another connection."""
        self.no_longer_pending(stream)
        if not stream.request.done:
            self.open(stream)

    def room_soon(self) -> None:
        """There may be room for those that wait."""
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._serve_waiting)

    def _serve_waiting(self) -> None:
        while self._waiting:
            stream = self._waiting.popleft()
            self.no_longer_pending(stream)
            if not stream.request.done and not self.open(stream, waited=True):
                return

    def forget(self, one: http2.Connection | RequestStream) -> None:
        """A connection takes no more streams; or a stream waits no more."""
        if isinstance(one, RequestStream):
            self.no_longer_pending(one)
            if one in self._waiting:
                self._waiting.remove(one)
            return
        lanes = self._lanes.get(one.host, [])
        if one in lanes:
            lanes.remove(one)
            if not lanes:
                del self._lanes[one.host]

    def close(self) -> None:
        """Close all connections, those that are being made included."""
        for lane in [lane for lanes in self._lanes.values() for lane in lanes]:
            lane.abort()
