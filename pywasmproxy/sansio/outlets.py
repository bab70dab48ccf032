"""Where messages go behind the filters: the request towards its upstream, the response towards the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import local_reply as local

if TYPE_CHECKING:
    from pywasmproxy.sansio.stream import HttpStream


class ToUpstream:
    """The `Outlet` of the request."""

    __slots__ = ("_stream",)

    def __init__(self, stream: HttpStream) -> None:
        self._stream = stream

    @property
    def interrupted(self) -> bool:
        return self._stream.interrupted

    def emit_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
        self._stream.route_request(headers, end_of_stream)

    def emit_body(self, data: bytes, end_of_stream: bool) -> None:
        self._stream.upload(data, end_of_stream)

    def emit_trailers(self, trailers: HeaderMap) -> None:
        self._stream.upload_trailers(trailers)

    def too_much(self) -> None:
        self._stream.asks.put(local.REQUEST_TOO_LARGE)

    def throttle(self, held: bool) -> None:
        self._stream.command(do.PauseRequest() if held else do.ResumeRequest())


class ToClient:
    """The `Outlet` of the response."""

    __slots__ = ("_stream",)

    def __init__(self, stream: HttpStream) -> None:
        self._stream = stream

    @property
    def interrupted(self) -> bool:
        return self._stream.interrupted

    def emit_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
        self._stream.send_response(headers, end_of_stream)

    def emit_body(self, data: bytes, end_of_stream: bool) -> None:
        self._stream.download(data, end_of_stream)

    def emit_trailers(self, trailers: HeaderMap) -> None:
        self._stream.download_trailers(trailers)

    def too_much(self) -> None:
        self._stream.asks.put(local.RESPONSE_TOO_LARGE)

    def throttle(self, held: bool) -> None:
        self._stream.command(do.PauseResponse() if held else do.ResumeResponse())
