"""The Go and Rust filters of `gpustack-higress-plugins` in real proxies: where they are, and their YAML."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pywasmproxy.server.proxy import Server
from tests.pywasmproxy.server.support import (
    Client,
    Handler,
    Lines,
    Response,
    Upstream,
    Visit,
    answer,
    bootstrap,
    cluster,
    listener,
    port_of,
    proxy,
)

FILTER = """
- name: envoy.filters.http.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: {name}
      configuration: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: {value}}}
      vm_config:
        vm_id: {vm_id}
        runtime: envoy.wasm.runtime.v8
        code: {{local: {{filename: "{path}"}}}}
"""

PATIENCE = "{id: me, metadata: {pywasmvm: {callback_time: 120s, start_time: 300s}}}"
"""A function is translated within the callback that calls it first: seconds, for filters of this size."""


def path_of(plugin: str) -> Path:
    """The module of a plugin, whatever its version."""
    spec = importlib.util.find_spec("gpustack_higress_plugins")
    assert spec is not None
    assert spec.origin is not None
    [path] = Path(spec.origin).parent.glob(f"plugins/{plugin}/*/plugin.wasm")
    return path


def wasm_filter(plugin: str, config: dict[str, Any], *, name: str = "", vm_id: str = "") -> str:
    """A plugin's entry in `http_filters`. Each name has a VM of its own unless they have the same `vm_id`."""
    own = name or plugin
    value = json.dumps(json.dumps(config))
    return FILTER.format(name=own, value=value, vm_id=vm_id or own, path=path_of(plugin))


@dataclass
class Gateway:
    """A running proxy, one client, and what the filters have said."""

    server: Server
    lines: Lines
    clients: list[Client] = field(default_factory=list)

    async def client(self, listener: str = "main") -> Client:
        client = await Client.open(port_of(self.server, listener))
        client.LIMIT = 60.0
        self.clients.append(client)
        return client

    async def get(self, path: str = "/", *, at: str = "main", **fields: str) -> Response:
        """One GET on a connection of its own; `x_user="a"` sends `x-user: a`."""
        client = await self.client(at)
        return await client.get(path, head_of(fields))

    async def post(self, path: str, body: Any, *, at: str = "main", **fields: str) -> Response:
        """One POST: JSON of a value, or bytes as they are."""
        client = await self.client(at)
        fields.setdefault("content_type", "application/json")
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post(path, data, head_of(fields))


def head_of(fields: dict[str, str]) -> bytes:
    return b"".join(f"{name.replace('_', '-')}: {value}\r\n".encode() for name, value in fields.items())


@contextlib.asynccontextmanager
async def gateway(filters: Sequence[str], routes: str, clusters: str) -> AsyncIterator[Gateway]:
    """A proxy with one listener with these filters, whose log has no errors in the end."""
    async with several({"main": filters}, routes, clusters) as running:
        yield running


@contextlib.asynccontextmanager
async def several(
    listeners: Mapping[str, Sequence[str]], routes: str, clusters: str
) -> AsyncIterator[Gateway]:
    """A proxy with listeners by name, each with filters of its own and the same routes."""
    lines = Lines()
    made = [listener(routes, name=name, filters="".join(filters)) for name, filters in listeners.items()]
    text = bootstrap(*made, clusters=clusters, node=PATIENCE)
    async with proxy(text, log=lines.log()) as server:
        running = Gateway(server, lines)
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()


# --- upstreams --------------------------------------------------------------------------------------------


def named(fqdn: str, port: int) -> str:
    """A cluster under the name that Higress gives a service: `outbound|80||fqdn`."""
    return cluster(port, name=f'"outbound|80||{fqdn}"')


def json_answer(value: Any, fields: bytes = b"") -> bytes:
    """A plain 200 with JSON."""
    return answer(json.dumps(value).encode(), b"content-type: application/json\r\n" + fields)


def telling_json(value: Any, fields: bytes = b"") -> Handler:
    """Answers everything with this JSON."""

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(json_answer(value, fields))

    return handler


def speaking(value: Any, events: Sequence[str]) -> Handler:
    """A model: answers with JSON, or with server-sent events (a piece each) where a request has `stream`."""

    async def handler(visit: Visit) -> None:
        while True:
            _, body = await visit.request()
            if not json.loads(body).get("stream"):
                visit.send(json_answer(value))
                continue
            visit.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for event in events:
                visit.send(b"%x\r\n%b\r\n" % (len(event.encode()), event.encode()))
                await visit.writer.drain()
                await asyncio.sleep(0.01)
            visit.send(b"0\r\n\r\n")

    return handler


def events_in(body: bytes) -> list[Any]:
    """The data of server-sent events; `[DONE]` as it is."""
    data = [line[5:].strip() for line in body.decode().splitlines() if line.startswith("data:")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


@dataclass
class Seen:
    """A request as an upstream got it."""

    path: str
    fields: list[tuple[str, str]]
    body: str

    def __getitem__(self, name: str) -> str | None:
        """All values of a header, in order; None when there is none."""
        return ",".join(value for key, value in self.fields if key == name) if name in self else None

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.fields)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def seen(up: Upstream, number: int = -1) -> Seen:
    """The last request that an upstream got, or another one."""
    start, *lines = up.heads[number].decode().split("\r\n")[:-2]
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return Seen(start.split(" ")[1], pairs, up.bodies[number].decode())
