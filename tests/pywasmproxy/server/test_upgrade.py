"""Requests that change to another protocol: bytes both ways, refusals, ends and resets. On real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.abi.rig import BYTES
from tests.pywasmproxy.server.scripted import REQUEST, RESPONSE, Scripted
from tests.pywasmproxy.server.support import (
    Client,
    Handler,
    Lines,
    Visit,
    bootstrap,
    cluster,
    listener,
    port_of,
    proxy,
    settled,
    upstream,
)

NAMES = (b"connection", b"upgrade")
WEBSOCKET = "upgrade_configs: [{upgrade_type: WebSocket}]"
ASKS = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n"
SWITCHES = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"sec-websocket-accept: x\r\n\r\n"
)


@pytest.fixture(params=["h11", "httptools"])
def codec(request: pytest.FixtureRequest) -> str:
    if request.param == "httptools":
        pytest.importorskip("httptools", reason="extra: fast")
    return str(request.param)


async def echoing(visit: Visit) -> None:
    """Switches, says hello, and then sends back what comes."""
    await visit.head()
    visit.send(SWITCHES + b"hello")
    while data := await visit.reader.read(65536):
        visit.upstream.bodies.append(data)
        visit.send(b"<" + data + b">")


async def ask(client: Client, path: bytes = b"/", more: bytes = b"", method: bytes = b"GET") -> int:
    client.send(b"%b %b HTTP/1.1\r\nhost: a.test\r\n%b\r\n%b" % (method, path, ASKS, more))
    return (await client.response()).status


async def read(client: Client, size: int) -> bytes:
    async with asyncio.timeout(20):
        return await client.reader.readexactly(size)


def text(port: int, routes: str = "", options: str = WEBSOCKET, filters: str = "") -> str:
    parts = {"options": options, "filters": filters}
    one = listener(routes, **parts) if routes else listener(**parts)  # type: ignore[arg-type]
    return bootstrap(one, clusters=cluster(port))


async def test_bytes_both_ways(codec: str) -> None:
    lines = Lines()
    async with upstream(echoing) as up, proxy(text(up.port), codec=codec, log=lines.log()) as server:
        client = await Client.open(port_of(server))
        client.send(b"GET /chat HTTP/1.1\r\nhost: a.test\r\n%b\r\n" % ASKS)
        response = await client.response()
        names = [name for name, _ in response.fields]
        assert response.status == 101
        assert names == ["connection", "upgrade", "sec-websocket-accept", "date", "server"]
        assert await read(client, 5) == b"hello"
        for data in (b"one", b"\x00\xff\r\n\r\n", b"x" * 50_000):
            client.send(data)
            got = b""
            while got.count(b"<") == 0 or got.translate(None, b"<>") != data:
                got += await read(client, 1)
        await asyncio.sleep(0)
        client.close()
        await settled(server)
    head = up.heads[0].decode().split("\r\n")
    assert head[:5] == [
        "GET /chat HTTP/1.1",
        "host: a.test",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-key: k",
    ]
    assert not any(line.startswith(("transfer-encoding", "content-length")) for line in head)
    assert lines.errors() == []


async def test_bytes_with_the_head_and_a_post() -> None:
    async with upstream(echoing) as up, proxy(text(up.port)) as server:
        for method in (b"GET", b"POST"):
            client = await Client.open(port_of(server))
            assert await ask(client, more=b"early", method=method) == 101
            assert sorted(await read(client, 12)) == sorted(b"hello<early>")
            client.close()


@pytest.mark.parametrize(
    ("options", "route", "status"),
    [
        ("", "", 403),
        ("upgrade_configs: [{upgrade_type: foo}]", "", 403),
        (WEBSOCKET.replace("WebSocket", "websocket, enabled: false"), "", 403),
        (WEBSOCKET, ", upgrade_configs: [{upgrade_type: websocket, enabled: false}]", 403),
        ("", ", upgrade_configs: [{upgrade_type: websocket}]", 101),
        (WEBSOCKET, "", 101),
    ],
)
async def test_who_may(options: str, route: str, status: int) -> None:
    routes = f'- {{match: {{prefix: "/"}}, route: {{cluster: up{route}}}}}'
    async with upstream(echoing) as up, proxy(text(up.port, routes, options)) as server:
        client = await Client.open(port_of(server))
        assert await ask(client) == status
        if status == 403:
            assert await client.closed()
        client.close()
    assert up.visits == (status == 101)


async def test_an_upstream_that_declines() -> None:
    async def declining(visit: Visit) -> None:
        await visit.head()
        visit.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno")
        await visit.reader.read()

    async with upstream(declining) as up, proxy(text(up.port)) as server:
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.1\r\nhost: a.test\r\n%b\r\n" % ASKS)
        response = await client.response()
        assert (response.status, response.body, response.one("connection")) == (400, b"no", "close")
        client.close()


async def test_connect_and_unasked_switching_stay_refused() -> None:
    async def switching(visit: Visit) -> None:
        await visit.head()
        visit.send(SWITCHES)
        await visit.reader.read()

    async with upstream(switching) as up, proxy(text(up.port)) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 502
        client.close()
        client = await Client.open(port_of(server))
        client.send(b"CONNECT a.test:1 HTTP/1.1\r\nhost: a.test:1\r\n\r\n")
        assert (await client.response()).status == 404
        client.close()


def ending(how: str) -> Handler:
    async def handler(visit: Visit) -> None:
        await visit.head()
        visit.send(SWITCHES + b"hello")
        await visit.reader.readexactly(2)
        if how == "reset":
            visit.reset()

    return handler


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_upstream_ends_it(how: str) -> None:
    async with upstream(ending(how)) as up, proxy(text(up.port)) as server:
        client = await Client.open(port_of(server))
        assert await ask(client) == 101
        assert await read(client, 5) == b"hello"
        client.send(b"go")
        assert await client.closed()
        await settled(server)
        client.close()


async def test_the_end_of_one_direction_is_the_end() -> None:
    ended = asyncio.Event()

    async def handler(visit: Visit) -> None:
        await visit.head()
        visit.send(SWITCHES)
        try:
            await visit.reader.read()
        finally:
            ended.set()

    async with upstream(handler) as up, proxy(text(up.port)) as server:
        client = await Client.open(port_of(server))
        assert await ask(client) == 101
        client.writer.write_eof()
        assert await client.closed()
        async with asyncio.timeout(20):
            await ended.wait()
        client.close()


async def test_a_route_timeout_does_not_count_but_the_idle_one_does() -> None:
    routes = '- {match: {prefix: "/"}, route: {cluster: up, timeout: 0.1s, idle_timeout: 0.5s}}'
    async with upstream(echoing) as up, proxy(text(up.port, routes)) as server:
        client = await Client.open(port_of(server))
        assert await ask(client) == 101
        assert await read(client, 5) == b"hello"
        for _ in range(4):
            await asyncio.sleep(0.2)
            client.send(b"x")
            assert await read(client, 3) == b"<x>"
        assert await client.closed()
        await settled(server)
        client.close()


async def test_filters_see_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Scripted(monkeypatch)
    seen: list[tuple[object, ...]] = []

    def headers(*_: int) -> int:
        seen.append(("head", *(guest.ask("proxy_get_header_map_value", 0, name, BYTES)[1] for name in NAMES)))
        return 0

    guest.on(REQUEST, headers)

    def body(name: str) -> None:
        def said(context: int, size: int, end: int) -> int:
            seen.append((name, size, end))
            return 0

        guest.on(name, said)

    body("proxy_on_request_body")
    body("proxy_on_response_body")
    guest.on(RESPONSE, lambda *_: 0)
    async with (
        upstream(echoing) as up,
        proxy(text(up.port, filters=guest.config()), log=guest.log()) as server,
    ):
        client = await Client.open(port_of(server))
        assert await ask(client) == 101
        assert await read(client, 5) == b"hello"
        client.send(b"abc")
        assert await read(client, 5) == b"<abc>"
        client.close()
        await settled(server)
    assert seen[0] == ("head", b"Upgrade", b"websocket")
    assert ("proxy_on_request_body", 3, 0) in seen
    assert ("proxy_on_response_body", 5, 0) in seen
