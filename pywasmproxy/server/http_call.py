"""HTTP calls of guests: one request through a cluster's pool, its response collected, failures as Envoy's.

Source: Envoy 1.40 as measured (golden `http_call`): which fields the request gets, 503 and 504 in place of a
response that never began. A response that breaks off, or is too long, is a call without a response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from abi.proxy_wasm.deferred import CallOut, HttpCall
from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.headers import SERVICE_TIME, finish_call, prepare_response
from pywasmproxy.sansio.local_reply import ROUTE_TIMEOUT, LocalReply, is_grpc, render, upstream_failed
from pywasmproxy.server.callouts import MAX_COLLECTED, CallOuts, Starter
from pywasmproxy.server.codec import HeaderLines, ResponseHead
from pywasmproxy.server.exchange import upstream_lines
from pywasmproxy.server.patience import PatientTimer
from pywasmproxy.server.upstream import UpstreamRequest
from pywasmproxy.server.wire import UnsafeHeader, request_bytes

MAX_RESPONSE = 32 << 20
"""Bytes of one response's body (Envoy's `http.async_response_buffer_limit`)."""


class HttpCallRun:
    """One call under way; an `UpstreamHandler`."""

    def __init__(self, effect: HttpCall, outs: CallOuts) -> None:
        self._effect, self._outs = effect, outs
        self._cluster = outs.clusters[effect.cluster]
        self._request: UpstreamRequest | None = None
        self._response: HeaderMap | None = None
        self._body = bytearray()
        self._timer: PatientTimer | None = None
        self._method = effect.headers.first(b":method") or b""
        self._began = asyncio.get_running_loop().time()
        self._send()

    def _send(self) -> None:
        effect = self._effect
        finish_call(effect.headers, effect.timeout_ms)
        method, path, lines = upstream_lines(effect.headers)
        allowed = self._trailers
        trailers = effect.trailers.lines if allowed else []
        bare = not effect.body and not trailers
        lanes = self._cluster.http2
        try:
            if lanes is None:
                head, writer = request_bytes(lines, method, path, bare, allowed)
                request = UpstreamRequest(self._cluster, self, method, head, writer)
            else:
                scheme = b"https" if self._cluster.config.tls is not None else b"http"
                request = lanes.request(self, method, path, lines, scheme)
        except UnsafeHeader as error:
            # From the loop: nobody is answered while the call is being begun.
            asyncio.get_running_loop().call_soon(
                self.upstream_failed, UpstreamFailure.PROTOCOL_ERROR, f"not sent: {error}"
            )
            return
        self._request = request
        if effect.body:
            request.write(effect.body)
        request.end(trailers)
        if effect.timeout_ms:
            self._timer = PatientTimer(effect.timeout_ms / 1000, self._timed_out)
        request.start()
        request.flush()

    @property
    def _trailers(self) -> bool:
        """Whether trailers go both ways."""
        return self._cluster.config.http1.enable_trailers or self._cluster.http2 is not None

    # --- the calls' side ------------------------------------------------------------------------------------

    def perform(self, effect: CallOut) -> None:
        """Nothing more can be said about a call that is under way."""

    def cancel(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.reset()
        self._let_go()

    # --- the upstream request's side ------------------------------------------------------------------------

    def upstream_batch(self, begins: bool) -> None:
        """Nothing is written in reaction to what comes."""

    def upstream_connected(self, remote: str, local: str) -> None:
        """Guests do not ask which host it was."""

    def upstream_writable(self, writable: bool) -> None:
        """The request is complete and in memory; the socket takes it as it can."""

    def upstream_head(self, head: ResponseHead) -> None:
        if head.status >= 200:
            self._response = HeaderMap.adopt([(b":status", b"%d" % head.status), *head.headers])
            prepare_response(self._response)
            taken = asyncio.get_running_loop().time() - self._began
            self._response.set_in_place(SERVICE_TIME, b"%d" % (taken * 1000))

    def upstream_data(self, data: bytes, ends: bool) -> None:
        self._body += data
        self._outs.collected += len(data)
        if len(self._body) > MAX_RESPONSE or self._outs.collected > MAX_COLLECTED:
            self.cancel()
            self._fail()
        elif ends:
            self.upstream_end([])

    def upstream_end(self, trailers: HeaderLines) -> None:
        if self._response is None:
            return
        self._request = None
        wanted = trailers if self._trailers else []
        self._answer(self._response, bytes(self._body), HeaderMap(wanted) if wanted else None)

    def upstream_failed(self, failure: UpstreamFailure, detail: str) -> None:
        self._request = None
        name = self._effect.plugin.name
        self._outs.logger.debug(f"plugin {name}: call to {self._effect.cluster}: {failure.value}: {detail}")
        self._give_up(upstream_failed(failure, False))

    def _timed_out(self) -> None:
        self._timer = None
        self.cancel()
        self._give_up(ROUTE_TIMEOUT)

    # --- the end --------------------------------------------------------------------------------------------

    def _give_up(self, reply: LocalReply) -> None:
        """No (complete) response: what Envoy answers instead, if the response had not begun."""
        if self._response is not None:
            self._fail()
            return
        grpc = is_grpc(self._effect.headers)
        headers, body = render(reply, grpc=grpc, to_head=self._method == b"HEAD")
        self._answer(headers, body, None)

    def _answer(self, headers: HeaderMap, body: bytes, trailers: HeaderMap | None) -> None:
        effect = self._effect
        self._let_go()
        self._outs.answer(
            effect, lambda: effect.plugin.http_call_response(effect.token, headers, body, trailers)
        )

    def _fail(self) -> None:
        effect = self._effect
        self._let_go()
        self._outs.answer(effect, lambda: effect.plugin.http_call_failed(effect.token))

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outs.collected -= len(self._body)
        self._body = bytearray()


STARTERS: Mapping[type[CallOut], Starter] = {HttpCall: HttpCallRun}
