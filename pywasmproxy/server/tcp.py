"""TCP listeners: a client's connection, the upstream's behind it, and the core between them. asyncio.

All decisions about filters and closing are the core's (`sansio/tcp.py`); here bytes move, and reading from
one side stops while the other side does not take more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import cast

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model import Address
from pywasmproxy.sansio import tcp_messages as do
from pywasmproxy.sansio import tcp_messages as ev
from pywasmproxy.sansio.events import IdleTimeout, Resumed, UpstreamConnected, UpstreamFailed, UpstreamFailure
from pywasmproxy.sansio.format_parts import Attempt, Moment, Wire
from pywasmproxy.sansio.tcp import TcpChain, TcpStream
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.connect import reason
from pywasmproxy.server.hosts import Host, attempt
from pywasmproxy.server.log import Logger
from pywasmproxy.server.observed import connection_number, facts_of_connection
from pywasmproxy.server.patience import PatientTimer
from pywasmproxy.server.port import Port, Serving
from pywasmproxy.stats.counts import TcpCounts
from pywasmproxy.tls.context import CheckedSession
from pywasmproxy.tls.session import facts

FLUSH_LIMIT = 60.0
"""Seconds without progress after which bytes that are left when a connection has ended are given up."""

_CORE, _SOCKET = 1, 2  # who holds bytes back
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # SO_LINGER: close by a reset


class TcpListener(Port["TcpConnection"]):
    """A port whose connections go on to a cluster."""

    serving: Serving[TcpChain]

    def __init__(self, serving: Serving[TcpChain], logger: Logger, guest_ran: Callable[[], None]) -> None:
        super().__init__(serving, logger, guest_ran)
        self.tcp_counts = TcpCounts()
        self.running: set[TcpConnection] = set()  # those whose filters have not ended

    @property
    def streams(self) -> set[TcpConnection]:
        return self.running

    def _accepted(self) -> _Side:
        return TcpConnection(self).client

    def stream_info(self, connection: TcpConnection, local: str) -> StreamInfo:
        """What is known about a connection when it begins."""
        return StreamInfo(
            connection_id=connection.id,
            source_address=connection.remote,
            destination_address=local,
            **connection.serving.facts,
        )


class _Side(asyncio.Protocol):
    """The socket of one side: the client's, or the upstream's."""

    def __init__(self, owner: TcpConnection) -> None:
        self.transport: asyncio.Transport | None = None
        self.tls: CheckedSession | None = None
        self.held = 0  # bits of _CORE and _SOCKET: nothing is read
        self._owner = owner
        self._ended = False  # has sent its last byte
        self._closing = False
        self._left = 0  # bytes to be sent when the flush was last looked at
        self._timer: asyncio.TimerHandle | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.tls = transport.get_extra_info("ssl_object")
        if self.held:
            self.transport.pause_reading()
        self._owner.side_made(self)

    def data_received(self, data: bytes) -> None:
        if not self._closing:
            self._owner.side_data(self, data, False)

    def eof_received(self) -> bool:
        self._ended = True
        if not self._closing:
            self._owner.side_data(self, b"", True)
        return self.tls is None  # then bytes may still go the other way

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owner.side_lost(self)

    def pause_writing(self) -> None:
        self._owner.side_writable(self, False)

    def resume_writing(self) -> None:
        self._owner.side_writable(self, True)

    # the connection's side

    @property
    def address(self) -> tuple[str, str]:
        """The other end's address and this end's."""
        if self.transport is None:
            return "", ""
        peer, own = (self.transport.get_extra_info(name) for name in ("peername", "sockname"))
        return (
            str(Address(peer[0], peer[1])) if peer else "",
            str(Address(own[0], own[1])) if own else "",
        )

    def send(self, data: bytes, ends: bool) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if data:
            transport.write(data)
        if ends and not transport.can_write_eof():  # TLS: its end is the end of both directions
            transport.close()
        elif ends:
            with contextlib.suppress(OSError):  # the other end is gone: that is noticed elsewhere
                transport.write_eof()

    def hold(self, who: int, held: bool) -> None:
        """Read nothing for now, or go on."""
        before = self.held
        self.held = before | who if held else before & ~who
        transport = self.transport
        if bool(before) is bool(self.held) or transport is None or self._ended or transport.is_closing():
            return
        if self.held:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def close(self, *, reset: bool = False) -> None:
        """Close after what was sent is out, or at once and by a reset."""
        transport = self.transport
        if transport is None or (self._closing and not reset):
            return
        self._closing = True
        if reset:
            connection = transport.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
            return
        self._left = transport.get_write_buffer_size()
        transport.close()
        if self._left:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_LIMIT, self._look_at_flush)

    def _look_at_flush(self) -> None:
        self._timer = None
        transport = self.transport
        if transport is None:
            return
        left = transport.get_write_buffer_size()
        if left >= self._left:
            transport.abort()
            return
        self._left = left
        self._timer = asyncio.get_running_loop().call_later(FLUSH_LIMIT, self._look_at_flush)


class TcpConnection:
    """A client's connection and, once it is there, the upstream's."""

    def __init__(self, listener: TcpListener) -> None:
        self.listener = listener
        self.serving = listener.serving
        self.id = 0
        self.remote = ""
        self.client = _Side(self)
        self.client.held = _CORE  # until the core says so
        self._upstream: _Side | None = None
        self._cluster: Cluster | None = None
        self._host: Host | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.info = StreamInfo()
        self.attempts: list[Attempt] = []
        self._wire = Wire()  # what the upstream got and gave
        self._stream: TcpStream | None = None
        self._events: deque[ev.TcpEvent] = deque()
        self._working = False
        self._over = False
        self._idle_limit = self.serving.chain.proxy.idle_timeout
        self._idle_timer: PatientTimer | None = None
        self._loop = asyncio.get_running_loop()
        self._last_activity = self._loop.time()

    # --- the sides ------------------------------------------------------------------------------------------

    def side_made(self, side: _Side) -> None:
        """A socket is connected."""
        if side is not self.client:
            remote, local = side.address
            if side.tls is not None and self._cluster is not None and (tls := self._cluster.config.tls):
                shown = tls.options.certificates
                self.info.upstream_tls = facts(side.tls, shown[0].chain if shown else None)
            if self._host is not None:
                self.attempts.append(attempt(self._host, connection_number(), self._wire))
            self.feed(UpstreamConnected(remote, local))
            return
        self.remote, local = side.address
        listener = self.listener
        session = self.client.tls
        if session is not None:
            self.serving = self.serving.of(session.requested_server_name)
        listener.opened(self)
        listener.tcp_counts.downstream_cx_total += 1
        listener.running.add(self)
        self.info = listener.stream_info(self, local)
        if session is not None:
            own = self.serving.config.filter_chains[0].tls
            self.info.requested_server_name = session.requested_server_name
            self.info.downstream_tls = facts(session, own.options.certificates[0].chain if own else None)
        self._watch_idle()
        try:
            self._stream = self.serving.chain.open(self.info, wake=self._wake)
        except Exception:
            self._crashed()
            return
        self.feed(ev.NewConnection())

    def side_data(self, side: _Side, data: bytes, ends: bool) -> None:
        """Bytes, or the end of them."""
        self._last_activity = self._loop.time()
        if side is self.client:
            self.listener.tcp_counts.downstream_cx_rx_bytes_total += len(data)
            self.feed(ev.DownstreamData(data, ends))
        else:
            self._wire.received += len(data)
            self.feed(ev.UpstreamData(data, ends))

    def side_lost(self, side: _Side) -> None:
        """A socket is gone."""
        if side is self.client:
            self.feed(ev.DownstreamReset())
        elif side is self._upstream:
            self._upstream = None
            self._let_go_of_cluster()
            self.feed(ev.UpstreamReset())
        self._gone()

    def side_writable(self, side: _Side, writable: bool) -> None:
        """A socket takes more bytes, or does not: the other side waits."""
        self._last_activity = self._loop.time()
        other = self._upstream if side is self.client else self.client
        if other is not None:
            other.hold(_SOCKET, not writable)

    def _gone(self) -> None:
        """When nothing of the connection is left, the listener is told."""
        if self._over and self.client.transport is None and self._upstream is None and not self._connecting:
            self.listener.closed(self)

    # --- the core -------------------------------------------------------------------------------------------

    def feed(self, event: ev.TcpEvent) -> None:
        """Give the core an event and do what it says; events that this causes wait until that is done."""
        if self._over:
            return
        self._events.append(event)
        if self._working:
            return
        self._working = True
        try:
            while self._events and not self._over and self._stream is not None:
                for command in self._stream.feed(self._events.popleft()):
                    self._perform(command)
        except Exception:
            self._crashed()
        finally:
            self._working = False
        self.listener.guest_ran()

    def _wake(self, stream: object) -> None:
        """Guest code that ran elsewhere asked for something here."""
        self._loop.call_soon(self.feed, Resumed())

    def _perform(self, command: do.TcpCommand) -> None:
        upstream = self._upstream
        match command:
            case do.SendUpstream(data, ends):
                if upstream is not None:
                    self._wire.sent += len(data)
                    upstream.send(data, ends)
            case do.SendDownstream(data, ends):
                self.listener.tcp_counts.downstream_cx_tx_bytes_total += len(data)
                self.client.send(data, ends)
            case do.ConnectUpstream(cluster):
                self._connect(cluster)
            case do.PauseDownstream() | do.ResumeDownstream():
                self.client.hold(_CORE, isinstance(command, do.PauseDownstream))
            case do.PauseUpstream() | do.ResumeUpstream():
                if upstream is not None:
                    upstream.hold(_CORE, isinstance(command, do.PauseUpstream))
            case do.CloseUpstream(reset):
                if self._connecting is not None:
                    self._connecting.cancel()
                if upstream is not None:
                    upstream.close(reset=reset)
            case do.CloseDownstream(reset):
                self.client.close(reset=reset)
            case do.ConnectionDone():
                self._end()

    def _end(self) -> None:
        """The core has done its part: only bytes that were sent may still have to go out."""
        if self._over:
            return
        self._over = True
        self._stream = None  # it refers back to us
        self._events.clear()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self.listener.running.discard(self)
        if self.serving.access_logs:
            self._write_down()
        self._gone()

    def _write_down(self) -> None:
        """Tell the access logs."""
        info, now = self.info, time.time_ns()
        if info.start_time is None:
            return  # nothing has begun
        info.request_duration = now - info.start_time
        moment = Moment(now, access_log_type="TcpConnectionEnd", facts=facts_of_connection(self))
        for log in self.serving.access_logs:
            log.write(info, moment, random.getrandbits(53))

    def _crashed(self) -> None:
        """A fault of ours: say so, and give up this connection. For use in an `except`."""
        self.listener.logger.error(f"[C{self.id}] connection failed: {traceback.format_exc().rstrip()}")
        self._end()
        self.abort()

    # --- connecting -----------------------------------------------------------------------------------------

    def _connect(self, name: str) -> None:
        cluster = self.serving.clusters.get(name)
        if cluster is None:
            self.listener.tcp_counts.downstream_cx_no_route += 1
            self._fail(UpstreamFailure.NO_HEALTHY_UPSTREAM, f"no cluster {name!r}")
            return
        self.info.cluster_metadata = dict(cluster.config.metadata)
        host = cluster.hosts.pick()
        if host is None:
            self._fail(UpstreamFailure.NO_HEALTHY_UPSTREAM, "no healthy upstream")
        elif cluster.full:
            self._fail(UpstreamFailure.OVERFLOW, "overflow")
        else:
            cluster.tcp_connections += 1
            self._cluster, self._host = cluster, host
            self._connecting = self._loop.create_task(self._open(cluster, host))

    def _fail(self, failure: UpstreamFailure, detail: str) -> None:
        self._events.append(UpstreamFailed(failure, detail))  # we are working on an event

    async def _open(self, cluster: Cluster, host: Host) -> None:
        side = _Side(self)
        failure, detail = UpstreamFailure.CONNECT_TIMEOUT, "connection timeout"
        opening = asyncio.ensure_future(cluster.connector.connect(host, lambda: side))
        timer = PatientTimer(cluster.config.connect_timeout, opening.cancel)
        self._upstream = side  # before it reports that it is connected
        try:
            await opening
            self._connecting = None
            return
        except asyncio.CancelledError:
            pass  # by the timer, or because nobody wants the connection any more
        except OSError as error:
            failure = UpstreamFailure.CONNECT_FAILURE
            detail = reason(error)
        finally:
            timer.cancel()
        opening.cancel()
        if side.transport is not None:  # it was made in the very moment
            side.close(reset=True)
            side.transport = self._connecting = None
            self.side_lost(side)  # a loop may drop such a connection without a word (uvloop does)
            return
        self.listener.logger.debug(f"[C{self.id}] cluster {cluster.name}: cannot connect to {host}: {detail}")
        self._upstream = self._connecting = None
        self._let_go_of_cluster()
        self.attempts.append(attempt(host))
        self.info.upstream_address, self.info.upstream_local_address = str(host), None
        self.feed(UpstreamFailed(failure, detail))
        self._gone()

    def _let_go_of_cluster(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.tcp_connections -= 1
            cluster.serve_waiting()

    # --- time and the end -----------------------------------------------------------------------------------

    def _watch_idle(self) -> None:
        if self._idle_limit is not None and not self._over:
            left = self._last_activity + self._idle_limit - self._loop.time()
            self._idle_timer = PatientTimer(max(left, 0.001), self._idle_due)

    def _idle_due(self) -> None:
        self._idle_timer = None
        if self._idle_limit is None or self._loop.time() < self._last_activity + self._idle_limit:
            self._watch_idle()
        else:
            self.listener.tcp_counts.idle_timeout += 1
            self.feed(IdleTimeout())

    def drain(self) -> None:
        """The listener shuts down. Bytes do not say when they are complete: the connection may go on."""

    def abort(self) -> None:
        """Close at once."""
        self.feed(ev.ProxyStops())
        if self._connecting is not None:
            self._connecting.cancel()
        for side in (self.client, self._upstream):
            if side is not None and side.transport is not None:
                side.transport.abort()
