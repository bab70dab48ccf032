"""gRPC calls and streams of guests on HTTP/2 connections to the clusters' hosts.

What is sent and what the guest is told is the core's business (`pywasmproxy.sansio.grpc`); here is time, and
what waits until it can be sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from functools import partial

from abi.proxy_wasm.deferred import CallOut, GrpcCall, GrpcClose, GrpcSend, GrpcStream
from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio import grpc
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.headers import SERVICE_TIME
from pywasmproxy.server.callouts import MAX_COLLECTED, CallOuts, Starter
from pywasmproxy.server.http2 import Connection, Pool
from pywasmproxy.server.patience import PatientTimer

MAX_MESSAGE = 32 << 20
"""Bytes of one message that comes back."""


class GrpcRun:
    """One call or stream under way; a `Stream` of an HTTP/2 connection."""

    def __init__(self, effect: GrpcCall | GrpcStream, outs: CallOuts) -> None:
        self.stream_id = 0
        self.connection: Connection | None = None
        self._effect, self._outs = effect, outs
        unary = isinstance(effect, GrpcCall)
        limit = min(MAX_MESSAGE, effect.target.max_receive or MAX_MESSAGE)
        self._reception = grpc.Reception(unary=unary, limit=limit)
        self._out: deque[tuple[memoryview, GrpcSend | None]] = deque()
        self._ended = False  # nothing more will be sent
        self._over = False
        self._collected = 0
        self._began = asyncio.get_running_loop().time()
        self._timer: PatientTimer | None = None
        if isinstance(effect, GrpcCall):
            self._out.append((memoryview(grpc.framed(effect.message)), None))
            self._ended = True
            if effect.timeout_ms:
                self._timer = PatientTimer(effect.timeout_ms / 1000, self._timed_out)
        cluster = outs.clusters[effect.target.cluster]
        outs.keep(Pool, lambda: Pool(outs.clusters, outs.logger)).open(cluster, self)

    # --- the calls' side ------------------------------------------------------------------------------------

    def perform(self, effect: CallOut) -> None:
        match effect:
            case GrpcSend():
                self._out.append((memoryview(grpc.framed(effect.message)), effect))
                self._ended = self._ended or effect.end_of_stream
            case GrpcClose():
                self._ended = True
        if self.connection is not None:
            self.connection.send(self)

    def cancel(self) -> None:
        self._over = True
        self._out.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outs.collected -= self._collected
        self._collected = 0
        connection = self.connection
        if connection is not None:
            connection.leave(self)

    # --- the connection's side ------------------------------------------------------------------------------

    def request_head(self) -> list[tuple[bytes, bytes]]:
        return grpc.request_headers(self._effect)

    def next_piece(self, size: int) -> bytes:
        if not self._out:
            return b""
        piece, effect = self._out[0]
        taken = bytes(piece[:size])
        if size < len(piece):
            self._out[0] = piece[size:], effect
        else:
            self._out.popleft()
            if effect is not None:
                effect.plugin.grpc_sent(effect)
        return taken

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []  # clients send none

    @property
    def sent_all(self) -> bool:
        return self._ended and not self._out

    def response_head(self, lines: list[tuple[bytes, bytes]], ends: bool) -> None:
        if not ends and lines[0][1][:1] == b"1":
            return  # an interim response
        headers = HeaderMap.adopt(lines)
        if self.sent_all:
            taken = asyncio.get_running_loop().time() - self._began
            headers.set_in_place(SERVICE_TIME, b"%d" % (taken * 1000))
        self._tell(self._reception.headers(headers, ends))

    def response_data(self, data: bytes, ends: bool) -> None:
        told = self._reception.data(data, ends)
        self._outs.collected += self._reception.kept - self._collected
        self._collected = self._reception.kept
        if self._outs.collected > MAX_COLLECTED:
            told = [*told, *self._reception.failed(UpstreamFailure.OVERFLOW)]
        self._tell(told)

    def response_trailers(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._tell(self._reception.trailers(HeaderMap.adopt(lines)))

    def lost(self, failure: UpstreamFailure) -> None:
        self._tell(self._reception.failed(failure))

    def _timed_out(self) -> None:
        self._timer = None
        self._tell(self._reception.timed_out())

    # --- the guest's side -----------------------------------------------------------------------------------

    def _tell(self, told: list[grpc.Told]) -> None:
        """Bring what came to the plugin; a guest may give the call up at any of it."""
        plugin, token = self._effect.plugin, self._effect.token
        done = self._reception.done
        for one in told:
            if self._over:
                return
            last = done and one is told[-1]
            if last:
                self.cancel()  # our side of it
            match one:
                case grpc.InitialMetadata(metadata):
                    callback = partial(plugin.grpc_initial_metadata, token, metadata)
                case grpc.Message(data):
                    callback = partial(plugin.grpc_message, token, data)
                case grpc.TrailingMetadata(metadata):
                    callback = partial(plugin.grpc_trailing_metadata, token, metadata)
                case grpc.Closed(status, message):
                    callback = partial(plugin.grpc_closed, token, status, message)
            self._outs.answer(self._effect, callback, ends=last)


STARTERS: Mapping[type[CallOut], Starter] = {GrpcCall: GrpcRun, GrpcStream: GrpcRun}
