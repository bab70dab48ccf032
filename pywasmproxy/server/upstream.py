"""Upstream side: clusters, their connection pools, and one request on one connection. RFC 9112, asyncio.

A connection carries one request at a time and goes back to its pool when both messages ended cleanly.
Nothing here calls back while one of its methods is being called, except `flush` and the event loop's own
callbacks; the exchange queues events, so even that is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol, cast

from pywasmproxy.config.model import Address
from pywasmproxy.config.model import Cluster as ClusterConfig
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server.codec import (
    Data,
    EndOfMessage,
    HeaderLines,
    HeadParser,
    ProtocolError,
    ResponseHead,
    ResponseReader,
)
from pywasmproxy.server.log import Logger
from pywasmproxy.server.patience import PatientTimer
from pywasmproxy.server.resolver import HostSet
from pywasmproxy.server.wire import BodyWriter
from pywasmproxy.stats.counts import ClusterCounts

MAX_CONNECTIONS = 1024
"""Connections of one cluster (Envoy's default circuit breaker); further requests wait."""

MAX_PENDING = 1024
"""Requests of one cluster that may wait for a connection; beyond it they fail with OVERFLOW."""

PENDING_BYTES = 64 * 1024
"""Bytes of a request that may wait for its connection before the client is asked to stop sending."""

_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))  # RFC 9110, section 9.2.1


class UpstreamHandler(Protocol):
    """Who wants to know how a request fares. After `upstream_end` or `upstream_failed` nothing more comes.

    What was received together comes between `upstream_batch(True)` and `upstream_batch(False)`.
    """

    def upstream_batch(self, begins: bool) -> None: ...

    def upstream_connected(self, remote: str, local: str) -> None: ...

    def upstream_head(self, head: ResponseHead) -> None: ...

    def upstream_data(self, data: bytes, ends: bool) -> None: ...

    def upstream_end(self, trailers: HeaderLines) -> None: ...

    def upstream_failed(self, failure: UpstreamFailure, detail: str) -> None: ...

    def upstream_writable(self, writable: bool) -> None: ...


class UpstreamRequest:
    """One request to a cluster. `write` and `end` may be called before there is a connection."""

    __slots__ = (
        "_attempts",
        "_blocked",
        "_kept",
        "_opening",
        "_out",
        "_out_size",
        "_task",
        "cluster",
        "connection",
        "done",
        "handler",
        "host",
        "method",
        "paused",
        "sent_all",
        "writer",
    )

    def __init__(
        self, cluster: Cluster, handler: UpstreamHandler, method: bytes, head: bytes, writer: BodyWriter
    ) -> None:
        self.cluster = cluster
        self.handler = handler
        self.method = method
        self.writer = writer
        self.host = ""  # preferred, if the cluster has it
        self.connection: UpstreamConnection | None = None
        self.paused = False  # reading of the response is held back
        self.sent_all = False
        self.done = False
        self._out: list[bytes] = [head]
        self._out_size = len(head)
        self._kept: bytes | None = None  # the whole request, while it may be sent again
        self._task: asyncio.Task[None] | None = None
        self._opening = False  # the task has begun
        self._attempts = 0
        self._blocked = False

    def start(self) -> None:
        """Take a connection from the pool, open one, or wait for one."""
        self.cluster.acquire(self, fresh=False)

    def write(self, data: bytes) -> None:
        """Queue a piece of the body; goes out with `flush`."""
        framed = self.writer.data(data)
        if framed:
            self._out.append(framed)
            self._out_size += len(framed)

    def end(self, trailers: HeaderLines | None = None) -> None:
        """The request is complete."""
        if tail := self.writer.end(trailers):
            self._out.append(tail)
            self._out_size += len(tail)
        self.sent_all = True

    def flush(self) -> None:
        """Hand what was queued to the connection, if there is one."""
        if self.done or not self._out:
            return
        if self.connection is None:
            if self._out_size > PENDING_BYTES and not self._blocked:
                self._blocked = True
                self.handler.upstream_writable(False)
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        self._kept = data if self.sent_all and self._kept is None and self.method in _SAFE else b""
        self.connection.write(data)

    def attached(self, connection: UpstreamConnection) -> None:
        """A connection was found for this request."""
        self.connection = connection
        self._task = None
        self.cluster.counts.upstream_rq_total += 1
        connection.host_counts.rq_total += 1
        self.handler.upstream_connected(connection.remote, connection.local)
        self.flush()
        if self._blocked:
            self._blocked = False
            self.handler.upstream_writable(True)

    def connect(self, pool: Cluster, host: Address) -> None:
        """Open a connection to a host; called by the cluster."""
        self._opening = False
        self._task = asyncio.get_running_loop().create_task(self._connect(pool, host))

    async def _connect(self, cluster: Cluster, host: Address) -> None:
        self._opening = True
        failure, detail = UpstreamFailure.CONNECT_FAILURE, "remote connection failure"
        connection = UpstreamConnection(cluster, host)
        counts = cluster.counts
        counts.upstream_rq_pending_total += 1
        opening = asyncio.ensure_future(
            asyncio.get_running_loop().create_connection(lambda: connection, host.host, host.port)
        )
        timer = PatientTimer(cluster.config.connect_timeout, opening.cancel)
        try:
            await opening
            connection.attach(self)
            return
        except asyncio.CancelledError:
            if self.done:  # it was us who are cancelled: nobody wants the connection any more
                raise
            failure, detail = UpstreamFailure.CONNECT_TIMEOUT, "connection timeout"
            counts.upstream_cx_connect_timeout += 1
        except OSError as error:
            cluster.logger.debug(f"cluster {cluster.name}: cannot connect to {host}: {error}")
        finally:
            timer.cancel()
            cluster.connecting -= 1
            if self.connection is None:
                # A loop may have made the connection and then dropped it without a word (uvloop does).
                connection.abort()
                cluster.dropped(connection)
        self._task = None
        counts.upstream_cx_connect_fail += 1
        counts.upstream_rq_pending_failure_eject += 1
        connection.host_counts.cx_connect_fail += 1
        self.fail(failure, detail)

    def fail(self, failure: UpstreamFailure, detail: str) -> None:
        """The request is lost: tell the handler, once."""
        if not self.done:
            self.done = True
            self.connection = None
            self.handler.upstream_failed(failure, detail)

    def lost(self, connection: UpstreamConnection, failure: UpstreamFailure, detail: str) -> None:
        """The connection broke before the response was complete: try once more where that is safe.

        A pooled connection may have been closed by the upstream while our request was on its way. If not
        one byte came back, and the request is complete and safe to repeat, a new connection gets it.
        """
        if connection.reused and connection.untouched and self._kept and not self._attempts and not self.done:
            self._attempts = 1
            self.connection = None
            self._out = [self._kept]
            self._out_size = len(self._kept)
            self.cluster.acquire(self, fresh=True)
        else:
            self.fail(failure, detail)

    def pause(self) -> None:
        """Read no more of the response for now."""
        self.paused = True
        if self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        """Go on reading the response."""
        if self.paused:
            self.paused = False
            if self.connection is not None:
                self.connection.resume_reading()

    def reset(self) -> None:
        """Give the request up; the handler hears nothing more."""
        if self.done:
            return
        self.done = True
        if self._task is not None:
            self.cluster.counts.upstream_rq_cancelled += 1
            self._task.cancel()
            if not self._opening:  # a task that is cancelled before it begins never does
                self.cluster.not_connecting()
        elif self.connection is not None:
            self.cluster.counts.upstream_rq_tx_reset += 1
            self.connection.abandon()
        else:
            self.cluster.counts.upstream_rq_cancelled += 1
            self.cluster.forget(self)
        self.connection = None


class UpstreamConnection(asyncio.Protocol):
    """One connection to an upstream host."""

    def __init__(self, cluster: Cluster, host: Address) -> None:
        self.cluster = cluster
        self.host = host
        self.remote = str(host)
        self.local = ""
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
        self._reader.expect(request.method)
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
            match event:
                case None:
                    return
                case Data(data, ends):
                    if ends:
                        self._detach(request)
                    request.handler.upstream_data(data, ends)
                case ResponseHead():
                    if event.status >= 200:
                        self.counts.status[event.status] += 1
                        if event.status < 500:
                            self.host_counts.rq_success += 1
                        else:
                            self.host_counts.rq_error += 1
                        self._keep_alive = event.keep_alive
                        if event.bodiless:  # the end is known with the head: be free before it is acted upon
                            self._reader.next_event()
                            self._detach(request)
                    request.handler.upstream_head(event)
                    if event.status >= 200 and event.bodiless:
                        request.handler.upstream_end([])
                case EndOfMessage():
                    self._detach(request)
                    request.handler.upstream_end(event.trailers)

    def abort(self) -> None:
        """Close at once, dropping what has not been sent."""
        if self._transport is not None:
            self._transport.abort()

    def _detach(self, request: UpstreamRequest) -> None:
        """The response is complete: back to the pool, or away."""
        self._request = None
        clean = request.sent_all and not request.writer.short and self._reader.at_start
        request.done = True
        request.connection = None
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


class Cluster:
    """A group of hosts with their connections."""

    def __init__(self, config: ClusterConfig, parser: HeadParser, logger: Logger) -> None:
        self.config = config
        self.name = config.name
        self.parser = parser
        self.logger = logger
        self.counts = ClusterCounts()
        self.hosts = HostSet(config, logger)
        self.connections: set[UpstreamConnection] = set()
        self.connecting = 0
        self.tcp_connections = 0  # of TCP listeners, which keep them to themselves
        self._idle: dict[Address, list[UpstreamConnection]] = {}
        self._waiting: deque[tuple[UpstreamRequest, bool]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Resolve names; connections are opened when requests come."""
        await self.hosts.start()

    async def close(self) -> None:
        """Close all connections."""
        await self.hosts.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for connection in list(self.connections):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self.connections:  # each reports its end from the loop
                    await asyncio.sleep(0)

    @property
    def idle(self) -> int:
        """Connections in the pool."""
        return sum(map(len, self._idle.values()))

    @property
    def pending(self) -> int:
        """Requests that have no connection yet."""
        return len(self._waiting) + self.connecting

    @property
    def full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self.connections) + self.connecting + self.tcp_connections >= MAX_CONNECTIONS

    def acquire(self, request: UpstreamRequest, *, fresh: bool) -> None:
        """Find a connection for a request; `fresh` forbids a pooled one."""
        host = (self.hosts.find(request.host) if request.host else None) or self.hosts.pick()
        if host is None:
            self.counts.upstream_cx_none_healthy += 1
            self._fail_soon(request, UpstreamFailure.NO_HEALTHY_UPSTREAM, "no healthy upstream")
            return
        pool = self._idle.get(host)
        while pool and not fresh:
            connection = pool.pop()
            if connection.usable:
                connection.reused = True
                connection.attach(request)
                return
        if self.full:
            self.counts.upstream_cx_overflow += 1
            if len(self._waiting) >= MAX_PENDING:
                self.counts.upstream_rq_pending_overflow += 1
                self._fail_soon(request, UpstreamFailure.OVERFLOW, "overflow")
            else:
                self.counts.upstream_rq_pending_total += 1
                self._waiting.append((request, fresh))
            return
        self.connecting += 1
        request.connect(self, host)

    @staticmethod
    def _fail_soon(request: UpstreamRequest, failure: UpstreamFailure, detail: str) -> None:
        asyncio.get_running_loop().call_soon(request.fail, failure, detail)

    def forget(self, request: UpstreamRequest) -> None:
        """A request no longer waits."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not request)

    def serve_waiting(self) -> None:
        """Give a free place to whoever waits longest."""
        while self._waiting:
            request, fresh = self._waiting.popleft()
            if not request.done:
                self.acquire(request, fresh=fresh)
                return

    def release(self, connection: UpstreamConnection) -> None:
        """A connection is free again."""
        if self._waiting:
            if self._waiting[0][0].host not in ("", str(connection.host)):
                connection.abort()  # it makes room for one to the host that is waited for
                return
            request, _ = self._waiting.popleft()
            connection.reused = True
            connection.attach(request)
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(connection.host, []).append(connection)
        if self._sweeper is None and self.config.idle_timeout is not None:
            self._sweeper = loop.call_later(self.config.idle_timeout, self._sweep)

    def not_connecting(self) -> None:
        """A connection that was going to be opened will not be."""
        self.connecting -= 1
        self.serve_waiting()

    def dropped(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        pool = self._idle.get(connection.host)
        if pool and connection in pool:
            pool.remove(connection)
        self.serve_waiting()

    def _sweep(self) -> None:
        """Close connections unused for longer than the idle timeout."""
        self._sweeper = None
        timeout = self.config.idle_timeout
        if timeout is None:
            return
        loop = asyncio.get_running_loop()
        oldest: float | None = None
        for pool in self._idle.values():
            for connection in list(pool):
                if loop.time() - connection.idle_since >= timeout:
                    pool.remove(connection)
                    self.counts.upstream_cx_idle_timeout += 1
                    connection.close()
                elif oldest is None or connection.idle_since < oldest:
                    oldest = connection.idle_since
        if oldest is not None:
            self._sweeper = loop.call_later(max(0.001, oldest + timeout - loop.time()), self._sweep)
