"""Helpers for tests with real loopback sockets: scripted upstreams, raw clients, configurations as text.

Everything listens on 127.0.0.1 with a port the system chooses.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from abi.proxy_wasm.types import LogLevel
from pywasmproxy.server.log import Log
from pywasmproxy.server.proxy import Proxy, Server

Handler = Callable[["Visit"], Awaitable[None]]


@dataclass
class Visit:
    """One connection to a scripted upstream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: Upstream

    async def head(self) -> bytes:
        """The next request's head; EOFError when there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.upstream.heads.append(head)
        return head

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: head and body (decoded)."""
        head = await self.head()
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length:
            body = await self.reader.readexactly(int(length[1]))
        elif b"\r\ntransfer-encoding: chunked" in head:
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            trailers = await self.reader.readuntil(b"\r\n")
            while trailers[-4:] != b"\r\n\r\n" and trailers != b"\r\n":
                trailers += await self.reader.readuntil(b"\r\n")
            self.upstream.trailers.append(trailers)
        else:
            body = b""
        self.upstream.bodies.append(body)
        return head, body

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def reset(self) -> None:
        """Close with a TCP reset."""
        import socket
        import struct

        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Upstream:
    """An upstream whose connections are served by a handler; errors of peers that go away are expected."""

    handler: Handler
    port: int = 0
    visits: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    trailers: list[bytes] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        task = asyncio.current_task()
        if task is not None:
            self.tasks.add(task)
        try:
            with contextlib.suppress(EOFError, ConnectionError, asyncio.CancelledError):
                await self.handler(Visit(reader, writer, self))
        finally:
            writer.close()
            self.tasks.discard(task)  # type: ignore[arg-type]


def answer(body: bytes = b"Hello World!", fields: bytes = b"") -> bytes:
    """A plain 200 with a content-length."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), fields, body)


def telling(body: bytes) -> Handler:
    """Answers everything with this body."""

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(answer(body))

    return handler


hello = telling(b"Hello World!")


async def echo(visit: Visit) -> None:
    """Answers with what it got: request line, then body."""
    while True:
        head, body = await visit.request()
        visit.send(answer(head.split(b"\r\n")[0] + b"|" + body))


@contextlib.asynccontextmanager
async def upstream(handler: Handler = hello) -> AsyncIterator[Upstream]:
    """A running scripted upstream."""
    one = Upstream(handler)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, limit=1 << 22, backlog=1024)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for task in list(one.tasks):
            task.cancel()
        await asyncio.gather(*one.tasks, return_exceptions=True)


@dataclass
class Response:
    """What a client got."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = True
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if len(values) == 1 else None


class Client:
    """A raw HTTP/1.1 client on one connection. Every wait is bounded: a hang is a failure.

    The bound leaves a busy machine time, and is less than what ends a hang from inside: 10 s for a response
    that is too short, 15 s for a route.
    """

    LIMIT = 9.0

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 22))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self, *, to_head: bool = False) -> Response:
        """The next response (interim ones, too). EOFError if the connection ends before a head."""
        async with asyncio.timeout(self.LIMIT):
            return await self._response(to_head)

    async def _response(self, to_head: bool) -> Response:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        pairs = [line.split(": ", 1) for line in lines]
        response = Response(int(start.split(" ")[1]), [(name, value) for name, value in pairs])
        if to_head or response.status in (204, 304) or response.status < 200:
            return response
        try:
            length = response.one("content-length")
            if length is not None:
                response.body = await self.reader.readexactly(int(length))
            elif response.one("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    response.body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                    name, value = line.decode("latin-1").rstrip().split(": ", 1)
                    response.trailers.append((name, value))
            else:
                response.body = await self.reader.read()
        except asyncio.IncompleteReadError as error:
            response.body += error.partial
            response.complete = False
        except ConnectionError:
            response.complete = False
        return response

    async def get(self, path: str = "/", fields: bytes = b"") -> Response:
        self.send(b"GET %b HTTP/1.1\r\nhost: a.test\r\n%b\r\n" % (path.encode(), fields))
        return await self.response()

    async def post(self, path: str, body: bytes, fields: bytes = b"") -> Response:
        head = b"POST %b HTTP/1.1\r\nhost: a.test\r\ncontent-length: %d\r\n%b\r\n" % (
            path.encode(),
            len(body),
            fields,
        )
        self.send(head + body)
        return await self.response()

    async def closed(self) -> bool:
        """Whether the proxy closes the connection without sending more; this side then closes, too."""
        async with asyncio.timeout(self.LIMIT):
            try:
                ended = await self.reader.read(1) == b""
            except ConnectionError:
                return True
        if ended:  # the proxy waits for that before it lets go (`delayed_close_timeout`)
            self.close()
        return ended

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

LISTENER = """
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {hcm}
          stat_prefix: test
{options}
          route_config:
            name: local_route
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
{routes}
          http_filters:
{filters}
          - name: envoy.filters.http.router
            typed_config: {{}}
"""

CLUSTER = """
  - name: {name}
    type: {kind}
    connect_timeout: {connect_timeout}
{options}
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
{endpoints}
"""

ENDPOINT = "        - endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}"


def indent(lines: str, by: int) -> str:
    return "\n".join(" " * by + line for line in lines.strip("\n").split("\n")) if lines.strip() else ""


def listener(
    routes: str = '- {match: {prefix: "/"}, route: {cluster: up}}',
    *,
    name: str = "main",
    filters: str = "",
    options: str = "",
    port: int = 0,
) -> str:
    return LISTENER.format(
        name=name,
        port=port,
        hcm=HCM,
        routes=indent(routes, 14),
        filters=indent(filters, 10),
        options=indent(options, 10),
    )


def cluster(
    *ports: int,
    name: str = "up",
    kind: str = "STATIC",
    host: str = "127.0.0.1",
    connect_timeout: str = "1s",
    options: str = "",
) -> str:
    return CLUSTER.format(
        name=name,
        kind=kind,
        connect_timeout=connect_timeout,
        options=indent(options, 4),
        endpoints="\n".join(ENDPOINT.format(host=host, port=port) for port in ports),
    )


def bootstrap(*listeners: str, clusters: str = "", node: str = "") -> str:
    resources = "static_resources:\n  listeners:" + "".join(listeners)
    if clusters:
        resources += "  clusters:" + clusters
    return (f"node: {node}\n" if node else "") + resources


@dataclass
class Lines:
    """A log in memory."""

    text: list[str] = field(default_factory=list)

    def log(self, level: LogLevel = LogLevel.DEBUG) -> Log:
        return Log(level, sink=self.text.append)

    def __contains__(self, part: str) -> bool:
        return any(part in line for line in self.text)

    def errors(self) -> list[str]:
        return [line for line in self.text if "][error][" in line or "][critical][" in line]


@contextlib.asynccontextmanager
async def proxy(text: str, *, log: Log | None = None, codec: str | None = None) -> AsyncIterator[Server]:
    """A running proxy; afterwards nothing may be left of any exchange."""
    async with Proxy.from_text(text, log=log or Lines().log(), codec=codec).running() as server:
        yield server
        await settled(server)
    assert server.connections == 0
    assert all(not one.connections and not one.connecting for one in server.clusters.values())


async def settled(server: Server) -> None:
    """Wait until no exchange is left; a leaked one is a failure."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while server.streams:
                await asyncio.sleep(0.01)
    assert server.streams == 0


ON_DEMAND = "3600s"
"""An interval of outlier detection that ends when a test says so (`interval_ends`)."""


def interval_ends(server: Server, cluster: str = "up") -> None:
    """The end of an interval of a cluster's outlier detection, whenever that would be."""
    outliers = server.clusters[cluster].outliers
    assert outliers is not None
    outliers.close()
    outliers._look()


def port_of(server: Server, name: str = "main") -> int:
    return server.addresses[name].port
