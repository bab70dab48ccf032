"""The HTTP/2 connections of a cluster, and which of them a request's stream goes on. asyncio.

`Lanes` is the counterpart of a cluster's pool: few connections, each with as many streams as its upstream
takes; beyond that another one, or waiting. A request and its stream are in `http2_requests.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from pywasmproxy.config.model import Address, Http2Options
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server import http2
from pywasmproxy.server.codec import HeaderLines
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.http2_requests import CONNECTING, Http2Request, RequestStream, request_lines
from pywasmproxy.server.observed import connection_number
from pywasmproxy.server.upstream import UpstreamHandler, UpstreamRequest
from pywasmproxy.server.wire import BodyWriter, content_length
from pywasmproxy.tls.session import facts

if TYPE_CHECKING:
    from abi.proxy_wasm.stream_info import TlsFacts
    from pywasmproxy.server.cluster import Cluster


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
        if failure in CONNECTING:
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
            counts.upstream_rq_active_overflow += 1
            self.fail_soon(request, UpstreamFailure.OVERFLOW, "overflow")
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
