"""One HTTP/1.1 connection to an upstream host: a request at a time, then back to its pool. RFC 9112."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from pywasmproxy.config.model import Address
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server.codec import Data, ProtocolError, ResponseHead
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.readers import ResponseReader
from pywasmproxy.server.receiving import Receiver
from pywasmproxy.tls.session import facts

if TYPE_CHECKING:
    from abi.proxy_wasm.stream_info import TlsFacts
    from pywasmproxy.server.cluster import Cluster
    from pywasmproxy.server.upstream import UpstreamRequest


class UpstreamConnection(Receiver):
    """One connection to an upstream host."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        super().__init__()
        self.cluster = cluster
        self.host = host
        self.remote = str(host)
        self.local = ""
        self.tls: TlsFacts | None = None
        self.counts = cluster.counts
        self.host_counts = cluster.counts.host(self.remote)
        self._begin = asyncio.get_running_loop().time()
        self.reused = False
        self.untouched = True  # no byte of the current response has come
        self.idle_since = 0.0
        self._reader = ResponseReader(cluster.parser)
        self._transport: asyncio.Transport | None = None
        self._request: UpstreamRequest | None = None
        self._keep_alive = True
        self._eof = False
        self._lost: Exception | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
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
        self.counts.cx_connect.record(int((now - self._begin) * 1000))
        self._begin = now

    def data_received(self, data: bytes) -> None:
        self.counts.upstream_cx_rx_bytes_total += len(data)
        if self._request is None:  # nobody asked: the connection cannot be trusted any more
            self.close()
            return
        self.untouched = False
        self._reader.feed(data)
        self._pump()

    def eof_received(self) -> None:
        self._ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self.counts.connection_ended(
            remote=self._eof or exc is not None,
            active=self._request is not None,
            milliseconds=int((asyncio.get_running_loop().time() - self._begin) * 1000),
        )
        self.cluster.dropped(self)
        self._lost = exc
        self._ended()

    def pause_writing(self) -> None:
        if self._request is not None:
            self._request.handler.upstream_writable(False)

    def resume_writing(self) -> None:
        if self._request is not None:
            self._request.handler.upstream_writable(True)

    # the request's side

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._eof and not self._transport.is_closing()

    def attach(self, request: UpstreamRequest) -> None:
        """Carry this request now."""
        self._request = request
        self.untouched = True
        self._keep_alive = True
        self._reader.expect(request.method, request.upgrade)
        if request.paused:
            self.pause_reading()
        request.attached(self)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.counts.upstream_cx_tx_bytes_total += len(data)
            self._transport.write(data)

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.counts.upstream_flow_control_paused_reading_total += 1
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.counts.upstream_flow_control_resumed_reading_total += 1
            self._transport.resume_reading()
        # What is buffered is delivered from the loop: the caller is in the middle of something.
        asyncio.get_running_loop().call_soon(self._resumed)

    def _resumed(self) -> None:
        self._pump()
        if self._eof:
            self._ended()

    def abandon(self) -> None:
        """The request was given up."""
        self._request = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close for good."""
        if self._transport is not None:
            self._transport.close()

    def _pump(self) -> None:
        """Deliver what can be read until the request pauses, ends or fails."""
        if self._request is None:
            return
        handler = self._request.handler
        handler.upstream_batch(True)
        try:
            self._deliver()
        finally:
            handler.upstream_batch(False)

    def _deliver(self) -> None:
        while (request := self._request) is not None and not request.paused:
            try:
                event = self._reader.next_event()
            except ProtocolError as error:
                self.counts.upstream_cx_protocol_error += 1
                self._request = None
                self.abort()
                request.lost(self, UpstreamFailure.PROTOCOL_ERROR, error.detail)
                return
            if event is None:
                return
            if isinstance(event, Data):
                if event.ends:
                    self._detach(request)
                request.handler.upstream_data(event.data, event.ends)
            elif isinstance(event, ResponseHead):
                if event.status < 200:
                    request.handler.upstream_head(event)
                    continue
                self._account(event.status)
                self._keep_alive = event.keep_alive
                if event.bodiless:  # the end is known with the head: be free before it is acted upon
                    self._reader.pass_end()
                    self._detach(request)
                request.handler.upstream_head(event)
                if event.bodiless:
                    request.handler.upstream_end([])
            else:
                self._detach(request)
                request.handler.upstream_end(event.trailers)

    def _account(self, status: int) -> None:
        """A response began: count it."""
        if self.cluster.outliers is not None:
            self.cluster.outliers.answered(self.host, status)
        self.counts.status[status] += 1
        if status < 500:
            self.host_counts.rq_success += 1
        else:
            self.host_counts.rq_error += 1

    def abort(self) -> None:
        """Close at once, dropping what has not been sent."""
        if self._transport is not None:
            self._transport.abort()

    def _detach(self, request: UpstreamRequest) -> None:
        """The response is complete: back to the pool, or away."""
        self._request = None
        clean = request.sent_all and not request.writer.short and self._reader.at_start
        request.finished()
        if clean and self._keep_alive and self.usable:
            self.cluster.release(self)
        else:
            self.abort()

    def _ended(self) -> None:
        """The upstream closed: maybe that ends the response, maybe it cuts it off."""
        self._eof = True
        request = self._request
        if request is None or (request.paused and self._lost is None):
            return
        if self._lost is None:
            self._reader.feed_eof()
            self._pump()
        if self._request is not None and not (request.paused and self._lost is None):
            self._request = None
            self.counts.upstream_rq_rx_reset += 1
            self.abort()
            request.lost(self, UpstreamFailure.RESET, "connection termination")
