"""What a filter is to the chain, and what the chain is to a filter.

`HttpFilter` has the callbacks of proxy-wasm's HTTP contexts; guests (`wasm.py`) and plain Python
(`native.py`) stand behind it. `FilterCallbacks` is the other direction: continue, answer, close, choose the
route again; that takes effect after the filter's callback has returned, in the order of asking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, StreamType
from pywasmproxy.sansio.local_reply import LocalReply


class HttpFilter(Protocol):
    """One filter in one exchange. Headers and bodies may be edited in place; None means CONTINUE.

    A body that waits for this filter (see `Action`) is the very object the callback got. The order of calls:
    request headers, body*, trailers?; response headers, body*, trailers?; log, done, delete. A request that
    is answered on its way never reaches the later filters, which still log.
    """

    def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action | None: ...
    def on_request_body(self, body: bytearray, end_of_stream: bool) -> Action | None: ...
    def on_request_trailers(self, trailers: HeaderMap) -> Action | None: ...
    def on_response_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action | None: ...
    def on_response_body(self, body: bytearray, end_of_stream: bool) -> Action | None: ...
    def on_response_trailers(self, trailers: HeaderMap) -> Action | None: ...

    def on_log(self) -> object:
        """The exchange is over; everything known about it is in its StreamInfo."""

    def on_done(self) -> object:
        """Before the end."""

    def on_delete(self) -> object:
        """The last call."""

    def request_phase_over(self) -> None:
        """The request goes on after a pause here."""

    def response_phase_over(self) -> None:
        """The response goes on after a pause here."""


class FilterCallbacks(Protocol):
    """What a filter may ask of its exchange, at any time, also from outside of its callbacks."""

    def continue_stream(self, stream_type: StreamType) -> None:
        """Go on with the request or response that waits at this filter; else nothing happens."""

    def reply(self, reply: LocalReply) -> None:
        """Answer the client from here. The first answer wins; one after the response's head cuts it off."""

    def close(self) -> None:
        """End the exchange without (the rest of) a response."""

    def clear_route_cache(self) -> None:
        """Choose the route again for the request's headers as they are."""

    def inject_response_body(self, data: bytes, end_of_stream: bool) -> None:
        """Send bytes to the client from this filter on: its own body callback does not see them, the filters
        behind it do. What waits here stays; a head that waits goes ahead. With `end_of_stream` the response
        is complete. Ignored before there is a response, and after its end."""

    def override_host(self, address: str) -> None:
        """Let the request go to this host (`ip:port`) of its cluster; to any when it has no such host.

        It counts at once.
        """

    def keep_route(self, headers: HeaderMap) -> None:
        """Let the request go where these headers of its lead, whatever filters make of them; the first call
        counts, at once."""

    def limit_buffer(self, stream_type: StreamType, size: int) -> None:
        """Let so many bytes of the request's (or response's) body wait for filters, whatever the listener's
        limit is."""

    @property
    def waiting(self) -> bool:
        """Whether the request or the response waits at this filter."""


FilterFactory: TypeAlias = Callable[[FilterCallbacks, StreamInfo], "HttpFilter | None"]
"""Makes the filter of one exchange; None leaves the filter out of it."""
