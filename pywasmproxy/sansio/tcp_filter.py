"""Filters of TCP connections: what they are to the chain, and guests as such.

Source: Envoy 1.40 as measured (tests/replay/golden/tcp_streams.json). A guest that traps closes the
connection (FAIL_CLOSED, FAIL_OPEN, FAIL_RELOAD) or is passed by from then on (`fail_open: true`); later
connections are closed at once, skip the filter, or get a new VM, as HTTP's exchanges do (`wasm.py`).

On purpose unlike Envoy: a guest that closes in `proxy_on_context_create` is told of the end all the same; no
callback follows `proxy_on_delete` (Envoy: `proxy_on_upstream_connection_close`, when the guest closes in its
last `proxy_on_upstream_data`); what waits for a guest that dies elsewhere does not wait for the next byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from abi.proxy_wasm.deferred import CloseStream, ContinueStream, Deferred
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.tcp import TcpContext
from abi.proxy_wasm.types import Action, PeerType
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.sansio.wasm import Guest, GuestFactory


class TcpFilter(Protocol):
    """One filter on one connection. Data may be edited in place; None means CONTINUE, any pause means stop.

    Data that was stopped stays where it is: the next call, when more has come, has all of it. The order of
    calls: new connection; downstream and upstream data*; downstream connection close, done, log, delete.
    """

    def on_new_connection(self) -> Action | None: ...
    def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> Action | None: ...
    def on_upstream_data(self, data: bytearray, end_of_stream: bool) -> Action | None: ...

    def on_downstream_connection_close(self, peer: PeerType) -> object:
        """The connection is over; `peer` says who closed it."""

    def on_done(self) -> object:
        """Before the end."""

    def on_log(self) -> object:
        """Everything known about the connection is in its StreamInfo."""

    def on_delete(self) -> object:
        """The last call."""


class TcpFilterCallbacks(Protocol):
    """What a filter may ask of its connection, at any time, also from outside of its callbacks."""

    def continue_downstream(self) -> None:
        """Go on behind this filter: with the new connection, or with the client's data that waits."""

    def continue_upstream(self) -> None:
        """Go on behind this filter with the upstream's data that waits. Guests cannot ask for this."""

    def close(self) -> None:
        """Close the connection after what has been sent is out."""

    @property
    def waiting(self) -> bool:
        """Whether something waits at this filter."""


TcpFilterFactory: TypeAlias = Callable[[TcpFilterCallbacks, StreamInfo], "TcpFilter | None"]
"""Makes the filter of one connection; None leaves the filter out of it."""


class NativeTcpFilter:
    """Base class for filters in plain Python: override the callbacks that matter."""

    def __init__(self, callbacks: TcpFilterCallbacks, info: StreamInfo) -> None:
        self.callbacks, self.info = callbacks, info

    def on_new_connection(self) -> Action | None:
        """A client has connected."""

    def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> Action | None:
        """Bytes of the client."""

    def on_upstream_data(self, data: bytearray, end_of_stream: bool) -> Action | None:
        """Bytes of the upstream."""

    def on_downstream_connection_close(self, peer: PeerType) -> None:
        """The connection is over."""

    def on_done(self) -> None:
        """Before the end."""

    def on_log(self) -> None:
        """After `on_done`."""

    def on_delete(self) -> None:
        """The last call."""


class WasmTcpFilter(Guest):
    """One connection as one plugin sees it."""

    __slots__ = ("_callbacks", "_fail_open")

    _context: TcpContext

    def __init__(
        self,
        plugin: Plugin,
        dispatcher: Dispatcher,
        callbacks: TcpFilterCallbacks,
        info: StreamInfo,
        *,
        fail_open: bool = False,
    ) -> None:
        super().__init__(dispatcher)
        self._context = plugin.tcp_stream(info)
        self._callbacks, self._fail_open = callbacks, fail_open

    def on_new_connection(self) -> Action:
        return self._run(self._context.on_new_connection)

    def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        return self._run(lambda: self._context.on_downstream_data(data, end_of_stream))

    def on_upstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        return self._run(lambda: self._context.on_upstream_data(data, end_of_stream))

    def on_downstream_connection_close(self, peer: PeerType) -> None:
        self._run(lambda: self._context.on_downstream_connection_close(peer))

    def on_done(self) -> None:
        self._run(self._context.on_done)

    def on_log(self) -> None:
        self._run(self._context.on_log)

    def on_delete(self) -> None:
        self._run(self._context.on_delete)
        self._dispatcher.remove(self._context)

    def absorb(self, effect: Deferred) -> None:
        match effect:
            case ContinueStream():
                self._callbacks.continue_downstream()
            case CloseStream():
                self._callbacks.close()

    def vm_died(self) -> None:
        if not self._dead and self._callbacks.waiting:
            self._fail()

    def _fail(self) -> Action:
        self._dead = True
        if self._fail_open:
            self._callbacks.continue_downstream()
            self._callbacks.continue_upstream()
            return Action.CONTINUE
        self._callbacks.close()
        return Action.STOP_ITERATION


class FailedTcpFilter(NativeTcpFilter):
    """Stands in for a guest that is dead already when the client connects: no guest code, only the close."""

    def on_new_connection(self) -> Action:
        self.callbacks.close()
        return Action.STOP_ITERATION


class WasmTcpFilterFactory(GuestFactory):
    """Makes a plugin's filters, one per connection: a member of `TcpChain.factories`."""

    def __call__(self, callbacks: TcpFilterCallbacks, info: StreamInfo) -> TcpFilter | None:
        plugin = self._current()
        if plugin is not None:
            return WasmTcpFilter(plugin, self._dispatcher, callbacks, info, fail_open=self._fail_open)
        return None if self._left_out else FailedTcpFilter(callbacks, info)
