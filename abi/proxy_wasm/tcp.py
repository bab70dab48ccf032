"""`TcpContext`: one TCP connection, and the upstream's beside it, as one plugin sees them.

Source: proxy-wasm specification 0.2.1, "TCP streams"; which buffer is available when, what ends the
upstream's side for the guest, and the order at the end (done, log, delete) are as measured on Envoy 1.40.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from abi.proxy_wasm.contexts import StreamContext
from abi.proxy_wasm.deferred import CloseStream, ContinueStream
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, BufferType, PeerType, Status, StreamType

if TYPE_CHECKING:
    from abi.proxy_wasm.plugin import Plugin


class TcpContext(StreamContext):
    """The callbacks return CONTINUE or STOP_ITERATION and raise `PluginFailure` as all callbacks do.

    Data is handed over in a buffer that the guest may change in place and that it sees as long as its last
    callback about that direction asked to stop. Used as a context manager the context ends itself:
    `on_downstream_connection_close`, `on_done`, `on_log`, `on_delete`.
    """

    __slots__ = ("_data",)

    def __init__(self, plugin: Plugin, info: StreamInfo | None = None) -> None:
        super().__init__(plugin, info)
        self._data: dict[int, bytearray] = {}

    # --- what host functions ask -------------------------------------------------------------------------

    def buffer(self, buffer_type: int) -> bytes | bytearray | None:
        data = self._data.get(buffer_type)
        return super().buffer(buffer_type) if data is None else data

    def continue_stream(self, stream_type: StreamType) -> Status:
        if stream_type is StreamType.DOWNSTREAM:
            self.vm.deferred.append(ContinueStream(self, stream_type))
        return Status.OK

    def close_stream(self, stream_type: StreamType) -> None:
        if stream_type in (StreamType.DOWNSTREAM, StreamType.UPSTREAM):
            self.vm.deferred.append(CloseStream(self, stream_type))

    # --- callbacks ------------------------------------------------------------------------------------------

    def on_new_connection(self) -> Action:
        """A client has connected."""
        self._begin()
        return _action(self.vm.run(self, "proxy_on_new_connection", self.id))

    def on_downstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        """Bytes of the client; `end_of_stream`: there will be no more."""
        return self._on_data("proxy_on_downstream_data", BufferType.DOWNSTREAM_DATA, data, end_of_stream)

    def on_upstream_data(self, data: bytearray, end_of_stream: bool) -> Action:
        """Bytes of the upstream. Their end is also the upstream's close: the guest is told both."""
        action = self._on_data("proxy_on_upstream_data", BufferType.UPSTREAM_DATA, data, end_of_stream)
        if end_of_stream:
            self.vm.run(self, "proxy_on_upstream_connection_close", self.id, PeerType.UNKNOWN)
        return action

    def on_downstream_connection_close(self, peer: PeerType) -> Action:
        """The connection is over; `peer` says who closed it: LOCAL is the proxy."""
        self._begin()
        self._over()
        self.vm.run(self, "proxy_on_downstream_connection_close", self.id, peer)
        return Action.CONTINUE

    def on_log(self) -> Action:
        """After `on_done`, other than for HTTP."""
        if self._created:
            self._begin()
            self.vm.run(self, "proxy_on_log", self.id)
        return Action.CONTINUE

    def _on_data(self, name: str, slot: int, data: bytearray, end_of_stream: bool) -> Action:
        self._begin()
        self._data[slot] = data
        action = _action(self.vm.run(self, name, self.id, len(data), int(end_of_stream)))
        if action is Action.CONTINUE:
            del self._data[slot]
        return action

    def _over(self) -> None:
        self._data.clear()

    # --- context manager ------------------------------------------------------------------------------------

    def __enter__(self) -> TcpContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.vm.failure is None and self._created and not self._deleted:
            self.on_downstream_connection_close(PeerType.LOCAL)
            self.on_done()
            self.on_log()
            self.on_delete()


def _action(result: int) -> Action:
    """Only 0 means go on."""
    return Action.STOP_ITERATION if result else Action.CONTINUE
