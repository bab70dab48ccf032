"""Active health checks: every host of a cluster is asked again and again, and leaves or comes back. asyncio.

Source: Envoy's documentation of its health checking. Until its first check a host counts as unhealthy; that
check alone decides, later ones have thresholds. While a cluster has had no connection, checks are rare.
"""

from __future__ import annotations

import asyncio
import random
from enum import Enum
from typing import TYPE_CHECKING, cast

from pywasmproxy.config.model_clusters import CheckKind, HealthCheck
from pywasmproxy.server.codec import EndOfMessage, ProtocolError, ResponseHead
from pywasmproxy.server.connect import HTTP_1
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.readers import ResponseReader
from pywasmproxy.server.wire import head_bytes

if TYPE_CHECKING:
    from pywasmproxy.server.cluster import Cluster


class Verdict(Enum):
    """What one check says."""

    GOOD = "good"
    BAD = "bad"  # counts towards the threshold
    UNHEALTHY = "unhealthy"  # at once


class HealthChecker:
    """The checks of one cluster: a task for each host."""

    def __init__(self, cluster: Cluster, check: HealthCheck) -> None:
        self._cluster, self._check = cluster, check
        self._tasks: dict[Host, asyncio.Task[None]] = {}
        self._first: dict[Host, asyncio.Event] = {}

    async def start(self) -> None:
        """Begin, and wait for the first check of each host."""
        self._cluster.hosts.on_change = self._follow
        self._follow()
        await asyncio.gather(*(event.wait() for event in self._first.values()))

    async def close(self) -> None:
        """Check no more."""
        self._cluster.hosts.on_change = None
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def running(self) -> int:
        """Hosts that are being checked."""
        return len(self._tasks)

    def _follow(self) -> None:
        """Hosts have come or gone."""
        hosts = self._cluster.hosts.hosts
        for host in [host for host in self._tasks if host not in hosts]:
            self._tasks.pop(host).cancel()
            self._first.pop(host).set()
        for host in hosts:
            if host not in self._tasks:
                self._first[host] = asyncio.Event()
                self._tasks[host] = asyncio.get_running_loop().create_task(self._watch(host))

    async def _watch(self, host: Host) -> None:
        check, runs = self._check, 0
        await asyncio.sleep(random.random() * check.initial_jitter)
        first = self._first[host]
        while True:
            verdict = await self._verdict(host)
            wrong = verdict is not Verdict.GOOD
            # How many in a row say the opposite of what is known.
            runs = runs + 1 if wrong is not host.check_failed else 0
            limit = check.unhealthy_threshold if wrong else check.healthy_threshold
            change = runs > 0 and (runs >= limit or not first.is_set() or verdict is Verdict.UNHEALTHY)
            if change:
                runs = 0
                host.check_failed = wrong
                self._cluster.logger.info(
                    f"cluster {self._cluster.name}: {host} is {'unhealthy' if wrong else 'healthy'}"
                )
                self._cluster.hosts.reconsider()
            outliers = self._cluster.outliers
            if outliers is not None and not wrong and not host.check_failed:
                outliers.checked(host)
            first.set()
            await asyncio.sleep(self._pause(host.check_failed, change))

    def _pause(self, failed: bool, change: bool) -> float:
        """Seconds until the next check."""
        check = self._check
        pause = check.interval
        if not self._cluster.counts.upstream_cx_total:
            pause = check.no_traffic_interval
            if not failed and check.no_traffic_healthy_interval is not None:
                pause = check.no_traffic_healthy_interval
        elif failed:
            pause = check.unhealthy_interval or pause
            if change:
                pause = check.unhealthy_edge_interval or pause
        elif change:
            pause = check.healthy_edge_interval or pause
        spread = check.interval_jitter + pause * check.interval_jitter_percent / 100
        return pause + random.random() * spread

    async def _verdict(self, host: Host) -> Verdict:
        http = self._check.kind is CheckKind.HTTP
        probe = _HttpProbe(self._cluster, host, self._check) if http else _Probe(self._check)
        try:
            async with asyncio.timeout(self._check.timeout):
                await self._cluster.connector.connect(
                    host,
                    lambda: probe,
                    alpn=HTTP_1 if http else None,
                    port=host.endpoint.health_port,
                )
                return await probe.answer
        except (TimeoutError, OSError):
            return Verdict.BAD
        finally:
            probe.close()


class _Probe(asyncio.Protocol):
    """One check of a host: says something, and looks at what comes back."""

    def __init__(self, check: HealthCheck) -> None:
        self.answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._check = check
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._question())
        self.data_received(b"")

    def _question(self) -> bytes:
        return self._check.send

    def data_received(self, data: bytes) -> None:
        self._received += data
        at = 0
        for piece in self._check.receive:
            found = self._received.find(piece, at)
            if found < 0:
                return
            at = found + len(piece)
        self._say(Verdict.GOOD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._say(Verdict.BAD)

    def _say(self, verdict: Verdict) -> None:
        if not self.answer.done():
            self.answer.set_result(verdict)

    def close(self) -> None:
        """The check is over."""
        if self._transport is not None:
            self._transport.abort()
        self.answer.cancel()


class _HttpProbe(_Probe):
    """A request, and the status of its response."""

    def __init__(self, cluster: Cluster, host: Host, check: HealthCheck) -> None:
        super().__init__(check)
        self._authority = host.endpoint.health_hostname or host.hostname or check.host or cluster.name
        self._reader = ResponseReader(cluster.parser)
        self._verdict: Verdict | None = None

    def _question(self) -> bytes:
        check = self._check
        self._reader.expect(check.method.encode())
        lines = [(b"host", self._authority.encode()), (b"user-agent", b"Envoy/HC")]
        lines += [(name.encode(), value.encode()) for name, value in check.headers]
        return head_bytes(f"{check.method} {check.path} HTTP/1.1".encode(), lines)

    def data_received(self, data: bytes) -> None:
        if data:
            self._reader.feed(data)
            self._read()

    def eof_received(self) -> None:
        self._reader.feed_eof()
        self._read()

    def _read(self) -> None:
        try:
            while (event := self._reader.next_event()) is not None:
                if isinstance(event, ResponseHead) and event.status >= 200:
                    self._verdict = self._of_status(event.status)
                    if event.bodiless:
                        self._say(self._verdict)
                elif isinstance(event, EndOfMessage) or getattr(event, "ends", False):
                    self._say(self._verdict or Verdict.BAD)
        except ProtocolError:
            self._say(Verdict.BAD)

    def _of_status(self, status: int) -> Verdict:
        if any(low <= status < high for low, high in self._check.expected):
            return Verdict.GOOD
        if any(low <= status < high for low, high in self._check.retriable):
            return Verdict.BAD
        return Verdict.UNHEALTHY
