"""HTTP/2 to upstreams: connections shared by streams, windows both ways, GOAWAY; those of gRPC calls, too.

RFC 9113, with prior knowledge or over TLS; the protocol itself is the library's (extra `h2`). Nothing here
calls a stream back while one of its methods is being called: what comes, comes from the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.connect import HTTP_2, reason
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.log import Logger
from pywasmproxy.server.patience import PatientTimer

MAX_CONNECTIONS = 64
"""HTTP/2 connections of one cluster; each carries many streams."""

STREAMS = 100
"""Streams of one connection, if the upstream does not want fewer."""

WINDOW = 1 << 20
"""Bytes that an upstream may send ahead of what has been taken, on a stream; on a connection twice that."""

MAX_FRAME = 16384
"""Largest frame that we take (RFC 9113, section 6.5.2: the default)."""

MAX_HEADERS = 1 << 16
"""Bytes of one list of headers that we take, as HTTP/2 counts them."""

MAX_UNSENT = 1 << 24
"""Bytes of answers to pings and the like that an upstream which reads nothing may leave here."""

_GOAWAY = 0x7
_REFUSED = 0x7
_CANCEL = 0x8
_HEAD = 9
_FIRST_WINDOW = 65535  # of a connection (RFC 9113, section 6.9.2)


def missing() -> str:
    """Why there is no HTTP/2 here; "" when there is."""
    try:
        import h2.connection  # noqa: F401 - only whether it is there
    except ImportError:
        return "gRPC calls need the package h2, which is not installed: pip install 'pywasmvm[h2]'"
    return ""


class Stream(Protocol):
    """One exchange on a connection. After `lost`, or the end of the response, nothing more comes."""

    stream_id: int
    connection: Connection | None

    def request_head(self) -> list[tuple[bytes, bytes]]: ...

    def next_piece(self, size: int) -> bytes:
        """At most `size` more bytes of what is to be sent."""

    @property
    def sent_all(self) -> bool:
        """Whether nothing is left to be sent, now or later, but for the trailers."""

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """What is sent last."""

    def response_head(self, lines: list[tuple[bytes, bytes]], ends: bool) -> None: ...

    def response_data(self, data: bytes, ends: bool) -> None: ...

    def response_trailers(self, lines: list[tuple[bytes, bytes]]) -> None: ...

    def lost(self, failure: UpstreamFailure) -> None: ...


class Keeper(Protocol):
    """Who has connections and gives them streams."""

    logger: Logger

    def forget(self, connection: Connection, /) -> None:
        """A connection takes no more streams."""


class Connection(asyncio.Protocol):
    """One HTTP/2 connection to an upstream host."""

    def __init__(self, pool: Keeper, cluster: Cluster, host: Host) -> None:
        import h2.config
        import h2.connection

        self.pool, self.cluster, self.host = pool, cluster, host
        self.most_streams, self.window, self.connection_window = STREAMS, WINDOW, 2 * WINDOW
        self.streams: dict[int, Stream] = {}
        self.waiting: list[Stream] = []
        self.draining = False
        self.detail = ""
        """Why it could not be made."""
        self._protocol = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None)
        )
        self._transport: asyncio.Transport | None = None
        self._raw = bytearray()
        self._ended: set[int] = set()  # our side of these streams
        self._ended_there: set[int] = set()
        self._blocked = False  # the socket takes no more for now
        self._handling = False
        self._idle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # --- opening --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect; streams wait meanwhile."""
        self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        failure = UpstreamFailure.CONNECT_FAILURE
        opening = asyncio.ensure_future(self.cluster.connector.connect(self.host, lambda: self, alpn=HTTP_2))
        timer = PatientTimer(self.cluster.config.connect_timeout, opening.cancel)
        try:
            await opening
            return
        except asyncio.CancelledError:
            failure = UpstreamFailure.CONNECT_TIMEOUT
        except OSError as error:
            self.detail = reason(error)
            self.pool.logger.debug(f"cluster {self.cluster.name}: cannot connect to {self.host}: {error}")
        finally:
            timer.cancel()
            self._task = None
        self._fail(failure)

    @property
    def has_room(self) -> bool:
        """Whether another stream can be carried."""
        return not self.draining and len(self.waiting) < self.room

    @property
    def room(self) -> int:
        """How many more streams the upstream takes."""
        limit = self.most_streams
        if self._transport is not None:
            limit = min(limit, self._protocol.remote_settings.max_concurrent_streams)
        return max(0, limit - len(self.streams))

    def add(self, stream: Stream) -> None:
        """Carry a stream, at once or as soon as there is a connection."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        stream.connection = self
        if self._transport is None:
            self.waiting.append(stream)
        else:
            self._begin(stream)
            self._write()

    def _begin(self, stream: Stream) -> None:
        from h2.exceptions import H2Error, NoAvailableStreamIDError

        try:
            stream.stream_id = self._protocol.get_next_available_stream_id()
            bare = stream.sent_all and not stream.trailers
            self._protocol.send_headers(stream.stream_id, stream.request_head(), end_stream=bare)
        except (H2Error, ValueError) as error:
            # A head that cannot be sent, or a connection that has had all its streams.
            if isinstance(error, NoAvailableStreamIDError):
                self.draining = True
                self.pool.forget(self)
            self.pool.logger.debug(f"cluster {self.cluster.name}: stream not begun: {error}")
            asyncio.get_running_loop().call_soon(self._not_begun, stream)
            return
        self.streams[stream.stream_id] = stream
        if bare:
            self._ended.add(stream.stream_id)
        self._pump(stream)

    def _not_begun(self, stream: Stream) -> None:
        if stream.connection is self:
            stream.connection = None
            stream.lost(UpstreamFailure.PROTOCOL_ERROR)
            self._rest()

    # --- a stream's side ------------------------------------------------------------------------------------

    def send(self, stream: Stream) -> None:
        """The stream has (more) to send."""
        if stream.stream_id in self.streams:
            self._pump(stream)
            self._write()

    def leave(self, stream: Stream) -> None:
        """The stream is over for us; the upstream is told when it is not over there."""
        stream.connection = None
        if stream in self.waiting:
            self.waiting.remove(stream)
        elif self.streams.pop(stream.stream_id, None) is not None:
            self._cancel(stream.stream_id)
            self._write()
        self._rest()

    def _cancel(self, number: int) -> None:
        from h2.exceptions import H2Error

        if number not in self._ended or number not in self._ended_there:
            with contextlib.suppress(H2Error):  # the upstream may have ended it just now
                self._protocol.reset_stream(number, _CANCEL)
        self._ended.discard(number)
        self._ended_there.discard(number)

    def close(self) -> None:
        """Close at once; streams are told nothing."""
        self.draining = True
        self.streams.clear()
        self.waiting.clear()
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _rest(self) -> None:
        """Nobody may need the connection now."""
        if self.streams or self.waiting or self._transport is None:
            return
        if self.draining:
            self._transport.close()
        elif self._idle is None and self.cluster.config.idle_timeout is not None:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self.cluster.config.idle_timeout, self._idle_too_long)

    def _idle_too_long(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _pump(self, stream: Stream) -> None:
        """Send of a stream what windows and socket let through."""
        from h2.exceptions import H2Error

        if stream.stream_id not in self._ended:
            with contextlib.suppress(H2Error):  # the upstream has reset it: that will be told in its turn
                self._send_pieces(stream)

    def _send_pieces(self, stream: Stream) -> None:
        number, protocol = stream.stream_id, self._protocol
        while not self._blocked:
            room = min(protocol.local_flow_control_window(number), protocol.max_outbound_frame_size)
            piece = stream.next_piece(room) if room > 0 else b""
            if stream.sent_all:
                self._ended.add(number)
                if not stream.trailers:
                    protocol.send_data(number, piece, end_stream=True)
                    return
                if piece:
                    protocol.send_data(number, piece)
                protocol.send_headers(number, stream.trailers, end_stream=True)
                return
            if not piece:
                return
            protocol.send_data(number, piece)
            self._write()

    def _write(self) -> None:
        transport = self._transport
        if transport is None or self._handling:
            return
        data = self._protocol.data_to_send()
        if data and not transport.is_closing():
            self._sent(len(data))
            transport.write(data)
            if transport.get_write_buffer_size() > MAX_UNSENT:
                transport.abort()

    def _sent(self, size: int) -> None:
        """For who counts bytes."""

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        from h2.settings import SettingCodes, Settings

        self._transport = cast(asyncio.Transport, transport)
        if self.draining:
            self._transport.abort()
            return
        wanted = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: self.window,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
        }
        self._protocol.local_settings = Settings(client=True, initial_values=wanted)
        self._protocol.initiate_connection()
        more = self.connection_window - _FIRST_WINDOW
        if more > 0:
            self._protocol.increment_flow_control_window(more)
        self._begin_waiting()
        self._write()

    def _begin_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        for stream in waiting:
            self._begin(stream)

    def data_received(self, data: bytes) -> None:
        from h2.exceptions import H2Error

        self._handling = True
        try:
            for part in self._parts(data):
                if isinstance(part, int):
                    self._going_away(part)
                    continue
                for event in self._protocol.receive_data(part):
                    self._handle(event)
        except H2Error as error:
            self.pool.logger.debug(f"cluster {self.cluster.name}: HTTP/2 error: {error}")
            self._handling = False
            self._write()
            self._fail(UpstreamFailure.PROTOCOL_ERROR)
            return
        finally:
            self._handling = False
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(UpstreamFailure.RESET)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._pump_all()

    # --- what comes -----------------------------------------------------------------------------------------

    def _parts(self, data: bytes) -> Iterator[bytes | int]:
        """Whole frames for the library; in place of a GOAWAY, which would make it refuse everything else, the
        last stream that the upstream still serves."""
        from h2.exceptions import FrameTooLargeError

        raw = self._raw
        raw += data
        begin = at = 0
        while len(raw) - at >= _HEAD:
            size = int.from_bytes(raw[at : at + 3], "big")
            if size > MAX_FRAME:
                # At once: the library would wait for all of it.
                raise FrameTooLargeError(f"a frame of {size} bytes")
            if len(raw) - at < _HEAD + size:
                break
            if raw[at + 3] == _GOAWAY and size >= 8:
                if at > begin:
                    yield bytes(raw[begin:at])
                yield int.from_bytes(raw[at + _HEAD : at + _HEAD + 4], "big") & 0x7FFF_FFFF
                begin = at + _HEAD + size
            at += _HEAD + size
        if at > begin:
            yield bytes(raw[begin:at])
        del raw[: max(at, begin)]

    def _going_away(self, last: int) -> None:
        """The upstream takes no new streams; those above `last` it has not looked at."""
        self.draining = True
        self.pool.forget(self)
        for number in [number for number in self.streams if number > last]:
            self._lost(number, UpstreamFailure.REMOTE_REFUSED)
        self._rest()

    def _lost(self, number: int, failure: UpstreamFailure) -> None:
        stream = self.streams.pop(number, None)
        self._ended.discard(number)
        self._ended_there.discard(number)
        if stream is not None:
            stream.connection = None
            stream.lost(failure)
            self._rest()

    def _handle(self, event: Any) -> None:
        from h2 import events

        if getattr(event, "stream_ended", None) is not None and event.stream_id in self.streams:
            self._ended_there.add(event.stream_id)
        match event:
            case events.ResponseReceived() | events.InformationalResponseReceived():
                if (stream := self.streams.get(event.stream_id)) is not None:
                    ends = getattr(event, "stream_ended", None) is not None
                    stream.response_head(event.headers, ends)
            case events.DataReceived():
                self._data(event)
            case events.TrailersReceived():
                if (stream := self.streams.get(event.stream_id)) is not None:
                    stream.response_trailers(event.headers)
            case events.StreamReset():
                refused = event.error_code == _REFUSED
                failure = UpstreamFailure.REMOTE_REFUSED if refused else UpstreamFailure.REMOTE_RESET
                self._lost(event.stream_id, failure)
            case events.WindowUpdated() | events.RemoteSettingsChanged():
                self._pump_all()

    def _data(self, event: Any) -> None:
        # Taken at once: what is kept of it has its own bound.
        self._protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if (stream := self.streams.get(event.stream_id)) is not None:
            stream.response_data(event.data, event.stream_ended is not None)

    def _pump_all(self) -> None:
        for stream in list(self.streams.values()):
            self._pump(stream)
        self._write()

    def _fail(self, failure: UpstreamFailure) -> None:
        """The connection is gone, and all that was on it."""
        self.draining = True
        self.pool.forget(self)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        streams = [*self.streams.values(), *self.waiting]
        self.streams.clear()
        self.waiting.clear()
        for stream in streams:
            if stream.connection is self:
                stream.connection = None
                stream.lost(failure)
        if self._transport is not None:
            self._transport.abort()


class Pool:
    """All HTTP/2 connections of one proxy."""

    def __init__(self, clusters: Mapping[str, Cluster], logger: Logger) -> None:
        self.clusters, self.logger = clusters, logger
        self._connections: dict[str, list[Connection]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._connections.values()))

    def open(self, cluster: Cluster, stream: Stream) -> None:
        """Find a connection for a stream, or make one."""
        loop = asyncio.get_running_loop()
        host = cluster.hosts.pick()
        if host is None:
            loop.call_soon(stream.lost, UpstreamFailure.NO_HEALTHY_UPSTREAM)
            return
        connections = self._connections.setdefault(cluster.name, [])
        for connection in connections:
            if connection.host == host and connection.has_room:
                connection.add(stream)
                return
        if len(connections) >= MAX_CONNECTIONS:
            loop.call_soon(stream.lost, UpstreamFailure.OVERFLOW)
            return
        connection = Connection(self, cluster, host)
        connections.append(connection)
        connection.add(stream)
        connection.open()

    def forget(self, connection: Connection) -> None:
        """A connection takes no more streams."""
        connections = self._connections.get(connection.cluster.name, [])
        if connection in connections:
            connections.remove(connection)

    def close(self) -> None:
        """Close all connections; streams are told nothing."""
        for connections in self._connections.values():
            for connection in connections:
                connection.close()
        self._connections.clear()
