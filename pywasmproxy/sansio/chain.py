"""`FilterChain`: the filters of a listener with what surrounds them; `open` starts an exchange.

chain = FilterChain([AddHeader, plugin])
stream = chain.open()
for command in stream.feed(RequestHeaders(headers, end_of_stream=True)): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model import (
    BUFFER_LIMIT,
    HttpConnectionManager,
    Route,
    RouteAction,
    RouteConfig,
    RouteMatch,
    VirtualHost,
    WasmFilter,
)
from pywasmproxy.sansio.arrival import Arrival, Self
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.sansio.filter import FilterFactory
from pywasmproxy.sansio.format import Origin
from pywasmproxy.sansio.headers import FOR_ENVOYS, uuid4
from pywasmproxy.sansio.reply_mappers import ReplyMappers
from pywasmproxy.sansio.router import Router
from pywasmproxy.sansio.stream import HttpStream
from pywasmproxy.sansio.wasm import WasmFilterFactory

EVERYTHING_UPSTREAM = RouteConfig(
    virtual_hosts=(
        VirtualHost("all", ("*",), (Route(RouteMatch(prefix="/"), RouteAction("upstream", timeout=None)),)),
    )
)
"""The route table of a chain without one: every request goes to a cluster called `upstream`."""


class Surroundings(Protocol):
    """Time and randomness. `abi.proxy_wasm.host.Host` has these, too."""

    def wall_clock_ns(self) -> int:
        """Nanoseconds since 1970."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of a clock that never goes back."""

    def random_bytes(self, count: int) -> bytes:
        """Bytes for request ids."""


class FilterChain:
    """Filters in request order, the route table behind them, and the manners of the proxy around them.

    A filter is a factory as `filter.py` describes it: a `NativeFilter` class, a `WasmFilterFactory`, any such
    function; or simply a `Plugin`, which then fails closed. `buffer_limit` is the number of bytes of each
    message that may wait in filters. `origin` is what format strings know about the process, `own` how the
    proxy calls itself; `has_cluster` knows which clusters there are (without it: all that have a name).
    """

    def __init__(
        self,
        filters: Iterable[FilterFactory | Plugin],
        *,
        http: HttpConnectionManager | None = None,
        buffer_limit: int = BUFFER_LIMIT,
        surroundings: Surroundings | None = None,
        origin: Origin | None = None,
        own: Self | None = None,
        has_cluster: Callable[[str], bool] = bool,
    ) -> None:
        self.dispatcher = Dispatcher()
        self.has_cluster = has_cluster
        self.factories: list[FilterFactory] = [
            WasmFilterFactory(one, self.dispatcher) if isinstance(one, Plugin) else one for one in filters
        ]
        self.http = http or HttpConnectionManager("", route_config=EVERYTHING_UPSTREAM)
        filters_of_file = (one for one in self.http.http_filters if isinstance(one, WasmFilter))
        self._known = [(one.name, one.disabled) for one in filters_of_file]
        self.router = Router(self.http.route_config, origin)
        replies = self.http.local_replies
        self.reply_mappers = None if replies is None else ReplyMappers(replies, origin)
        self.arrival = Arrival(self.http.forwarding, own)
        names = self.http.route_config.internal_only_headers
        self.hidden = FOR_ENVOYS | {name.encode() for name in names}  # from clients outside
        self.target = None if self.http.target.is_plain else self.http.target
        self.buffer_limit = buffer_limit
        self.surroundings: Surroundings = surroundings or MemoryHost()
        self.monotonic_ns = self.surroundings.monotonic_ns
        self.request_id = self._new_request_id if self.http.generate_request_id else None
        self.server_name = self.http.server_name.encode()
        self.envoy_headers = self.http.envoy_headers

    def members(self) -> Sequence[tuple[str, FilterFactory, bool]]:
        """The filters with the names they have in the configuration, and whether they are off by default."""
        if not self.factories:
            return ()
        known = self._known if len(self._known) == len(self.factories) else None  # else made without one
        return (
            [("", one, False) for one in self.factories]
            if known is None
            else [(name, one, off) for (name, off), one in zip(known, self.factories, strict=True)]
        )

    def _new_request_id(self) -> bytes:
        return uuid4(self.surroundings.random_bytes(16))

    def open(
        self,
        info: StreamInfo | None = None,
        *,
        source: tuple[str, int] | None = None,
        wake: Callable[[HttpStream], None] | None = None,
    ) -> HttpStream:
        """A new exchange, from the client at `source` (address, port).

        `info` may already say what is known about connection and addresses; for `wake` see `HttpStream`.
        """
        known = info if info is not None else StreamInfo()
        if source is not None:
            host, port = source
            known.source_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return HttpStream(self, known, wake)
