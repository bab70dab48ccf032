"""A scripted HTTP/2 upstream: a handler gets every request and says what is sent back, frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from pywasmproxy.sansio.grpc import framed

HEAD = [(":status", "200"), ("content-type", "application/grpc")]


class Visit(asyncio.Protocol):
    """One connection to the upstream."""

    def __init__(self, upstream: H2Upstream) -> None:
        self.upstream = upstream
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.transport: asyncio.Transport
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.reads = True
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.upstream.visits.append(self)
        self.protocol.initiate_connection()
        if self.upstream.settings:
            self.protocol.update_settings(dict(self.upstream.settings))
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.protocol.receive_data(data):
                self._handle(event)
        except h2.exceptions.ProtocolError:
            self.transport.abort()
        self.flush()

    def _handle(self, event: h2.events.Event) -> None:
        script = self.upstream.script
        match event:
            case h2.events.RequestReceived():
                self.heads[event.stream_id] = {bytes(n): bytes(v) for n, v in event.headers}
                self.bodies[event.stream_id] = b""
                script(self, event.stream_id, "head")
            case h2.events.DataReceived():
                self.bodies[event.stream_id] += event.data
                if self.reads:
                    self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                script(self, event.stream_id, "end" if event.stream_ended else "data")
            case h2.events.StreamReset():
                self.upstream.resets.append((event.stream_id, event.error_code))
                script(self, event.stream_id, "reset")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def flush(self) -> None:
        self.transport.write(self.protocol.data_to_send())

    # --- what scripts do ------------------------------------------------------------------------------------

    def head(self, number: int, *, ends: bool = False) -> None:
        self.protocol.send_headers(number, HEAD, end_stream=ends)

    def message(self, number: int, message: bytes) -> None:
        raw = framed(message)
        for at in range(0, len(raw), 16384):
            self.protocol.send_data(number, raw[at : at + 16384])

    def end(self, number: int, status: int = 0) -> None:
        self.protocol.send_headers(number, [("grpc-status", str(status))], end_stream=True)

    def answer(self, number: int, message: bytes) -> None:
        """A whole response."""
        self.head(number)
        self.message(number, message)
        self.end(number)
        self.flush()

    def go_away(self, last: int) -> None:
        """A GOAWAY frame, past the library, which would end the connection for itself."""
        self.flush()
        self.transport.write(b"\0\0\x08\x07\0" + bytes(4) + last.to_bytes(4, "big") + bytes(4))


Script = Callable[[Visit, int, str], None]
"""Gets the connection, the stream's number, and what came: `head`, `data`, `end` or `reset`."""


@dataclass
class H2Upstream:
    script: Script
    settings: Mapping[int, int] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    resets: list[tuple[int, int]] = field(default_factory=list)
    port: int = 0


@contextlib.asynccontextmanager
async def h2_upstream(
    script: Script, settings: Mapping[int, int] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[H2Upstream]:
    """A running one."""
    one = H2Upstream(script, settings or {})
    server = await asyncio.get_running_loop().create_server(lambda: Visit(one), "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for visit in one.visits:
            visit.transport.abort()
