"""Contexts: what host functions act on - the VM itself, a plugin's root context, an HTTP stream.

Source: proxy-wasm specification 0.2.1, "Contexts" and "HTTP streams"; which map and which buffer is available
in which phase is as measured on Envoy 1.40. A stream's maps and buffers are slots that a callback fills and
that are emptied when the phase is over, so availability is nothing but "is there something in the slot".
TCP connections have a context of their own (`tcp.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

from abi.proxy_wasm.deferred import ClearRouteCache, CloseStream, ContinueStream, LocalResponse
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, BufferType, MapType, Status, StreamType

if TYPE_CHECKING:
    from abi.proxy_wasm.filter_state import Declaration
    from abi.proxy_wasm.plugin import Plugin
    from abi.proxy_wasm.vm import Vm

NOTHING_DECLARED: Mapping[bytes, Declaration] = MappingProxyType({})

ABSENT_BUFFERS = frozenset((BufferType.HTTP_CALL_RESPONSE_BODY, BufferType.PLUGIN_CONFIGURATION))
"""Buffers that are NOT_FOUND outside their callback; all others are then empty."""

REQUEST_MAPS = (MapType.HTTP_REQUEST_HEADERS, MapType.HTTP_REQUEST_TRAILERS)
RESPONSE_MAPS = (MapType.HTTP_RESPONSE_HEADERS, MapType.HTTP_RESPONSE_TRAILERS)

HEADERS_ACTIONS = (
    Action.CONTINUE,
    Action.STOP_ALL_AND_WATERMARK,  # a plain PAUSE, unless the plugin allows STOP_ITERATION
    Action.CONTINUE,  # "continue and end stream": Envoy does not end it
    Action.STOP_ALL_AND_BUFFER,
    Action.STOP_ALL_AND_WATERMARK,
)
BODY_ACTIONS = (Action.CONTINUE, Action.STOP_AND_BUFFER, Action.STOP_AND_WATERMARK, Action.STOP_NO_BUFFER)
TRAILERS_ACTIONS = (Action.CONTINUE, Action.STOP_ITERATION)


class Context:
    """What every context has. This class itself is the VM's own context (id 0): start-up, allocator."""

    __slots__ = ("declared", "id", "log_prefix", "plugin", "vm")

    in_log = False
    """Whether this is a stream in `proxy_on_log`, where a missing map means a missing value."""

    info: StreamInfo | None = None
    """The exchange's facts; None outside of a stream."""

    def __init__(self, vm: Vm, context_id: int, plugin: Plugin | None, log_prefix: str) -> None:
        self.vm, self.id, self.plugin, self.log_prefix = vm, context_id, plugin, log_prefix
        self.declared: Mapping[bytes, Declaration] = NOTHING_DECLARED

    def readable_map(self, map_type: int) -> HeaderMap | None:
        """The map, if it can be read now: of an answer to a call, in the callback about it."""
        answer = self.plugin.answer if self.plugin is not None else None
        return None if answer is None else answer.maps.get(map_type)

    def writable_map(self, map_type: int, create: bool = True) -> HeaderMap | None:
        """The map, if it can be changed now. `create` makes trailers that may come into being now."""
        return None

    def buffer(self, buffer_type: int) -> bytes | bytearray | None:
        """The buffer: empty when it has nothing now, None when it does not exist now; bodies can change."""
        if buffer_type == BufferType.VM_CONFIGURATION:
            return self.vm.configuration
        answer = self.plugin.answer if self.plugin is not None else None
        if answer is not None and buffer_type in answer.buffers:
            return answer.buffers[buffer_type]
        return None if buffer_type in ABSENT_BUFFERS else b""

    def continue_stream(self, stream_type: StreamType) -> Status:
        return Status.OK

    def close_stream(self, stream_type: StreamType) -> None:
        """Nothing outside of a stream."""

    def clear_route_cache(self) -> None:
        """Nothing outside of a stream."""

    def send_local_response(
        self, status: int, details: bytes, body: bytes, headers: HeaderMap, grpc_status: int | None
    ) -> None:
        """Nothing outside of a stream."""


class RootContext(Context):
    """A plugin's own context: start, configuration, timer, end."""

    __slots__ = ("configuration",)

    def __init__(self, vm: Vm, context_id: int, plugin: Plugin, log_prefix: str) -> None:
        super().__init__(vm, context_id, plugin, log_prefix)
        self.configuration: bytes | None = None  # only while the guest is being configured

    def buffer(self, buffer_type: int) -> bytes | bytearray | None:
        if buffer_type == BufferType.PLUGIN_CONFIGURATION:
            return self.configuration
        return super().buffer(buffer_type)


class StreamContext(Context):
    """What contexts of exchanges and of connections have in common: when they begin and how they end."""

    __slots__ = ("_created", "_deleted", "info")

    plugin: Plugin

    def __init__(self, plugin: Plugin, info: StreamInfo | None = None) -> None:
        super().__init__(plugin.vm, 0, plugin, plugin.stream_log_prefix)
        self.info: StreamInfo = info if info is not None else StreamInfo()
        self._created = self._deleted = False

    def _begin(self) -> None:
        """Before every callback: the VM must be alive, and the guest must know the context."""
        if self._created:
            if self._deleted:
                raise RuntimeError(f"stream context {self.id} was deleted; no callback may follow")
            return
        self.vm.check_alive()
        self._created = True
        self.id = self.vm.new_context_id()
        self.vm.contexts[self.id] = self
        self.vm.run(self, "proxy_on_context_create", self.id, self.plugin.root.id)

    def _over(self) -> None:
        """Nothing can be read or changed any more."""

    def on_done(self) -> Action:
        """Before the end. A stream cannot delay it: what the guest returns does not matter."""
        if self._created:
            self._begin()
            self._over()
            self.vm.run(self, "proxy_on_done", self.id)
        return Action.CONTINUE

    def on_delete(self) -> Action:
        """The last callback; afterwards the guest's id means nothing any more."""
        if self._created and not self._deleted:
            self._begin()
            try:
                self.vm.run(self, "proxy_on_delete", self.id)
            finally:
                self._deleted = True
                self.vm.contexts.pop(self.id, None)
        return Action.CONTINUE


class HttpContext(StreamContext):
    """One HTTP exchange as one plugin sees it.

    The callbacks may be called in any order an exchange can have; each returns an `Action` and raises
    `PluginFailure` when the guest trapped or the VM was dead already. What else the guest asked for is in
    `plugin.vm.deferred` afterwards. The context exists for the guest from the first callback on.

    Used as a context manager it ends itself: `on_log`, `on_done`, `on_delete`.
    """

    __slots__ = (
        "_bodies",
        "_end_of_stream",
        "_kept",
        "_maps",
        "_response_started",
        "in_log",
        "local_response",
    )

    def __init__(self, plugin: Plugin, info: StreamInfo | None = None) -> None:
        super().__init__(plugin, info)
        self.in_log = False
        self.local_response: LocalResponse | None = None
        self._maps: dict[int, HeaderMap] = {}
        self._kept: dict[int, HeaderMap] = {}  # what was there when the guest answered by itself
        self._bodies: dict[int, bytearray] = {}
        self._end_of_stream = False
        self._response_started = False

    # --- what host functions ask -------------------------------------------------------------------------

    def readable_map(self, map_type: int) -> HeaderMap | None:
        fields = self._maps.get(map_type)
        return super().readable_map(map_type) if fields is None else fields

    def writable_map(self, map_type: int, create: bool = True) -> HeaderMap | None:
        if self.in_log:
            return self._kept.get(map_type)
        fields = self._maps.get(map_type)
        if fields is None and self._end_of_stream:
            # A message without trailers gets some when the guest writes them as its body ends.
            if map_type == MapType.HTTP_REQUEST_TRAILERS and BufferType.HTTP_REQUEST_BODY in self._bodies:
                fields = HeaderMap()
                if create:
                    self.info.request_trailers = self._maps[map_type] = fields
            elif map_type == MapType.HTTP_RESPONSE_TRAILERS and BufferType.HTTP_RESPONSE_BODY in self._bodies:
                fields = HeaderMap()
                if create:
                    self.info.response_trailers = self._maps[map_type] = fields
        return fields

    def buffer(self, buffer_type: int) -> bytes | bytearray | None:
        body = self._bodies.get(buffer_type)
        return super().buffer(buffer_type) if body is None else body

    def continue_stream(self, stream_type: StreamType) -> Status:
        if stream_type is StreamType.DOWNSTREAM:
            return Status.OK
        if stream_type is StreamType.HTTP_RESPONSE and not self._response_started:
            return Status.BAD_ARGUMENT  # Envoy crashes here
        self.vm.deferred.append(ContinueStream(self, stream_type))
        # As in Envoy, either kind takes the request's maps and body away for the rest of the callback.
        self.request_phase_over()
        return Status.OK

    def close_stream(self, stream_type: StreamType) -> None:
        if stream_type in (StreamType.HTTP_REQUEST, StreamType.HTTP_RESPONSE):
            self.vm.deferred.append(CloseStream(self, stream_type))

    def clear_route_cache(self) -> None:
        self.vm.deferred.append(ClearRouteCache(self))

    def send_local_response(
        self, status: int, details: bytes, body: bytes, headers: HeaderMap, grpc_status: int | None
    ) -> None:
        if self.local_response is None:
            self.local_response = LocalResponse(self, status, details, body, headers, grpc_status)
            self.vm.deferred.append(self.local_response)
            # For Envoy all that follows happens inside of this callback: its maps stay, in the log, too.
            self._kept.update(self._maps)

    # --- what the filter chain tells ----------------------------------------------------------------------

    def request_phase_over(self) -> None:
        """The request side went on: its maps and body are no longer the guest's to see."""
        for map_type in REQUEST_MAPS:
            self._maps.pop(map_type, None)
        self._bodies.pop(BufferType.HTTP_REQUEST_BODY, None)

    def response_phase_over(self) -> None:
        """The response side went on: its trailers and body are no longer the guest's to see.

        Headers that were held here stay: Envoy still shows them to the guest in later callbacks (measured),
        though changes come too late.
        """
        self._maps.pop(MapType.HTTP_RESPONSE_TRAILERS, None)
        self._bodies.pop(BufferType.HTTP_RESPONSE_BODY, None)

    def _over(self) -> None:
        self._maps.clear()
        self._bodies.clear()

    # --- callbacks ------------------------------------------------------------------------------------------

    def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action:
        """The request's head is here; `end_of_stream`: it has no body and no trailers."""
        self.info.request_headers = headers
        return self._on_headers("proxy_on_request_headers", REQUEST_MAPS[0], headers, end_of_stream)

    def on_request_body(self, body: bytearray, end_of_stream: bool) -> Action:
        """Bytes of the request's body; the guest may change them in place."""
        return self._on_body("proxy_on_request_body", BufferType.HTTP_REQUEST_BODY, body, end_of_stream)

    def on_request_trailers(self, trailers: HeaderMap) -> Action:
        self.info.request_trailers = trailers
        return self._on_trailers("proxy_on_request_trailers", REQUEST_MAPS[1], trailers)

    def on_response_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action:
        """The response's head is here, the upstream's or a local one."""
        self.info.response_headers = headers
        self._response_started = True
        self.local_response = None  # of the request; the response to it may be answered with another one
        return self._on_headers("proxy_on_response_headers", RESPONSE_MAPS[0], headers, end_of_stream)

    def on_response_body(self, body: bytearray, end_of_stream: bool) -> Action:
        """Bytes of the response's body; the guest may change them in place."""
        return self._on_body("proxy_on_response_body", BufferType.HTTP_RESPONSE_BODY, body, end_of_stream)

    def on_response_trailers(self, trailers: HeaderMap) -> Action:
        self.info.response_trailers = trailers
        return self._on_trailers("proxy_on_response_trailers", RESPONSE_MAPS[1], trailers)

    def on_request_metadata(self, entries: int) -> Action:
        """A METADATA frame of HTTP/2 came with the request. Guests are told the number of its entries and
        cannot read them (no map type exists for them); what they answer does not matter, as in Envoy.

        Before the headers nothing is told. For embedders that speak HTTP/2; our proxy does not, downstream.
        """
        return self._on_metadata("proxy_on_request_metadata", self._created, entries)

    def on_response_metadata(self, entries: int) -> Action:
        """A METADATA frame of HTTP/2 came with the response; see `on_request_metadata`."""
        return self._on_metadata("proxy_on_response_metadata", self._response_started, entries)

    def on_log(self) -> Action:
        """The exchange is over. Everything can be read once more, nothing changed."""
        self._begin()
        self._over()
        final = {
            MapType.HTTP_REQUEST_HEADERS: self.info.request_headers,
            MapType.HTTP_RESPONSE_HEADERS: self.info.response_headers,
            MapType.HTTP_RESPONSE_TRAILERS: self.info.response_trailers,
        }
        self._maps = {kind: fields for kind, fields in final.items() if fields is not None}
        self.in_log = True
        try:
            self.vm.run(self, "proxy_on_log", self.id)
        finally:
            self.in_log = False
            self._maps = {}
        return Action.CONTINUE

    def _on_headers(self, name: str, slot: int, headers: HeaderMap, end_of_stream: bool) -> Action:
        self._begin()
        self._maps[slot] = headers
        self._end_of_stream = end_of_stream
        vm = self.vm
        if vm.version.headers_tell_end_of_stream:
            result = vm.run(self, name, self.id, headers.line_count, int(end_of_stream))
        else:
            result = vm.run(self, name, self.id, headers.line_count)
        if result == 1 and (self.plugin.allow_on_headers_stop_iteration or vm.version.headers_stop_alone):
            return Action.STOP_ITERATION
        action = HEADERS_ACTIONS[min(result, 4)]
        if action is Action.CONTINUE and slot not in self._kept:
            self._maps.pop(slot, None)
        return action

    def _on_body(self, name: str, slot: int, body: bytearray, end_of_stream: bool) -> Action:
        self._begin()
        self._bodies[slot] = body
        self._end_of_stream = end_of_stream
        action = BODY_ACTIONS[min(self.vm.run(self, name, self.id, len(body), int(end_of_stream)), 3)]
        if action is Action.CONTINUE:
            self._bodies.pop(slot, None)
        return action

    def _on_trailers(self, name: str, slot: int, trailers: HeaderMap) -> Action:
        self._begin()
        self._maps[slot] = trailers
        action = TRAILERS_ACTIONS[min(self.vm.run(self, name, self.id, trailers.line_count), 1)]
        if action is Action.CONTINUE:
            self._maps.pop(slot, None)
        return action

    def _on_metadata(self, name: str, begun: bool, entries: int) -> Action:
        if begun:
            self._begin()
            self.vm.run(self, name, self.id, entries)
        return Action.CONTINUE

    # --- context manager ------------------------------------------------------------------------------------

    def __enter__(self) -> HttpContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.vm.failure is None and not self._deleted:
            self.on_log()
            self.on_done()
            self.on_delete()
