"""`Cluster`: a group of hosts with their connection pools, and how much they take at once. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import deque
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from pywasmproxy.config.model import Cluster as ClusterConfig
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.format_wire import Need
from pywasmproxy.server.codec import HeadParser
from pywasmproxy.server.connect import Connector
from pywasmproxy.server.health import HealthChecker
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.log import Logger
from pywasmproxy.server.observed import connection_class
from pywasmproxy.server.outliers import Outliers
from pywasmproxy.server.resolver import HostSet
from pywasmproxy.server.retry_limit import RetryLimit
from pywasmproxy.server.upstream_connection import UpstreamConnection
from pywasmproxy.stats.counts import ClusterCounts

if TYPE_CHECKING:
    from pywasmproxy.server.http2_lanes import Lane, Lanes
    from pywasmproxy.server.upstream import UpstreamRequest


class Cluster:
    """A group of hosts with their connections."""

    def __init__(self, config: ClusterConfig, parser: HeadParser, logger: Logger) -> None:
        self.config = config
        self.name = config.name
        self.metadata = config.metadata
        self.trailers = config.http1.enable_trailers
        self.parser = parser
        self.logger = logger
        self.counts = ClusterCounts()
        self.hosts = HostSet(config, logger)
        self.connector = Connector(config)
        self.checker = HealthChecker(self, config.health_checks[0]) if config.health_checks else None
        detection = config.outlier_detection
        self.outliers = Outliers(self, detection) if detection is not None else None
        self.connection_class: type[UpstreamConnection] = UpstreamConnection
        self._needs = Need.NOTHING
        self._begin()

    def _begin(self) -> None:
        """Without connections or requests."""
        self._high: Cluster | None = None
        self.connections: set[UpstreamConnection | Lane] = set()
        self.http2: Lanes | None = None
        """Instead of the pool, where hosts speak HTTP/2."""
        if self.config.http2 is not None:
            from pywasmproxy.server.http2_lanes import Lanes

            self.http2 = Lanes(self, self.config.http2)
        self.connecting = 0
        self.active = 0  # requests under way
        self.tcp_connections = 0  # of TCP listeners, which keep them to themselves
        self.retry_limit = RetryLimit(self)
        self._idle: dict[Host, list[UpstreamConnection]] = {}
        self._waiting: deque[tuple[UpstreamRequest, bool]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Resolve names, check hosts; connections are opened when requests come."""
        await self.hosts.start()
        if self.outliers is not None:
            self.outliers.start()
        if self.checker is not None:
            await self.checker.start()

    @property
    def high(self) -> Cluster:
        """The same hosts for requests of high priority: with connections and limits of their own."""
        if self._high is None:
            high = self._high = copy.copy(self)
            high.config = replace(self.config, circuit_breaker=self.config.high_circuit_breaker)
            high.checker = None
            high._begin()
        return self._high

    @property
    def parts(self) -> list[Cluster]:
        """This one and that of high priority, if there is one."""
        return [self] if self._high is None else [self, self._high]

    @property
    def observed(self) -> bool:
        """Whether access logs want to know which hosts were asked."""
        return bool(self._needs)

    def observe(self, needs: Need) -> None:
        """From now on gather what access logs want to know."""
        self._needs |= needs
        self.connection_class = connection_class(self._needs)
        if self._high is not None:
            self._high.observe(needs)

    async def close(self) -> None:
        """Close all connections."""
        if self.checker is not None:
            await self.checker.close()
        if self.outliers is not None:
            self.outliers.close()
        await self.hosts.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        if self.http2 is not None:
            self.http2.close()
        for connection in list(self.connections):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self.connections:  # each reports its end from the loop
                    await asyncio.sleep(0)
        if self._high is not None:
            await self._high.close()

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
        return (
            len(self.connections) + self.connecting + self.tcp_connections
            >= self.config.circuit_breaker.max_connections
        )

    def acquire(self, request: UpstreamRequest, *, fresh: bool) -> None:
        """Find a connection for a request; `fresh` forbids a pooled one."""
        breaker = self.config.circuit_breaker
        host = (self.hosts.find(request.host) if request.host else None) or self.hosts.pick(request.hash_key)
        if host is None:
            self.counts.upstream_cx_none_healthy += 1
            self._fail_soon(request, UpstreamFailure.NO_HEALTHY_UPSTREAM, "no healthy upstream")
            return
        if self.active + self.connecting >= breaker.max_requests:
            self.counts.upstream_rq_active_overflow += 1
            self._fail_soon(request, UpstreamFailure.OVERFLOW, "overflow")
            return
        pool = self._idle.get(host)
        while pool and not fresh:
            connection = pool.pop()
            if connection.usable:
                connection.reused = True
                connection.attach(request)
                return
        if self.pending >= breaker.max_pending_requests:
            self._overflow(request)
        elif self.full:
            self.counts.upstream_cx_overflow += 1
            self.counts.upstream_rq_pending_total += 1
            self._waiting.append((request, fresh))
        else:
            self.connecting += 1
            request.connect(self, host)

    def _overflow(self, request: UpstreamRequest) -> None:
        self.counts.upstream_rq_pending_overflow += 1
        self._fail_soon(request, UpstreamFailure.OVERFLOW, "overflow")

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
        connection.idle_since = monotonic()
        self._idle.setdefault(connection.host, []).append(connection)
        if self._sweeper is None and self.config.idle_timeout is not None:
            self._sweeper = asyncio.get_running_loop().call_later(self.config.idle_timeout, self._sweep)

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
                if monotonic() - connection.idle_since >= timeout:
                    pool.remove(connection)
                    self.counts.upstream_cx_idle_timeout += 1
                    connection.close()
                elif oldest is None or connection.idle_since < oldest:
                    oldest = connection.idle_since
        if oldest is not None:
            self._sweeper = loop.call_later(max(0.001, oldest + timeout - monotonic()), self._sweep)
