"""Whole configurations side by side: one proxy after the other gets the same one, with the same hosts.

    results = await beside(configuration, talk, folder)

`configuration` makes the configuration, a dictionary, for a port to listen on; `talk` asks the proxy that
serves it and gives back whatever is to be the same. Hosts tell in their answers who they are and what they
were asked, so what the upstream sees is in what the client gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.replay import proxy

T = TypeVar("T")

TYPES = "type.googleapis.com/envoy"
ROUTER = {
    "name": "envoy.filters.http.router",
    # Without the fields in which times are: their sizes differ.
    "typed_config": {
        "@type": f"{TYPES}.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": True,
    },
}
MANAGER = f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
FILE_LOG = f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog"


@dataclass
class Host:
    """An upstream: says its name and what it was asked, as JSON. `status` is that of all it answers, but of
    `/health`, which has its own. One that `holds` does not answer; `held` counts what waits."""

    name: str
    tls: ssl.SSLContext | None = None
    status: int = 200
    health: int = 200
    port: int = 0
    checks: int = 0
    holds: bool = False
    held: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Host]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        await reader.readexactly(int(fields.get("content-length", 0)))
        path, status = first.split(" ")[1], self.status
        if path == "/health":
            self.checks += 1
            status = self.health
        elif self.holds:
            self.held += 1
            try:
                await reader.read()  # until the other end gives up
            finally:
                self.held -= 1
            raise EOFError
        peer = writer.get_extra_info("peercert") or {}
        told = {"host": self.name, "path": path, "headers": fields, "peer": peer.get("subjectAltName", ())}
        body = json.dumps(told).encode()
        head = f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\nx-host: {self.name}\r\n\r\n"
        writer.write(head.encode() + body)


@contextlib.asynccontextmanager
async def hosts(*names: str) -> AsyncIterator[list[Host]]:
    """Hosts of these names."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Host(name).running()) for name in names]


@dataclass
class Answer:
    """What a client got; `told` is what the host said, where it was one that answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        return json.loads(self.body) if "x-host" in self.headers else {}

    @property
    def host(self) -> str:
        return self.headers.get("x-host", "")


async def ask(
    port: int,
    path: str = "/",
    fields: dict[str, str] | None = None,
    *,
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
) -> Answer:
    """One request on a connection of its own. OSError, EOFError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        lines = {"host": "a.test", "content-length": str(len(body)), **(fields or {})}
        head = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
        writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        first, *answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        found = dict(line.split(": ", 1) for line in answered if line)
        content = await reader.readexactly(int(found.get("content-length", 0)))
        return Answer(int(first.split(" ")[1]), found, content)
    finally:
        writer.close()


def manager(routes: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A connection manager as a network filter."""
    virtual_host = {"name": "all", "domains": ["*"], "routes": routes, **fields.pop("virtual_host", {})}
    config = {
        "@type": MANAGER,
        "stat_prefix": "s",
        "route_config": {"name": "routes", "virtual_hosts": [virtual_host]},
        "http_filters": [ROUTER],
        **fields,
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def socket_address(port: int) -> dict[str, Any]:
    """On this machine."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(port: int, *chains: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A listener; what is no filter chain yet is its one filter."""
    made = [chain if "filters" in chain else {"filters": [chain]} for chain in chains]
    return {"name": f"at-{port}", "address": socket_address(port), "filter_chains": made, **fields}


def cluster(name: str, *ports: int, weights: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
    """A cluster of hosts on this machine."""
    endpoints = [
        {"endpoint": {"address": socket_address(port)}}
        | ({"load_balancing_weight": weight} if weight else {})
        for port, weight in zip(ports, weights or (0,) * len(ports), strict=True)
    ]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": assignment, **fields}


def bootstrap(listeners: list[dict[str, Any]], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole configuration."""
    return {
        "node": {"id": "node-1", "cluster": "c"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


async def beside(
    configuration: Callable[[int], dict[str, Any]],
    talk: Callable[[int], Awaitable[T]],
    folder: Path,
    before: Callable[[], None] = lambda: None,
    after: Callable[[int, T], T] = lambda port, found: found,
) -> tuple[T, T]:
    """What Envoy came to, and what we did. `before` puts hosts back to how they were, `after` may add what
    can be known when the proxy has ended."""
    results = []
    for command in (proxy.Command.parse("envoy"), proxy.Command.parse(None)):
        before()
        port = proxy.free_port()
        path = folder / "proxy.json"
        path.write_text(json.dumps(configuration(port)), encoding="utf-8")
        running = await proxy.RunningProxy.start(command, path, "error", folder)
        try:
            assert await running.wait_until_listening(port), running.last_words(20)
            found = await talk(port)
        finally:
            await running.stop()
        results.append(after(port, found))
    return results[0], results[1]
