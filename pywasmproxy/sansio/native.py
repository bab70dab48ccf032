"""Filters in plain Python behind the same interface as guests: for tests, examples, and to explain guests.

    class AddHeader(NativeFilter):
        def on_response_headers(self, headers, end_of_stream):
            headers.add("x-served-by", "python")

A callback may return an `Action`, or nothing for CONTINUE. The class itself is what a `FilterChain` takes.
"""

from __future__ import annotations

from collections.abc import Iterable

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, StreamType
from pywasmproxy.sansio.filter import FilterCallbacks
from pywasmproxy.sansio.local_reply import LocalReply, unblanked


class NativeFilter:
    """Base class: override the callbacks that matter. One object per exchange.

    `info` has the facts of the exchange. Trailers for a message that has none are made by setting
    `info.request_trailers` (or `response_trailers`) in the body callback with `end_of_stream`.
    """

    def __init__(self, callbacks: FilterCallbacks, info: StreamInfo) -> None:
        self.callbacks, self.info = callbacks, info

    # --- to be overridden ---------------------------------------------------------------------------------

    def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action | None:
        """The request's head; `end_of_stream`: it is the whole request."""

    def on_request_body(self, body: bytearray, end_of_stream: bool) -> Action | None:
        """A piece of the request's body, or all that waited."""

    def on_request_trailers(self, trailers: HeaderMap) -> Action | None:
        """The request's trailers."""

    def on_response_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action | None:
        """The response's head."""

    def on_response_body(self, body: bytearray, end_of_stream: bool) -> Action | None:
        """A piece of the response's body, or all that waited."""

    def on_response_trailers(self, trailers: HeaderMap) -> Action | None:
        """The response's trailers."""

    def on_log(self) -> None:
        """The exchange is over."""

    def on_done(self) -> None:
        """Before the end."""

    def on_delete(self) -> None:
        """The last call."""

    def request_phase_over(self) -> None:
        """The request goes on after a pause here."""

    def response_phase_over(self) -> None:
        """The response goes on after a pause here."""

    # --- to be called -------------------------------------------------------------------------------------

    def continue_request(self) -> None:
        """Let the request go on that waits here."""
        self.callbacks.continue_stream(StreamType.HTTP_REQUEST)

    def continue_response(self) -> None:
        """Let the response go on that waits here."""
        self.callbacks.continue_stream(StreamType.HTTP_RESPONSE)

    def send_local_response(
        self,
        status: int,
        body: bytes = b"",
        headers: Iterable[tuple[str | bytes, str | bytes]] = (),
        *,
        details: str = "",
        grpc_status: int | None = None,
    ) -> None:
        """Answer the client from here."""
        self.callbacks.reply(
            LocalReply(
                status,
                body,
                details=unblanked(details),
                headers=HeaderMap(headers),
                grpc_status=grpc_status,
            )
        )

    def close_stream(self) -> None:
        """End the exchange without a response."""
        self.callbacks.close()
