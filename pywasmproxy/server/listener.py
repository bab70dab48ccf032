"""`Listener`: one listening socket and what all its connections share. asyncio.

Holds the connection manager's settings, counts connections and exchanges (a test for leaks is a comparison
with zero), and drains: no new connections, no new requests, the running ones are finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model import Address, HttpConnectionManager
from pywasmproxy.config.model import Listener as ListenerConfig
from pywasmproxy.sansio.headers import http_date
from pywasmproxy.server.codec import HeaderLines, HeadParser, RequestHead
from pywasmproxy.server.downstream import DownstreamConnection
from pywasmproxy.server.exchange import Exchange, StreamFactory
from pywasmproxy.server.log import Log
from pywasmproxy.server.upstream import Cluster

BACKLOG = 1024
"""Connections the kernel may keep waiting for us."""

LONGEST_STEP = 30.0
"""Seconds after which a connection's timer looks again at the latest."""


class Listener:
    """A port and its connections."""

    def __init__(
        self,
        config: ListenerConfig,
        parser: HeadParser,
        log: Log,
        clusters: Mapping[str, Cluster],
        open_stream: StreamFactory,
        guest_ran: Callable[[], None],
        node: Mapping[str, object],
    ) -> None:
        self.config = config
        self.http: HttpConnectionManager = config.http
        self.parser = parser
        self.log = log
        self.logger = log["http"]
        self.clusters = clusters
        self.open_stream = open_stream
        self.guest_ran = guest_ran
        self.node = dict(node)
        self.connections: set[DownstreamConnection] = set()
        self.exchanges: set[Exchange] = set()
        self.address: Address | None = None
        self.draining = False
        self.timer_step = self._timer_step()
        self.server_name = self.http.server_name.encode()
        self._server: asyncio.Server | None = None
        self._next_id = 0  # as Envoy counts; filters read it
        self._empty: asyncio.Event = asyncio.Event()

    def _timer_step(self) -> float:
        """How often a connection's timer must look to be late by a quarter of a timeout at most."""
        http = self.http
        timeouts = [
            http.stream_idle_timeout,
            http.idle_timeout,
            http.request_headers_timeout,
        ]
        routes = [route for host in http.route_config.virtual_hosts for route in host.routes]
        timeouts += [getattr(route.action, "idle_timeout", None) for route in routes]
        shortest = min((timeout for timeout in timeouts if timeout), default=LONGEST_STEP)
        return max(0.02, min(shortest / 4, LONGEST_STEP))

    async def bind(self) -> Address:
        """Take the port; nothing is accepted before `accept`. OSError."""
        loop = asyncio.get_running_loop()
        where = self.config.address
        self._server = await loop.create_server(
            lambda: DownstreamConnection(self),
            where.host,
            where.port,
            backlog=BACKLOG,
            start_serving=False,
            reuse_address=True,
        )
        name = self._server.sockets[0].getsockname()
        self.address = Address(name[0], name[1])
        return self.address

    async def accept(self) -> None:
        """Begin to accept connections."""
        if self._server is not None:
            await self._server.start_serving()

    # --- connections ----------------------------------------------------------------------------------------

    def opened(self, connection: DownstreamConnection) -> None:
        """A client connected."""
        connection.id = self._next_id
        self._next_id += 1
        self.connections.add(connection)
        self.logger.debug(f"[C{connection.id}] new connection from {connection.remote}")

    def closed(self, connection: DownstreamConnection) -> None:
        """A client's connection is gone."""
        self.connections.discard(connection)
        self.logger.debug(f"[C{connection.id}] connection closed")
        if not self.connections:
            self._empty.set()

    def begin(self, connection: DownstreamConnection, head: RequestHead) -> None:
        """A request arrived: start its exchange."""
        exchange = Exchange(self, connection, head)
        exchange.batch = True  # the connection flushes when it has handed over all it has
        connection.exchange = exchange
        self.exchanges.add(exchange)
        exchange.start()

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self.exchanges.discard(exchange)

    def stream_info(self, connection: DownstreamConnection, head: RequestHead) -> StreamInfo:
        """What is known about an exchange before it begins."""
        return StreamInfo(
            protocol="HTTP/1.1" if head.minor else "HTTP/1.0",
            connection_id=connection.id,
            source_address=connection.remote,
            destination_address=connection.local,
            filter_chain_name=self.config.filter_chains[0].name,
            listener_direction=int(self.config.traffic_direction),
            node=self.node,
        )

    def own_fields(self) -> HeaderLines:
        """The fields of an answer that no filter sees."""
        return [(b"date", http_date(int(time.time()))), (b"server", self.server_name)]

    # --- the end --------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Stop accepting, finish what runs, then close what is left after `timeout` seconds."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), timeout)
            except TimeoutError:
                self.logger.warning(
                    f"listener {self.config.name}: {len(self.connections)} connections cut off"
                )
        for connection in list(self.connections):
            connection.abort()
        self._empty.clear()
        if self.connections:  # each reports its end from the loop
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), 1)
