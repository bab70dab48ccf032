"""`Port`: a listening socket and its connections, whatever they speak. asyncio.

Counts connections and streams (a test for leaks is a comparison with zero), and drains: no new connections,
what runs is finished, what is left after that is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model import Address, HttpConnectionManager
from pywasmproxy.config.model import Listener as ListenerConfig
from pywasmproxy.sansio.format import Moment, Need
from pywasmproxy.server.accept import Acceptor
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.log import Logger
from pywasmproxy.server.metered import metered
from pywasmproxy.server.observed import Places
from pywasmproxy.server.port_tls import PortTls, chain_for
from pywasmproxy.server.seat import Seat, copies
from pywasmproxy.stats.counts import DownstreamCounts, ListenerCounts

BACKLOG = 1024
"""Connections the kernel may keep waiting for us."""


class AccessLogger(Protocol):
    """Where exchanges are written down (`server.access_log`)."""

    @property
    def needs(self) -> Need:
        """What has to be gathered for it."""

    def write(self, info: StreamInfo, moment: Moment, random: int) -> None:
        """An exchange is over."""


class ClientConnection(Protocol):
    """A connection as its port sees it."""

    id: int
    remote: str

    def drain(self) -> None:
        """The port shuts down: end as soon as what runs is finished."""

    def abort(self) -> None:
        """End now."""


_Connection = TypeVar("_Connection", bound=ClientConnection)


_Chain_co = TypeVar("_Chain_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Serving(Generic[_Chain_co]):
    """What a port does with an exchange or a connection. That is settled when it begins: one that is under
    way when the configuration is loaded anew goes on as it began. `chain` opens the core's side; `generation`
    counts the configurations. `counts` are those of the HTTP listeners with its `stat_prefix`; exchanges
    that are over are told to the `access_logs`, which have `needs`; `places` tells
    what is known by where they went."""

    config: ListenerConfig
    clusters: Mapping[str, Cluster]
    chain: _Chain_co
    node: dict[str, object]
    generation: int = 0
    by_chain: tuple[Serving[_Chain_co], ...] = ()
    """The same for each filter chain alone, where clients choose by the name they ask for."""

    counts: DownstreamCounts = field(default_factory=DownstreamCounts)
    access_logs: Sequence[AccessLogger] = ()
    needs: Need = Need.NOTHING
    places: Places | None = None

    def counts_of_connection(self) -> DownstreamCounts:
        """What a connection counts into: also for itself, if somebody wants to know its bytes."""
        return metered(self.counts) if Need.DOWNSTREAM_BYTES in self.needs else self.counts

    http: HttpConnectionManager = field(init=False)
    """The connection manager, where HTTP is spoken."""
    facts: Mapping[str, Any] = field(init=False)
    """What `StreamInfo` says of all that happens here."""

    def __post_init__(self) -> None:
        config = self.config
        if config.tcp is None:
            object.__setattr__(self, "http", config.http)
        facts = {
            "filter_chain_name": config.filter_chains[0].name,
            "listener_direction": int(config.traffic_direction),
            "node": self.node,
        }
        object.__setattr__(self, "facts", facts)

    def of(self, server_name: str | None) -> Serving[_Chain_co]:
        """What is done for a client that asks for a name."""
        index = chain_for(self.config.filter_chains, server_name) if self.by_chain else None
        return self if index is None else self.by_chain[index]


class Port(ABC, Generic[_Connection]):
    """A port and its connections."""

    def __init__(self, serving: Serving[Any], logger: Logger, guest_ran: Callable[[], None]) -> None:
        self.serving = serving
        self.logger = logger
        self.guest_ran = guest_ran
        self.connections: set[_Connection] = set()
        self.address: Address | None = None
        self.last_answers = False
        """Whether clients are told that their connections end: it drains, or is said not to be well."""
        self._draining = self._failing = False
        self.counts = ListenerCounts()
        self._server: asyncio.Server | Acceptor | None = None
        self._tls: PortTls | None = None
        self._next_id = 0  # as Envoy counts; filters read it
        self._empty: asyncio.Event = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether it is about to end."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self._decide()

    def fail_checks(self, failing: bool) -> None:
        """Health checks are told that this proxy is not to be used, or that it is."""
        self._failing = failing
        self._decide()

    def _decide(self) -> None:
        self.last_answers = self._draining or (self._failing and not self.config.drain_modify_only)

    @property
    def config(self) -> ListenerConfig:
        """The configuration that new exchanges and connections get."""
        return self.serving.config

    def serve(self, serving: Serving[Any]) -> None:
        """From now on do this with what begins."""
        self.serving = serving
        self._decide()
        if self._tls is not None:
            self._tls.serve(serving.config)

    @property
    @abstractmethod
    def streams(self) -> Collection[Any]:
        """What the core works on: exchanges, or connections whose filters have not ended. Each has its
        `serving`."""

    @abstractmethod
    def _accepted(self) -> Any:
        """A new connection's protocol for asyncio."""

    def suits(self, config: ListenerConfig) -> bool:
        """Whether this is the port on which a listener of that configuration would be."""
        mine = self.config
        return mine.address == config.address and (config.address.port != 0 or mine.name == config.name)

    async def bind(self, taken_over: Port[Any] | None = None, seat: Seat | None = None) -> Address:
        """Take the port, or the one another listener has; nothing is accepted before `accept`. OSError.

        With a `seat` in a worker it is the port that the workers share.
        """
        loop = asyncio.get_running_loop()
        where = self.config.address
        shared = seat.take(self.config) if seat is not None and taken_over is None else []
        if taken_over is not None and taken_over._server is not None:
            shared = copies(taken_over._server.sockets)
        tls: dict[str, Any] = {}
        if self.config.kind[1]:
            self._tls = PortTls(self.config)
            tls = self._tls.options
        if shared and seat is not None:
            self._server = Acceptor(
                shared, self._accepted, seat.balance, backlog=BACKLOG, report=self.logger.error, tls=tls
            )
        elif shared:
            self._server = await loop.create_server(
                self._accepted, sock=shared[0], backlog=BACKLOG, start_serving=False, **tls
            )
        else:
            self._server = await loop.create_server(
                self._accepted,
                where.host,
                where.port,
                backlog=BACKLOG,
                start_serving=False,
                reuse_address=True,
                # A listener that came with a later configuration: each worker binds its port.
                reuse_port=True if seat is not None and hasattr(socket, "SO_REUSEPORT") else None,
                **tls,
            )
        name = self._server.sockets[0].getsockname()
        self.address = Address(name[0], name[1])
        return self.address

    async def accept(self) -> None:
        """Begin to accept connections."""
        if self._server is not None:
            await self._server.start_serving()

    def detach(self) -> list[socket.socket]:
        """Give up a port on which nothing was accepted; its sockets, still bound, for others."""
        sockets = copies(self._server.sockets) if self._server is not None else []
        self.release()
        return sockets

    def release(self) -> None:
        """Give up a port on which nothing was accepted."""
        if self._server is not None:
            self._server.close()

    def abandon(self) -> None:
        """Nobody wants the port any more, no other worker either: what comes now is refused."""
        if isinstance(self._server, Acceptor):
            self._server.abandon()

    def opened(self, connection: _Connection) -> None:
        """A client connected."""
        connection.id = self._next_id
        self._next_id += 1
        self.connections.add(connection)
        self.counts.downstream_cx_total += 1
        self.logger.debug(f"[C{connection.id}] new connection from {connection.remote}")

    def closed(self, connection: _Connection) -> None:
        """A client's connection is gone."""
        self.connections.discard(connection)
        self.counts.downstream_cx_destroy += 1
        if isinstance(self._server, Acceptor):
            self._server.balance.change(-1)
        self.logger.debug(f"[C{connection.id}] connection closed")
        if not self.connections:
            self._empty.set()

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
