"""`TcpStream`: one client's connection and the upstream's behind it. `feed` takes an event and returns the
commands it leads to; `TcpChain.open` makes it.

The client's bytes pass the filters in their order, the upstream's in the opposite one. Source: Envoy 1.40's
filter manager and TCP proxy as measured (tests/replay/golden/tcp_streams.json): nothing is read from the
client before the upstream is connected; data that a filter stops stays in one buffer for all filters, and
when more comes the whole of it begins again at the first one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING

from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, PeerType
from pywasmproxy.config.model import BUFFER_LIMIT, TcpProxy
from pywasmproxy.sansio import events
from pywasmproxy.sansio import tcp_messages as do
from pywasmproxy.sansio import tcp_messages as ev
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.local_reply import Flags
from pywasmproxy.sansio.states import StreamStateError
from pywasmproxy.sansio.tcp_filter import TcpFilter, TcpFilterFactory, WasmTcpFilterFactory

if TYPE_CHECKING:
    from pywasmproxy.sansio.chain import Surroundings

FLAGS: dict[UpstreamFailure, Flags] = {
    UpstreamFailure.NO_HEALTHY_UPSTREAM: Flags.NO_HEALTHY_UPSTREAM,
    UpstreamFailure.OVERFLOW: Flags.UPSTREAM_OVERFLOW,
}
"""`response.flags` when there is no upstream; all other reasons are failures to connect."""


class TcpChain:
    """The network filters of a listener before its TCP proxy. `open` begins a connection.

    A filter is a factory (`tcp_filter.py`), or simply a `Plugin`, which then fails closed. `buffer_limit` is
    the number of bytes of each direction that may wait in filters before no more are read. `known` are the
    clusters that exist; None: all do.
    """

    def __init__(
        self,
        filters: Iterable[TcpFilterFactory | Plugin],
        proxy: TcpProxy,
        *,
        buffer_limit: int = BUFFER_LIMIT,
        surroundings: Surroundings | None = None,
        known: Container[str] | None = None,
    ) -> None:
        self.known = known
        self.dispatcher = Dispatcher()
        self.factories: list[TcpFilterFactory] = [
            WasmTcpFilterFactory(one, self.dispatcher) if isinstance(one, Plugin) else one for one in filters
        ]
        self.proxy = proxy
        self.buffer_limit = buffer_limit
        self.surroundings: Surroundings = surroundings or MemoryHost()
        self._total = sum(weight for _, weight in proxy.clusters)

    def pick_cluster(self) -> str:
        """The cluster for a new connection: at random, as the weights say."""
        clusters = self.proxy.clusters
        if len(clusters) == 1:
            return clusters[0][0]
        point = int.from_bytes(self.surroundings.random_bytes(8), "little") % self._total
        for name, weight in clusters:
            point -= weight
            if point < 0:
                return name
        return clusters[-1][0]

    def open(
        self, info: StreamInfo | None = None, *, wake: Callable[[TcpStream], None] | None = None
    ) -> TcpStream:
        """A new connection; `info` may say what is known about it. For `wake` see `TcpStream`."""
        return TcpStream(self, info if info is not None else StreamInfo(), wake)


class TcpStream:
    """One connection; made by `TcpChain.open`.

    `wake` is called when a filter asked for something while no event was being fed (a tick, another stream's
    guest code): the driver then feeds `Resumed()`, now or later. `done` is True after ConnectionDone.
    """

    def __init__(
        self, chain: TcpChain, info: StreamInfo, wake: Callable[[TcpStream], None] | None = None
    ) -> None:
        self.info = info
        self.done = False
        self._chain = chain
        self._wake = wake
        self._commands: list[do.TcpCommand] = []
        self._asks: deque[Callable[[], None]] = deque()
        self._attended = False
        self._closing = False  # a filter asked for the end: nothing is passed on any more

        self._begun = False
        self._opened = 0  # filters that know of the connection
        self._down = bytearray()  # the client's bytes that are on their way through the filters
        self._up = bytearray()
        self._down_waits_at: TcpFilter | None = None
        self._up_waits_at: TcpFilter | None = None
        self._down_paused = True  # as far as the driver knows
        self._up_paused = False

        self._cluster = ""
        self._attempts = 0
        self._asked_at = 0  # monotonic ns
        self._connecting = False
        self._connected = False
        self._client_ended = False  # has sent its last byte
        self._upstream_ended = False
        self._end_sent_up = False  # the client's end has come through the filters
        self._end_sent_down = False
        self._closed_by: PeerType | None = None
        self._filters = self._make_filters()

    def _make_filters(self) -> list[TcpFilter]:
        filters: list[TcpFilter] = []
        for factory in self._chain.factories:
            callbacks = _Callbacks(self)
            made = factory(callbacks, self.info)
            if made is not None:
                callbacks.filter = made
                filters.append(made)
        return filters

    # --- the driver's side --------------------------------------------------------------------------------

    def feed(self, event: ev.TcpEvent) -> list[do.TcpCommand]:
        """Let something happen; what the driver has to do about it, in order.

        Raises StreamStateError for an event that cannot happen now; the stream is unchanged then.
        """
        if self._attended:
            raise StreamStateError("an event was fed while another one is being worked on")
        self._check(event)
        if self.done:
            return []
        self._attended = True
        try:
            if not self._closing:  # else a filter has asked for the end since
                self._handle(event)
            while self._asks and self._closed_by is None:
                self._asks.popleft()()
            if self._closed_by is not None:
                self._finish(self._closed_by)
            else:
                self._steer_reading()
        finally:
            self._attended = False
        commands, self._commands = self._commands, []
        return commands

    def _check(self, event: ev.TcpEvent) -> None:
        if self.done:
            return
        match event:
            case ev.NewConnection():
                possible = not self._begun
            case _ if not self._begun:
                possible = False
            case ev.DownstreamData():
                possible = not self._client_ended
            case events.UpstreamConnected() | events.UpstreamFailed():
                possible = self._connecting
            case ev.UpstreamData():
                possible = self._connected and not self._upstream_ended
            case ev.UpstreamReset():
                possible = self._connected
            case _:
                possible = True
        if not possible:
            raise StreamStateError(f"{type(event).__name__} cannot happen now")

    def _handle(self, event: ev.TcpEvent) -> None:
        match event:
            case ev.NewConnection():
                self._begin()
            case ev.DownstreamData(data, end_of_stream):
                self._on_downstream_data(data, end_of_stream)
            case ev.UpstreamData(data, end_of_stream):
                self._on_upstream_data(data, end_of_stream)
            case events.UpstreamConnected():
                self._on_connected(event)
            case events.UpstreamFailed():
                self._on_connect_failed(event)
            case ev.DownstreamReset():
                self.info.response_flags |= Flags.DOWNSTREAM_CONNECTION_TERMINATION
                self._close(PeerType.REMOTE)
                self._commands.append(do.CloseUpstream(reset=True))
            case ev.UpstreamReset():
                self.info.response_flags |= Flags.UPSTREAM_REMOTE_RESET
                self._close(PeerType.LOCAL)
                self._commands.append(do.CloseDownstream(reset=True))
            case events.IdleTimeout():
                self.info.response_flags |= Flags.STREAM_IDLE_TIMEOUT
                self._close(PeerType.LOCAL)
            case ev.ProxyStops():
                self._close(PeerType.LOCAL)
            case _:
                pass  # Resumed: the asks are waiting already

    # --- the client's bytes -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._begun = True
        if self.info.start_time is None:
            self.info.start_time = self._chain.surroundings.wall_clock_ns()
        if self.info.upstream_transport_failure_reason is None:
            self.info.upstream_transport_failure_reason = ""
        self._pass_down(0)

    def _on_downstream_data(self, data: bytes, end_of_stream: bool) -> None:
        self.info.request_body_size += len(data)
        self._down += data
        self._client_ended = end_of_stream
        if self._connected:  # else it waits: see `_on_connected`
            self._pass_down(0)
        if end_of_stream and self._end_sent_down:
            self._close(PeerType.REMOTE)
        elif end_of_stream:
            self._close_if_upstream_is_over()

    def _pass_down(self, start: int) -> None:
        """Bring the new connection, and what there is of the client's bytes, through the filters."""
        if self._closing:
            return
        self._down_waits_at = None
        for index in range(start, len(self._filters)):
            filter = self._filters[index]
            if index >= self._opened:
                self._opened = index + 1
                if self._stops(filter.on_new_connection()):
                    self._down_waits_at = filter
                    return
            has_data = self._down or (self._client_ended and not self._end_sent_up)
            if has_data and self._stops(filter.on_downstream_data(self._down, self._client_ended)):
                self._down_waits_at = filter
                return
        if not self._connected:
            self._connect()
        elif not self._end_sent_up and (self._down or self._client_ended):
            self._end_sent_up = self._client_ended
            data = bytes(self._down)
            self._down.clear()
            self._commands.append(do.SendUpstream(data, self._end_sent_up))

    def _stops(self, action: Action | None) -> bool:
        """Whether nothing goes on behind a callback that ended like this."""
        return self._closing or (action is not None and action.paused)

    # --- the upstream -------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._connecting:
            return
        chain = self._chain
        if not self._cluster:
            chosen = self.info.filter_state.get(b"envoy.tcp_proxy.cluster")  # a filter's choice comes first
            self._cluster = chosen.decode("utf-8", "replace") if chosen else chain.pick_cluster()
            self._asked_at = chain.surroundings.monotonic_ns()
        if chain.known is not None and self._cluster not in chain.known:
            self.info.response_flags |= Flags.NO_CLUSTER_FOUND
            self._close(PeerType.LOCAL)
            return
        self._connecting = True
        self._attempts += 1
        self.info.cluster_name = self._cluster
        self.info.upstream_attempt_count = self._attempts
        self._commands.append(do.ConnectUpstream(self._cluster))

    def _on_connected(self, event: events.UpstreamConnected) -> None:
        self._connecting, self._connected = False, True
        info = self.info
        info.upstream_address, info.upstream_local_address = event.address, event.local_address
        info.upstream_pool_ready_duration = self._chain.surroundings.monotonic_ns() - self._asked_at
        if self._down or self._client_ended:
            self._pass_down(0)

    def _on_connect_failed(self, event: events.UpstreamFailed) -> None:
        self._connecting = False
        self.info.upstream_transport_failure_reason = event.detail
        flags = FLAGS.get(event.reason)
        if flags is None and self._attempts < self._chain.proxy.max_connect_attempts:
            self._connect()
            return
        if flags is None:
            flags = Flags.UPSTREAM_CONNECTION_FAILURE | Flags.UPSTREAM_RETRY_LIMIT_EXCEEDED
        self.info.response_flags |= flags
        self._close(PeerType.LOCAL)

    def _on_upstream_data(self, data: bytes, end_of_stream: bool) -> None:
        self._up += data
        self._upstream_ended = end_of_stream
        self._pass_up(len(self._filters) - 1)
        if end_of_stream and self._end_sent_down and self._client_ended:
            self._close(PeerType.LOCAL)
        elif end_of_stream:
            self._close_if_upstream_is_over()

    def _pass_up(self, start: int) -> None:
        """Bring what there is of the upstream's bytes through the filters, from the last to the first."""
        if self._closing or self._end_sent_down or not (self._up or self._upstream_ended):
            return
        self._up_waits_at = None
        for index in range(start, -1, -1):
            filter = self._filters[index]
            if self._stops(filter.on_upstream_data(self._up, self._upstream_ended)):
                self._up_waits_at = filter
                return
        self._end_sent_down = self._upstream_ended
        data = bytes(self._up)
        self._up.clear()
        self.info.response_body_size += len(data)
        self._commands.append(do.SendDownstream(data, self._end_sent_down))

    def _close_if_upstream_is_over(self) -> None:
        """Both sides of the upstream's connection have ended: as in Envoy, that ends the client's, too."""
        if self._upstream_ended and self._end_sent_up:
            self._close(PeerType.LOCAL)

    # --- flow control -------------------------------------------------------------------------------------

    def _steer_reading(self) -> None:
        """Read exactly while there is room for what comes."""
        limit = self._chain.buffer_limit
        down = not self._connected or len(self._down) >= limit
        if down != self._down_paused and not self._client_ended:
            self._down_paused = down
            self._commands.append(do.PauseDownstream() if down else do.ResumeDownstream())
        up = len(self._up) >= limit
        if up != self._up_paused and not self._upstream_ended:
            self._up_paused = up
            self._commands.append(do.PauseUpstream() if up else do.ResumeUpstream())

    # --- the filters' side --------------------------------------------------------------------------------

    def ask(self, ask: Callable[[], None]) -> None:
        """Do something as soon as the running callback has returned."""
        if self.done or self._closing or self._closed_by is not None:
            return
        self._asks.append(ask)
        if len(self._asks) == 1 and not self._attended and self._wake is not None:
            self._wake(self)

    @property
    def pending(self) -> bool:
        """Whether a filter asked for something and `Resumed` has to be fed."""
        return bool(self._asks)

    def ask_to_close(self) -> None:
        """A filter wants the end of the connection."""
        self.ask(lambda: self._close(PeerType.LOCAL))
        self._closing = True

    def resume_downstream(self, filter: TcpFilter) -> None:
        """Go on behind a filter with the new connection or the client's bytes."""
        behind = self._filters.index(filter) + 1
        if behind <= self._opened:
            self._pass_down(behind)
            self._close_if_upstream_is_over()

    def resume_upstream(self, filter: TcpFilter) -> None:
        """Go on behind a filter with the upstream's bytes that wait there."""
        if self._up_waits_at is filter:
            self._pass_up(self._filters.index(filter) - 1)
            if self._end_sent_down and self._client_ended:
                self._close(PeerType.LOCAL)

    def waits_at(self, filter: TcpFilter) -> bool:
        """Whether something waits at this filter."""
        return filter in (self._down_waits_at, self._up_waits_at)

    # --- the end ------------------------------------------------------------------------------------------

    def _close(self, peer: PeerType) -> None:
        if self._closed_by is None:
            self._closed_by = peer
            self._closing = True

    def _finish(self, peer: PeerType) -> None:
        """Tell the filters in their order, each to its end; then let go of both connections."""
        self.done = True
        self._asks.clear()
        for filter in self._filters[: self._opened]:
            filter.on_downstream_connection_close(peer)
            filter.on_done()
            filter.on_log()
            filter.on_delete()
        commands = self._commands
        if not any(isinstance(one, do.CloseUpstream) for one in commands):
            commands.append(do.CloseUpstream())
        if not any(isinstance(one, do.CloseDownstream) for one in commands):
            commands.append(do.CloseDownstream())
        commands.append(do.ConnectionDone())
        self._down.clear()
        self._up.clear()


class _Callbacks:
    """`TcpFilterCallbacks` of one filter."""

    __slots__ = ("_stream", "filter")

    def __init__(self, stream: TcpStream) -> None:
        self._stream = stream
        self.filter: TcpFilter | None = None  # set as soon as the filter is made

    def continue_downstream(self) -> None:
        filter = self.filter
        if filter is not None:
            self._stream.ask(lambda: self._stream.resume_downstream(filter))

    def continue_upstream(self) -> None:
        filter = self.filter
        if filter is not None:
            self._stream.ask(lambda: self._stream.resume_upstream(filter))

    def close(self) -> None:
        self._stream.ask_to_close()

    @property
    def waiting(self) -> bool:
        return self.filter is not None and self._stream.waits_at(self.filter)
