"""What goes wrong on a network: always one well-formed answer or a cut connection, never a hang or a leak.

`proxy()` itself checks after every test that no exchange and no connection is left.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable
from typing import Any

import pytest

from pywasmproxy.server import downstream
from pywasmproxy.server import upstream as upstreams
from pywasmproxy.server.listener import Listener
from pywasmproxy.server.wire import BodyWriter
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    Visit,
    answer,
    bootstrap,
    cluster,
    hello,
    listener,
    port_of,
    proxy,
    settled,
    upstream,
)

RESET = "upstream connect error or disconnect/reset before headers. reset reason: "


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_refused() -> None:
    async with proxy(bootstrap(listener(), clusters=cluster(closed_port()))) as server:
        client = await Client.open(port_of(server))
        for _ in range(3):
            response = await client.get()
            assert response.status == 503
            assert response.body.decode() == RESET + "remote connection failure"
            assert response.one("content-type") == "text/plain"
            assert response.one("connection") is None
        client.close()


async def test_no_hosts() -> None:
    async with proxy(bootstrap(listener(), clusters="\n  - {name: up, type: STATIC}\n")) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        assert (response.status, response.body) == (503, b"no healthy upstream")
        client.close()


async def test_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async with proxy(bootstrap(listener(), clusters=cluster(1, connect_timeout="0.1s"))) as server:
        client = await Client.open(port_of(server))
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
        response = await client.get()
        assert (response.status, response.body.decode()) == (503, RESET + "connection timeout")
        monkeypatch.undo()
        client.close()


async def test_client_leaves_while_the_connection_is_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop may report a connection as made, and then drop it silently when the attempt is cancelled."""
    monkeypatch.setattr(downstream, "HALF_CLOSE_GRACE", 0.01)
    async with upstream(hello) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))

        class Transport(asyncio.Transport):
            aborted = False

            def abort(self) -> None:
                self.aborted = True

        transport = Transport()

        async def half(factory: Callable[[], asyncio.Protocol], *_: object) -> None:
            factory().connection_made(transport)
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "create_connection", half)
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await asyncio.sleep(0.05)
            client.close()
            await settled(server)
            await asyncio.sleep(0.05)
        assert transport.aborted
        assert not server.clusters["up"].connections


LIMITED = "circuit_breakers: {{thresholds: [{{max_connections: {}, max_pending_requests: {}}}]}}"


async def test_a_request_that_is_given_up_in_the_moment_it_begins() -> None:
    """The attempt to connect is cancelled before its first step; its place is free all the same."""
    limited = LIMITED.format(1, 1024)
    async with (
        upstream(hello) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port, options=limited))) as server,
    ):
        to = server.clusters["up"]
        for _ in range(3):
            nobody: Any = None  # is told nothing
            writer = BodyWriter(chunked=False, length=0)
            request = upstreams.UpstreamRequest(to, nobody, b"GET", b"GET / HTTP/1.1\r\n\r\n", writer)
            request.start()
            assert to.connecting == 1
            request.reset()
            assert to.connecting == 0
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 200
        client.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_upstream_closes_without_answering(reset: bool) -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        if reset:
            visit.reset()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        for _ in range(2):
            response = await client.get()
            assert (response.status, response.body.decode()) == (503, RESET + "connection termination")
        client.close()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
    ],
)
async def test_upstream_breaks_off_inside_the_body(part: bytes, reset: bool) -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(part)
        await asyncio.sleep(0.05)
        if reset:
            visit.reset()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        assert response.status == 200
        assert not response.complete
        assert response.body in (b"part", b"")
        assert await client.closed()


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"\0\1\2\3",
        b"HTTP/1.1 200 OK\r\nx\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
    ],
)
async def test_garbage(garbage: bytes) -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(garbage)
        await visit.reader.read()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        response = await client.get()
        assert (response.status, response.body.decode()) == (502, RESET + "protocol error")
        client.close()


async def test_garbage_inside_the_body() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n-1\r\n")
        await visit.reader.read()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        assert not (await client.get()).complete


async def test_more_than_was_asked_for() -> None:
    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(answer(b"one") + answer(b"smuggled"))

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        for _ in range(3):
            assert (await client.get()).body == b"one"
        client.close()
    assert up.visits == 3


async def test_bytes_on_an_idle_connection() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(answer(b"one"))
        await asyncio.sleep(0.05)
        visit.send(answer(b"smuggled"))
        await visit.reader.read()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).body == b"one"
        await asyncio.sleep(0.15)
        assert (await client.get()).body == b"one"
        client.close()


async def test_slow_upstream_meets_the_route_timeout() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()  # until the proxy gives up

    routes = '- {match: {prefix: "/"}, route: {cluster: up, timeout: 0.1s}}'
    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(routes), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        response = await client.get()
        assert (response.status, response.body) == (504, b"upstream request timeout")
        response = await client.post("/", b"abc")
        assert response.status == 504
        client.close()
        await asyncio.sleep(0.05)
        assert not up.tasks  # the upstream requests were given up, too


async def test_route_timeout_inside_the_body() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
        await visit.reader.read()

    routes = '- {match: {prefix: "/"}, route: {cluster: up, timeout: 0.2s}}'
    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(routes), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        response = await client.get()
        assert (response.status, response.complete) == (200, False)


@pytest.mark.parametrize("phase", ["request", "response"])
async def test_stream_idle_timeout(phase: str) -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
        await visit.reader.read()

    options = "stream_idle_timeout: 0.2s"
    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(options=options), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        if phase == "request":
            client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
            response = await client.response()
            assert response.status == 408
            assert response.one("connection") == "close"
        else:
            response = await client.get()
            assert (response.status, response.complete) == (200, False)
        assert await client.closed()


async def test_idle_connection_is_closed() -> None:
    options = "common_http_protocol_options: {idle_timeout: 0.1s}"
    async with (
        upstream(hello) as up,
        proxy(bootstrap(listener(options=options), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 200
        assert await client.closed()


async def test_headers_that_never_end() -> None:
    options = "request_headers_timeout: 0.1s"
    async with (
        upstream(hello) as up,
        proxy(bootstrap(listener(options=options), clusters=cluster(up.port))) as server,
    ):
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.1\r\n")
        assert (await client.response()).status == 408
        assert await client.closed()


async def test_early_answer_stops_the_upload() -> None:
    async def handler(visit: Visit) -> None:
        await visit.head()
        visit.send(answer(b"early"))
        await asyncio.sleep(1)

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n" + b"x" * 1_000_000)
        response = await client.response()
        assert (response.body, response.one("connection")) == (b"early", "close")
        for _ in range(20):  # what still comes is thrown away
            client.send(b"x" * 100_000)
            await asyncio.sleep(0)
        assert await client.closed()
        await settled(server)
        assert len(server.clusters["up"].connections) == 0


async def test_early_answer_without_end() -> None:
    """The upstream answers at once and goes on sending while the upload runs: both directions flow."""

    async def handler(visit: Visit) -> None:
        await visit.head()
        visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(10):
            got = await visit.reader.readexactly(10)
            visit.send(b"a\r\n" + got + b"\r\n")
        visit.send(b"0\r\n\r\n")

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n")
        for number in range(10):
            await asyncio.sleep(0.005)
            client.send(b"%d" % number * 10)
        response = await client.response()
        assert response.body == b"".join(b"%d" % number * 10 for number in range(10))
        client.close()


@pytest.mark.parametrize("abort", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("phase", ["connected", "head", "body", "waiting", "response"])
async def test_client_goes_away(phase: str, abort: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream, "HALF_CLOSE_GRACE", 0.05)
    gone = asyncio.Event()

    async def handler(visit: Visit) -> None:
        await visit.head()
        if phase == "response":
            visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart")
        try:
            await visit.reader.read()
        finally:
            gone.set()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        sent = {
            "connected": b"",
            "head": b"GET / HTTP/1.1\r\nho",
            "body": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
            "waiting": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "response": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        }[phase]
        client.send(sent)
        await asyncio.sleep(0.05)
        if phase == "response":
            await client.reader.readuntil(b"part")
        if abort:
            client.abort()
        else:
            client.close()
        async with asyncio.timeout(20):
            while server.streams or server.connections:
                await asyncio.sleep(0.01)
            if phase not in ("connected", "head"):
                await gone.wait()  # the upstream heard of it


async def test_half_closed_client_still_gets_its_answer() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        await asyncio.sleep(0.05)
        visit.send(answer())

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        client.writer.write_eof()
        assert (await client.response()).body == b"Hello World!"
        assert await client.closed()


async def test_half_closed_pipeline() -> None:
    async with upstream(hello) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 3)
        client.writer.write_eof()
        for _ in range(3):
            assert (await client.response()).body == b"Hello World!"
        assert await client.closed()


async def test_stale_pooled_connection() -> None:
    """The upstream closes exactly when a second request arrives: repeated for GET, 503 for POST."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(answer())
        await visit.request()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        assert (await client.get()).status == 200
        assert (await client.get()).status == 200
        assert up.visits == 2
        response = await client.post("/", b"abc")
        assert (response.status, response.body.decode()) == (503, RESET + "connection termination")
        client.close()


async def test_upstream_closes_idle_connections() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.send(answer())

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        for _ in range(3):
            assert (await client.post("/", b"x")).status == 200
            await asyncio.sleep(0.02)
            assert server.clusters["up"].idle == 0
        client.close()


async def test_slow_client_slows_the_upstream_down() -> None:
    size = 64 << 20
    sent = 0

    async def handler(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            visit.send(b"x" * 65536)
            sent += 65536
            await visit.writer.drain()

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server), limit=4096)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.sleep(0.4)
        assert sent < 32 << 20  # kernel buffers take some megabytes, the proxy does not take the rest
        before = sent
        await asyncio.sleep(0.1)
        assert sent == before
        received = 0
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            while received < size:
                received += len(await reader.read(1 << 20))
        writer.close()


async def test_slow_upstream_slows_the_client_down() -> None:
    go_on = asyncio.Event()
    size = 64 << 20

    async def handler(visit: Visit) -> None:
        await visit.head()
        await go_on.wait()
        got = 0
        while got < size:
            got += len(await visit.reader.read(1 << 20))
        visit.send(answer(b"%d" % got))

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        client = await Client.open(port_of(server))
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        sent = 0
        try:
            async with asyncio.timeout(0.5):
                while sent < size:
                    client.send(b"x" * 65536)
                    sent += 65536
                    await client.writer.drain()
        except TimeoutError:
            pass
        assert sent < 32 << 20
        go_on.set()
        while sent < size:
            client.send(b"x" * 65536)
            sent += 65536
            await client.writer.drain()
        client.LIMIT = 20.0
        assert (await client.response()).body == b"%d" % size
        client.close()


async def test_a_fault_of_ours_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    async with (
        upstream(hello) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port)), log=lines.log()) as server,
    ):
        listening = server.listeners[0]
        assert isinstance(listening, Listener)
        original = listening.serving

        class Broken:
            def feed(self, event: object) -> list[object]:
                raise ZeroDivisionError("a bug")

        witness = await Client.open(port_of(server))
        assert (await witness.get()).status == 200
        chains: list[Any] = [lambda *_: Broken(), lambda *_: 1 // 0]
        for broken in chains:
            listening.serving = dataclasses.replace(original, chain=broken)
            client = await Client.open(port_of(server))
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert await client.closed()
            listening.serving = original
            assert (await witness.get()).status == 200
        witness.close()
    assert len(lines.errors()) == 2
    assert "ZeroDivisionError: a bug" in lines


async def test_two_hundred_slow_clients() -> None:
    async with upstream(hello) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        slow = [await Client.open(port_of(server)) for _ in range(200)]
        for client in slow:
            client.send(b"GET / HTTP/1.1\r\nhost: a")
        quick = await Client.open(port_of(server))
        assert (await quick.get()).status == 200
        for client in slow:
            client.send(b"\r\n\r\n")
        for client in slow:
            assert (await client.response()).status == 200
            client.close()
        quick.close()


async def test_more_requests_than_connections() -> None:
    release = asyncio.Event()

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            await release.wait()
            visit.send(answer())

    limited = LIMITED.format(2, 3)
    async with (
        upstream(handler) as up,
        proxy(bootstrap(listener(), clusters=cluster(up.port, options=limited))) as server,
    ):
        clients = [await Client.open(port_of(server)) for _ in range(7)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await asyncio.sleep(0.02)
        refused = [await client.response() for client in clients[5:]]
        assert [(one.status, one.body.decode()) for one in refused] == [(503, RESET + "overflow")] * 2
        clients[4].close()  # one that waits goes away
        await asyncio.sleep(0.3)
        release.set()
        assert [(await client.response()).status for client in clients[:4]] == [200] * 4
        for client in clients:
            client.close()
    assert up.visits == 2


async def test_drain_finishes_what_runs() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        await asyncio.sleep(0.2)
        visit.send(answer())

    async with upstream(handler) as up, proxy(bootstrap(listener(), clusters=cluster(up.port))) as server:
        idle = await Client.open(port_of(server))
        busy = await Client.open(port_of(server))
        port = port_of(server)
        busy.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(server.stop())
        assert await idle.closed()
        with pytest.raises(ConnectionError):
            await Client.open(port)
        response = await busy.response()
        assert (response.body, response.one("connection")) == (b"Hello World!", "close")
        await stopping


async def test_drain_gives_up_after_its_time() -> None:
    async def handler(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()

    lines = Lines()
    text = bootstrap(listener(), clusters="")
    async with upstream(handler) as up:
        text = bootstrap(listener(), clusters=cluster(up.port))
        async with proxy(text, log=lines.log()) as server:
            client = await Client.open(port_of(server))
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await asyncio.sleep(0.05)
            await server.stop(0.05)
            assert await client.closed()
    assert "1 connections cut off" in lines
