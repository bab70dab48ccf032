"""`Listener`: a port that speaks HTTP - the connection manager's settings, and its exchanges. asyncio."""

from __future__ import annotations

from collections.abc import Callable

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model import HttpConnectionManager
from pywasmproxy.server.codec import HeadParser, ProtocolError, RequestHead
from pywasmproxy.server.downstream import DownstreamConnection
from pywasmproxy.server.exchange import Exchange, StreamFactory
from pywasmproxy.server.log import Log
from pywasmproxy.server.patience import Timers
from pywasmproxy.server.port import Port, Serving

LONGEST_STEP = 30.0
"""Seconds after which a connection's timer looks again at the latest."""


class Listener(Port[DownstreamConnection]):
    """A port that speaks HTTP, and its connections."""

    serving: Serving[StreamFactory]

    def __init__(
        self, serving: Serving[StreamFactory], parser: HeadParser, log: Log, guest_ran: Callable[[], None]
    ) -> None:
        super().__init__(serving, log["http"], guest_ran)
        self.parser = parser
        self.log = log
        self.exchanges: set[Exchange] = set()
        self.timers = Timers()
        self.timer_step = self._timer_step()

    def serve(self, serving: Serving[StreamFactory]) -> None:
        super().serve(serving)
        self.timer_step = self._timer_step()

    @property
    def http(self) -> HttpConnectionManager:
        """The connection manager that new exchanges get."""
        return self.serving.http

    def _timer_step(self) -> float:
        """How often a connection's timer must look to be late by a quarter of a timeout at most."""
        http = self.http
        timeouts = [
            http.stream_idle_timeout,
            http.idle_timeout,
            http.request_headers_timeout,
            http.max_connection_duration and http.max_connection_duration + http.drain_timeout,
        ]
        routes = [route for host in http.route_config.virtual_hosts for route in host.routes]
        timeouts += [getattr(route.action, "idle_timeout", None) for route in routes]
        shortest = min((timeout for timeout in timeouts if timeout), default=LONGEST_STEP)
        return max(0.02, min(shortest / 4, LONGEST_STEP))

    @property
    def streams(self) -> set[Exchange]:
        return self.exchanges

    def _accepted(self) -> DownstreamConnection:
        return DownstreamConnection(self)

    async def drain(self, timeout: float) -> None:
        await super().drain(timeout)
        self.timers.close()

    # --- exchanges ------------------------------------------------------------------------------------------

    def begin(
        self, connection: DownstreamConnection, head: RequestHead, refusal: ProtocolError | None = None
    ) -> None:
        """A request arrived, or something that is answered with a `refusal`: start its exchange."""
        exchange = Exchange(self, connection, head)
        exchange.batch = True  # the connection flushes when it has handed over all it has
        connection.exchange = exchange
        self.exchanges.add(exchange)
        exchange.serving.counts.downstream_rq_total += 1
        exchange.start(refusal)

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self.exchanges.discard(exchange)

    def stream_info(self, connection: DownstreamConnection, head: RequestHead) -> StreamInfo:
        """What is known about an exchange before it begins."""
        info = StreamInfo.of(connection.facts)
        info.protocol = "HTTP/1.1" if head.minor else "HTTP/1.0"
        return info
